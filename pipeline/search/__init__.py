"""Search: a query to the nearest images of an output. This room does not know manifests, or how a run works.

Read in this order:

- `searching`: a query to its hits. `hits`: the rows that were found.
- `queries`: an image, an id, a text or a vector to a query. `images`, `texts`, `vectors`: those that are no row of
  the output. `places`: where an image is.
- `gallery`: hits as a page. `thumbnails`: the images on it.
- `exact`: the nearest rows, without an index.
"""
