"""Every error that LakeLens raises.

There are three kinds: an error ends a run, shrinks a batch, or fails a row.

    LakeLensError        a run's: one sentence for the user, and an exit code
    ├── ConfigError          a wrong key, value or override
    ├── ManifestError        a missing or unreadable manifest, a missing column
    ├── StorageError         a store that is missing, fails or refuses
    ├── ModelError           a model that is missing, unreadable or not supported
    ├── EngineError          an engine that is not installed, a missing device
    ├── SpaceError           the output belongs to another embedding space
    ├── TableError           a table that cannot be read or committed to
    │   ├── OvertakenError       a newer run owns the output
    │   ├── BusyError            another run is writing to the output
    │   └── MovedError           maintenance has deleted or replaced files: read the table again
    ├── QueryError           a query of a search that gives no vector
    ├── ClusterError         Ray cannot be reached, or has lost work
    ├── FailureRateError     so many images fail that the images are not the cause
    ├── AccountError         rows in and rows out do not balance
    └── AgreementError       predictions differ too much from those of plain transformers
    OutOfMemory          a batch's: the engine's caller halves the batch and tries again
    RowError             a row's: becomes a failed row with a stage and a code
"""

import re
from enum import StrEnum

UNLISTED = 6
"""Exit code of a command that finished, but could not list everything below its folder or prefix."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, without terminal colours and the final period.

    Return the name of the error's type if it has no text.
    """
    text = _COLOUR.sub("", str(error)).strip()
    first = text.splitlines()[0].rstrip(" .") if text else ""
    return first or type(error).__name__


class LakeLensError(Exception):
    """A run cannot start or continue. `str()` is one sentence that says what happened and what to do."""

    exit_code = 2


class ConfigError(LakeLensError):
    """The configuration is wrong."""


class ManifestError(LakeLensError):
    """The manifest is missing, unreadable or lacks a column."""


class StorageError(LakeLensError):
    """A store cannot be reached or denies access."""


class ModelError(LakeLensError):
    """The model is missing, unreadable or not supported."""


class EngineError(LakeLensError):
    """The engine that the config names cannot run here."""


class SpaceError(LakeLensError):
    """The output holds another embedding space."""


class HeadError(LakeLensError):
    """A head is damaged, belongs to another space, or cannot be made."""


class TableError(LakeLensError):
    """The predictions table cannot be read or committed to."""


class OvertakenError(TableError):
    """A newer run has claimed the table; this one must stop."""

    exit_code = 3


class BusyError(TableError):
    """Another run is writing to the output, and `take_over` is not set."""

    exit_code = 3


class MovedError(TableError):
    """Maintenance has deleted or replaced files of the table. Read the table again."""


class VersionGoneError(TableError):
    """The changes since a version of the table cannot be found any more. Make derived data again from nothing."""


class QueryError(LakeLensError):
    """The query of a search gives no vector of the space: its image, id, text or file does not serve."""


class ClusterError(LakeLensError):
    """The Ray cluster cannot be reached, or has lost work that it cannot repeat."""


class FailureRateError(LakeLensError):
    """More rows fail than `failures.max_rate` allows, so the cause is probably not in the images."""


class AccountError(LakeLensError):
    """Rows in and rows out do not balance. This is a defect of LakeLens, never bad input."""

    exit_code = 4


class AgreementError(LakeLensError):
    """The predictions of an output or of a quantised model differ too much from those of plain transformers."""

    exit_code = 5


class OutOfMemory(Exception):  # noqa: N818 - the field's own name for it
    """The device could not hold a batch. The batch is halved; a single image becomes a row error."""


class Stage(StrEnum):
    """Where in the pipeline a row failed."""

    FETCH = "fetch"
    DECODE = "decode"
    PREDICT = "predict"


class ErrorCode(StrEnum):
    """Why a row failed. The list is closed, so people can count and select failures by code."""

    NOT_FOUND = "not_found"
    NO_SUCH_BUCKET = "no_such_bucket"
    ACCESS_DENIED = "access_denied"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    TOO_LARGE = "too_large"
    BAD_URI = "bad_uri"
    EMPTY = "empty"
    UNSUPPORTED_FORMAT = "unsupported_format"
    CORRUPT = "corrupt"
    TRUNCATED = "truncated"
    TOO_MANY_PIXELS = "too_many_pixels"
    DECODE_TIMEOUT = "decode_timeout"
    DECODE_CRASHED = "decode_crashed"
    OUT_OF_MEMORY = "out_of_memory"
    NON_FINITE = "non_finite"


STORE_CODES = frozenset(
    {ErrorCode.ACCESS_DENIED, ErrorCode.NO_SUCH_BUCKET, ErrorCode.TIMEOUT, ErrorCode.UNAVAILABLE}
)
"""Codes that blame the store, not the image. If every row fails with them, the store or the settings are wrong."""


class RowError(Exception):
    """One image could not be fetched, decoded or predicted.

    The same failure has the same `message` in every run.
    """

    def __init__(self, stage: Stage, code: ErrorCode, message: str) -> None:
        super().__init__(stage, code, message)
        self.stage = stage
        self.code = code
        self.message = message
