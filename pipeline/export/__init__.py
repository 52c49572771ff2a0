"""Export: the rows of an output as files that other programs read. This room does not know how rows were made.

Read in this order:

- `exporting`: an export from start to end. `request`: what it is to hold. `destination`: the folder that it fills.
  `summary`: `export.json`, which is written last.
- `all_rows`: every row of one version. `ray_tasks`: the same, in tasks on a cluster. `changed_rows`: upserts and
  deletes since an earlier version. `faiss_index`: one index of all vectors.
- `row_files`: a stream of rows as numbered files. `shapes`: rows as an importer takes them. `json_values`: rows as
  JSON.
"""
