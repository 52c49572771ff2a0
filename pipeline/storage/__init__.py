"""Stores: where bytes are, and how they are opened. This room does not know what the bytes mean.

Read in this order:

- `uris`: what a URI names, how it becomes absolute, and what messages show of it. `data_uris`: images written out
  in their URI.
- `filesystems`: opens the filesystem of a URI, and reads and writes single objects.
- `aws`: endpoint, region and credentials of S3, the same for every client. `certificates`: the ones of
  `AWS_CA_BUNDLE`, for clients that ignore that variable.
- `fast_paths`: stores whose objects a faster client than fsspec reads, such as `s3_objects`. `http`: byte
  ranges over HTTP.
- `error_codes`: a store's exception to the code of a row error.
- `sql`: quoting for DuckDB, and stores that DuckDB reads from.
- `temporary_folders`, `caches`: folders on this machine.
"""
