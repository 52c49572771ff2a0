"""Duplicates: which images of an output are the same picture. This room does not know how embeddings were made.

Read in this order:

- `finding`: a search for duplicates from start to end. `result`: the groups as a Parquet file, and their shares.
- `lake_rows`: the rows and vectors of one version, in a temporary folder.
- `pieces`: rows divided into pieces that are compared by themselves. `pairs`: the near pairs of one piece.
- `grouping`: pairs to groups. `work`: where the comparing runs.
"""
