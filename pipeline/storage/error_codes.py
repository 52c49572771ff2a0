"""Map the exceptions of stores to the codes of row errors. It opens no store.

Local disk, S3 (botocore, s3fs), HTTP (aiohttp) and fsspec's other stores raise different exceptions. Each of them
gets a code from the closed list.
"""

import errno
import sys
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import botocore.exceptions as boto

from pipeline.errors import ErrorCode

RETRYABLE = frozenset({ErrorCode.TIMEOUT, ErrorCode.UNAVAILABLE})
"""Codes of failures that may pass: a retry can succeed."""

MESSAGES = {
    ErrorCode.NOT_FOUND: "the object does not exist",
    ErrorCode.NO_SUCH_BUCKET: "the bucket does not exist",
    ErrorCode.ACCESS_DENIED: "the store denied access",
    ErrorCode.TIMEOUT: "the store did not answer in time",
    ErrorCode.UNAVAILABLE: "the store could not be reached or failed",
    ErrorCode.BAD_URI: "the URI does not lead to a file",
    ErrorCode.TOO_LARGE: "the file is larger than this system can read",
    ErrorCode.EMPTY: "the object has no bytes",
    ErrorCode.OUT_OF_MEMORY: "reading the file took more memory than there is",
}
"""What a row error of each code says, for a person."""


def classify(error: BaseException) -> ErrorCode:
    """Return the row error code of any exception that a store raises; `unavailable` for unknown ones."""
    return known(error) or ErrorCode.UNAVAILABLE


def known(error: BaseException) -> ErrorCode | None:
    """Like `classify`, but return None for unknown exceptions."""
    found = answer(error)
    if found is not None:
        return _NAMES.get(found[1]) or _of_status(found[0])
    # Importing aiohttp would delay every worker, and its exceptions only exist where it was imported already.
    if "aiohttp" in sys.modules and (code := _of_http(error)):
        return code
    for kinds, code in _KINDS:
        if isinstance(error, kinds):
            return code
    if isinstance(error, OSError):
        return _ERRNOS.get(error.errno or 0, ErrorCode.UNAVAILABLE)
    return ErrorCode.BAD_URI if isinstance(error, _FSSPEC_ASTRAY) else None


