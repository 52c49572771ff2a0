"""Planning: from a manifest to the rows that a run has to process. No Ray, and no image is opened.

Read in this order:

- `claim`: from a config to a claimed assignment. `plan`: manifest − committed = pending. `account`: every input
  row in exactly one count.
- `manifest`: manifests to one relation. `relation`: the columns and the reason why a row is invalid.
  `manifest_files`: which files DuckDB reads as they are. `parquet_copy`: the others, converted.
- `csv_rows`, `json_rows`, `text`: text files to rows.
- `listing`: a manifest from folders and prefixes. `walk`: the files below one. `shards`: the members of a tar.
  `listing_report`: what a listing took and left out.
"""
