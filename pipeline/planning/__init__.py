"""Planning: from a manifest to the rows that a run has to process. No Ray, and no image is opened.

Read in this order:

- `claim`: from a config to a claimed assignment. `selection`: which rows a run is for. `plan`: the pending rows,
counted and written. `difference`: manifest − committed = pending. `account`: every input row in exactly one
count. - `manifest`: manifests to the view `input`. `relation`: their files as one relation. `group_sql`: rows as
the files have them. `row_sql`: rows as LakeLens takes them, and why one is invalid. - `manifest_files`: the
columns of each file, and whether DuckDB reads it as it is. `parquet_copy`: the other files, converted.
`csv_rows`, `json_rows`, `text`: text files to rows.
- `listing`: a manifest from folders and prefixes. `walk`: the files below one. `shards`: the members of a tar.
  `listing_report`: what a listing took and left out.
"""
