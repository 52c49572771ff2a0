"""Planning: from a manifest to the rows that a run processes. This room does not know Ray, and opens no image.

Read in this order:

- `preview`: what a run would do. `claim`: from a config to a claimed assignment. `selection`: which rows a run is
  for. `plan`: the pending rows, counted and written. `difference`: manifest − committed = pending. `account`:
  every input row in exactly one count.
- `manifest`: manifests to the view `input`. `relation`: their files as one relation. `group_sql`: rows as the
  files have them. `row_sql`: rows as LakeLens takes them, and why one is invalid.
- `manifest_files`: the columns of each file, and whether DuckDB reads it as it is. `manifest_file`: one of them.
  `column_checks`: refuses files whose columns do not fit the config. `parquet_copy`: converts the other files.
  `csv_rows`, `json_rows`: text files to rows. `text`: bytes to text.
- `listing`: a manifest from folders and prefixes. `walk`: the files below one. `shards`: the members of a tar.
  `listing_report`: what a listing took and left out.
"""
