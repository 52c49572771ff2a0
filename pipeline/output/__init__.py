"""Output: everything below `output.path`. This room does not know Ray, manifests or models.

Read in this order:

- `layout`: every path below an output.
- `space`: `space.json`, the one embedding space of an output. `documents`: how its JSON files are read.
- `prediction_rows`: decoded and scored rows to output rows. `fragment`: one Parquet file of them.
  `fragment_files`: rows to such files, which no commit names yet.
- `table`: the Delta table: epochs, claims, commits. `actions`: one commit. `delta_log`: one entry of the log.
- `heartbeat`: the sign of life of the run that owns the output. `orphans`: files that no commit names.
- `reader`: the only SQL and Arrow over committed rows. `failed_rows`: the failed rows, counted and exported.
- `maintenance`: compact, vacuum, history. `column_types`, `widening`: kept columns whose types change.

Threads: the driver's commit thread alone commits, so `table` takes no lock. `heartbeat` writes from a thread
of its own.
"""
