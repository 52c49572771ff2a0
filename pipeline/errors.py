"""Every way LakeLens says no.

Three kinds, by what they cost:

    LakeLensError        a run's: one sentence for the person, and an exit code
    ├── ConfigError          a key, a value, an override
    ├── ManifestError        no manifest, no such column, an unreadable file
    ├── StorageError         a store that is not there or says no
    ├── ModelError           a model that cannot be resolved or is not supported
    ├── EngineError          an engine that is not installed, a device that is not there
    ├── SpaceError           the output belongs to another embedding space
    ├── TableError           a commit that cannot be made
    │   ├── OvertakenError       a newer run owns the output
    │   ├── BusyError            another run is at work on the output
    │   └── MovedError           maintenance has put other files in the place of some: look again
    ├── ClusterError         Ray cannot be reached or lost the work
    ├── FailureRateError     too many images fail for it to be the images' fault
    └── AccountError         rows in and rows out do not balance
    OutOfMemory          a batch's: halve it and try again
    RowError             a row's: becomes a failed row with a stage and a code
"""

import re
from enum import StrEnum

UNLISTED = 6
"""Exit code of a command that is done, but something below its folder or prefix could not be listed."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error for use in a sentence: without terminal colours and final period.

    Return the name of the error's type where it has no text.
    """
    text = _COLOUR.sub("", str(error)).strip()
    first = text.splitlines()[0].rstrip(" .") if text else ""
    return first or type(error).__name__


class LakeLensError(Exception):
    """A run cannot start or go on. `str()` is one sentence that says what to do about it."""

    exit_code = 2


class ConfigError(LakeLensError):
    """The configuration is wrong."""


class ManifestError(LakeLensError):
    """The manifest is missing, unreadable or lacks a column."""


class StorageError(LakeLensError):
    """A store cannot be reached or denies access."""


class ModelError(LakeLensError):
    """The model cannot be found, read or supported."""


class EngineError(LakeLensError):
    """The engine that was asked for cannot run here."""


class SpaceError(LakeLensError):
    """The output holds another embedding space."""


class TableError(LakeLensError):
    """The predictions table cannot be read or committed to."""


class OvertakenError(TableError):
    """A newer run has claimed the table; this one must stop."""

    exit_code = 3


class BusyError(TableError):
    """Another run is at work on the output, and may not be taken over from without a word."""

    exit_code = 3


class MovedError(TableError):
    """Files of the table are gone or have others in their place, by maintenance: look again."""


class ClusterError(LakeLensError):
    """The Ray cluster cannot be reached, or lost work that it could not redo."""


class FailureRateError(LakeLensError):
    """More rows fail than `failures.max_rate` allows: something is wrong with all of them."""


class AccountError(LakeLensError):
    """Rows in and rows out do not balance: a defect, never a bad input."""

    exit_code = 4


class AgreementError(LakeLensError):
    """An output, or a quantised model, is too far from what plain transformers gives."""

    exit_code = 5


class OutOfMemory(Exception):  # noqa: N818 - the field's own name for it
    """The device could not hold a batch. The batch is halved; a single image becomes a row error."""


class Stage(StrEnum):
    """Where in the pipeline a row failed."""

    FETCH = "fetch"
    DECODE = "decode"
    PREDICT = "predict"


class ErrorCode(StrEnum):
    """Why a row failed: a closed list, so that failures can be counted and selected."""

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
"""What speaks of the store and not of the image: if every row fails so, something else is wrong."""


class RowError(Exception):
    """One image could not be fetched, decoded or predicted.

    `message` is stable text: the same failure gives the same message in every run.
    """

    def __init__(self, stage: Stage, code: ErrorCode, message: str) -> None:
        super().__init__(stage, code, message)
        self.stage = stage
        self.code = code
        self.message = message
