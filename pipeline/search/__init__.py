"""Search: a query to the nearest images of an output. This room does not know manifests, or how a run works.

Read in this order:

- `texts`: texts as queries.
"""