class RefusedError(Exception):
    """An S3 store refused a request: its HTTP status, and its error code, "" if it gave none."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}".strip())
        self.status, self.code = status, code


def answer(error: BaseException) -> tuple[int, str] | None:
    """Return HTTP status and S3 error code behind an exception; None if no S3 store answered."""
    for cause in (error, error.__cause__):
        if isinstance(cause, RefusedError):
            return cause.status, cause.code
        if isinstance(cause, boto.ClientError):
            response = getattr(cause, "response", {})
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return status, response.get("Error", {}).get("Code", "")
    return None


@dataclass(frozen=True)
class Throttle:
    """A store asked for fewer requests, and perhaps for a pause of `wait_s` seconds."""

    wait_s: float | None = None


def throttle(error: BaseException) -> Throttle | None:
    """Return the throttling that an exception reports; None if it reports anything else."""
    status, code, after = _said(error)
    if status == _TOO_MANY or code in _SLOW_DOWN or (status == _UNAVAILABLE and after is not None):
        return Throttle(_seconds(after))
    return None


def _said(error: BaseException) -> tuple[int, str, str | None]:
    """Return HTTP status, error code and Retry-After behind an exception: 0, "" and None where absent."""
    found = answer(error)
    if found is not None:
        return *found, _retry_after(error)
    headers = getattr(error, "headers", None) or {}
    # aiohttp has `status`, azure-core `status_code`, gcsfs `code`.
    statuses = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    status = next((value for value in statuses if isinstance(value, int)), 0)
    code = getattr(error, "error_code", None) or getattr(error, "message", None)
    return status, str(code), headers.get("Retry-After") if hasattr(headers, "get") else None


def _retry_after(error: BaseException) -> str | None:
    """Return the Retry-After header of a botocore error."""
    for cause in (error, error.__cause__):
        if isinstance(cause, boto.ClientError):
            metadata = getattr(cause, "response", {}).get("ResponseMetadata", {})
            after: str | None = metadata.get("HTTPHeaders", {}).get("retry-after")
            return after
    return None


def _seconds(after: str | None) -> float | None:
    """Parse Retry-After: a number of seconds or a date (RFC 9110, section 10.2.3)."""
    if after is None:
        return None
    try:
        return max(0.0, float(after)) if after.strip().isdigit() else _until(after)
    except ValueError:
        return None


def _until(date: str) -> float:
    """Return the seconds until an HTTP date. Raises: ValueError."""
    then = parsedate_to_datetime(date)
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())


_TOO_MANY, _UNAVAILABLE = 429, 503
_SLOW_DOWN = frozenset(
    (
        # S3 and those that speak its language, AWS's other names for the same, and Azure's.
        *("SlowDown", "SlowDownRead", "SlowDownWrite", "RequestLimitExceeded", "BandwidthLimitExceeded"),
        *("Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "TooManyRequests"),
        *("RequestThrottledException", "TooManyRequestsException", "ServerBusy"),
    )
)


def _of_http(error: BaseException) -> ErrorCode | None:
    import aiohttp

    if isinstance(error, aiohttp.TooManyRedirects):
        return ErrorCode.BAD_URI
    if isinstance(error, aiohttp.ClientResponseError):
        made_up = isinstance(error.__cause__, aiohttp.http_exceptions.HttpProcessingError)  # it was no HTTP
        if made_up:
            return ErrorCode.UNAVAILABLE
        return _NAMES.get(getattr(error, "message", "")) or _of_status(getattr(error, "status", 0))
    if isinstance(error, aiohttp.ServerTimeoutError):
        return ErrorCode.TIMEOUT
    if isinstance(error, aiohttp.ClientSSLError):  # some are ValueErrors, too
        return ErrorCode.UNAVAILABLE
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.RedirectClientError, aiohttp.NonHttpUrlClientError)):
        return ErrorCode.BAD_URI
    return ErrorCode.UNAVAILABLE if isinstance(error, aiohttp.ClientError) else None


def _of_status(status: int) -> ErrorCode:
    """RFC 9110, section 15."""
    if status in _STATUSES:
        return _STATUSES[status]
    return ErrorCode.BAD_URI if 400 <= status < 500 else ErrorCode.UNAVAILABLE


_STATUSES = {
    **dict.fromkeys((404, 410), ErrorCode.NOT_FOUND),
    **dict.fromkeys((401, 402, 403, 407, 451), ErrorCode.ACCESS_DENIED),
    408: ErrorCode.TIMEOUT,
    416: ErrorCode.EMPTY,
    **dict.fromkeys((409, 421, 423, 425, 429), ErrorCode.UNAVAILABLE),
}
_NAMES = {
    # https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; what is left out goes by its status.
    **dict.fromkeys(("NoSuchKey", "NoSuchVersion"), ErrorCode.NOT_FOUND),
    "NoSuchBucket": ErrorCode.NO_SUCH_BUCKET,
    **dict.fromkeys(
        (
            *("AccessDenied", "AccountProblem", "AllAccessDisabled", "AuthorizationHeaderMalformed"),
            *(
                "ExpiredToken",
                "InvalidAccessKeyId",
                "InvalidObjectState",
                "InvalidPayer",
                "InvalidSecurity",
                "InvalidToken",
            ),
            *("NotSignedUp", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired"),
        ),
        ErrorCode.ACCESS_DENIED,
    ),
    "RequestTimeout": ErrorCode.TIMEOUT,
    "InvalidRange": ErrorCode.EMPTY,
    **dict.fromkeys((*_SLOW_DOWN, "InternalError"), ErrorCode.UNAVAILABLE),
}
_KINDS: tuple[tuple[tuple[type[BaseException], ...], ErrorCode], ...] = (
    ((MemoryError,), ErrorCode.OUT_OF_MEMORY),
    ((FileNotFoundError, NotADirectoryError), ErrorCode.NOT_FOUND),
    ((PermissionError,), ErrorCode.ACCESS_DENIED),
    ((IsADirectoryError,), ErrorCode.BAD_URI),
    (
        (
            *(boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError),
            *(boto.MetadataRetrievalError, boto.ProfileNotFound, boto.ConfigNotFound, boto.ConfigParseError),
            *(boto.InvalidConfigError, boto.InfiniteLoopConfigError, boto.RefreshWithMFAUnsupportedError),
            *(boto.UnauthorizedSSOTokenError, boto.SSOError, boto.UnsupportedSignatureVersionError),
            *(boto.NoAuthTokenError, boto.TokenRetrievalError, boto.UnknownCredentialError, boto.LoginError),
        ),
        ErrorCode.ACCESS_DENIED,
    ),
    ((TimeoutError, boto.ConnectTimeoutError, boto.ReadTimeoutError), ErrorCode.TIMEOUT),
    ((boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError), ErrorCode.UNAVAILABLE),
    ((boto.BotoCoreError,), ErrorCode.BAD_URI),
)
_ERRNOS = {
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO), ErrorCode.NOT_FOUND),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), ErrorCode.ACCESS_DENIED),
    **dict.fromkeys((errno.ETIMEDOUT,), ErrorCode.TIMEOUT),
    **dict.fromkeys((errno.EFBIG, errno.EOVERFLOW), ErrorCode.TOO_LARGE),
    **dict.fromkeys(
        (errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOSYS, errno.ENOTSUP, errno.ESPIPE),
        ErrorCode.BAD_URI,
    ),
}
_FSSPEC_ASTRAY = (
    # What fsspec's stores raise of a URI that they did not expect.
    *(ValueError, TypeError, AttributeError, NotImplementedError, LookupError, ImportError, RecursionError),
    *(ArithmeticError, AssertionError, zipfile.BadZipFile),
)
