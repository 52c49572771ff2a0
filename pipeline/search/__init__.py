"""Search: a query to the nearest images of an output. This room does not know manifests, or how a run works.

Read in this order:

- `searching`: a query to its hits. `hits`: the rows that were found.
- `queries`: an image, an id, a text or a vector to a query. `images`, `texts`, `vectors`: those that are no row of
  the output. `places`: where an image is.
- `gallery`: hits as a page. `thumbnails`: the images on it.
- `exact`: the nearest rows, without an index.
- `index`: the index of an output, to search in. `index_filters`: the conditions that it takes.
- `index_update`: brings an index up to date. `index_build`: stages a change and commits it. `index_state`: what a
  version tells about itself.
- `index_rows`: rows of the index. `index_segments`: the indexes on its columns. `index_recall`: how many of the
  nearest rows a search finds.
- `index_lance`: every use of Lance. `index_work`: where a build runs.
"""
