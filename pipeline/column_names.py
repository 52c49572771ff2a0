"""The names of columns, without their types: whoever only names a column need not import Arrow.

`schema` has the same names together with the Arrow schemas.
"""

IMAGE_ID, URI, DATASET, VERSION = "image_id", "uri", "dataset", "version"
OFFSET, LENGTH = "offset", "length"
OUTCOME, OK, FAILED = "outcome", "ok", "failed"
PIXELS = "pixels"
BYTES = "bytes"
ORDINAL, PROBLEM, SELECTED = "_lakelens_ordinal", "_lakelens_problem", "_lakelens_selected"
"""Columns that planning adds to a manifest: a number that rises from row to row, the reason why a row is invalid
(null if it is valid), and whether the user selected the row."""
SOURCE, UNREADABLE = "_lakelens_source", "_lakelens_unreadable"
"""Columns that reading adds to a manifest: the manifest file, and the reason why a row's text is invalid."""
CARRIED_IN, ROW = "_lakelens_carried_in", "_lakelens_row"
"""The place of an image that a manifest carries itself: the manifest file, and the row's number in it from 0."""
TRIES, REPLACES = "_lakelens_tries", "_lakelens_replaces"
"""Columns of a row that is processed again: its attempts so far, and the file of the table that holds it."""

_PENDING = {IMAGE_ID, URI, DATASET, VERSION, OFFSET, LENGTH, CARRIED_IN, ROW, TRIES, REPLACES}
_DECODED = {"width", "height", "content_sha256", "decode_notes", "stage", "error_code", "message", "attempts"}
_PREDICTED = {OUTCOME, "label", "score", "labels", "embedding", "embedding_norm", "run_id", "finished_at"}
RESERVED = frozenset(_PENDING | _DECODED | _PREDICTED | {PIXELS})
"""Names that a kept manifest column cannot have: columns of the output, and of rows on their way to it."""
