"""Output: everything below `output.path`. This room does not know Ray, manifests or models.

Read in this order:

- `layout`: every path below an output.
- `space`: `space.json`, the one embedding space of an output. `documents`: how JSON files are parsed.
- `prediction_rows`: decoded and scored rows become output rows.
- `fragment`: one Parquet file of rows. `file_statistics`: what readers skip it by. `fragment_files`: rows are
  written as such files, not visible yet.
- `table`: the Delta table: epochs, claims, commits. `actions`: one commit. `delta_log`: one entry of the log.
  `visible_files`: the files that the log names.
- `reader`: the only SQL and Arrow over committed rows. `failed_rows`: the export of failed rows.
- `changes`: the rows that came, changed or left between two versions. `changed_files`: the files that hold them.
- `label_table`: the labels of one head, a table of its own. `label_views`: labels as columns of the predictions.
- `heartbeat`: tells whether the run that owns the output is alive. `handover`: what a run leaves for the next one.
- `orphans`: files that no commit names. `maintenance`: vacuum, history.
- `compaction`: small files become larger ones.
- `column_types`, `widening`: schema evolution of kept columns.

Threads: only the driver's commit thread commits, so `table` takes no lock. `heartbeat` writes on a thread of its
own.
"""
