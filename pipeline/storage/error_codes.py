"""Map the exceptions of stores to the codes of row errors. It opens no store.

Local disks, S3 (botocore, s3fs), HTTP (aiohttp) and the other stores of fsspec raise different exceptions. Each
exception gets a code from the closed list.
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
        return _S3_CODES.get(found[1]) or _of_status(found[0])
    # Importing aiohttp would delay every worker. A process that has not imported it cannot raise its exceptions.
    if "aiohttp" in sys.modules and (code := _of_http(error)):
        return code
    for exceptions, code in _EXCEPTIONS:
        if isinstance(error, exceptions):
            return code
    if isinstance(error, OSError):
        return _ERRNOS.get(error.errno or 0, ErrorCode.UNAVAILABLE)
    return ErrorCode.BAD_URI if isinstance(error, _BAD_URI_ERRORS) else None


class RefusedError(Exception):
    """An S3 store refused a request with this HTTP status and this error code, "" if it gave none."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}".strip())
        self.status, self.code = status, code


def answer(error: BaseException) -> tuple[int, str] | None:
    """Return the HTTP status and the S3 error code of an exception; None if no S3 store answered."""
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
    status, code, after = _refusal(error)
    if status == _TOO_MANY or code in _SLOW_DOWN or (status == _UNAVAILABLE and after is not None):
        return Throttle(_seconds(after))
    return None


def _refusal(error: BaseException) -> tuple[int, str, str | None]:
    """Return the HTTP status, the error code and Retry-After of an exception; 0, "" and None if it lacks them."""
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
    """Return the Retry-After header of a botocore error; None if there is none."""
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
    {
        "BandwidthLimitExceeded",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "ServerBusy",
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
    }
)
"""Error codes of throttling stores: S3 and compatible stores, other services of AWS, and Azure."""


def _of_http(error: BaseException) -> ErrorCode | None:
    """Return the code of an exception of aiohttp; None for any other."""
    import aiohttp

    if isinstance(error, aiohttp.TooManyRedirects):
        return ErrorCode.BAD_URI
    if isinstance(error, aiohttp.ClientResponseError):
        # The server did not answer in HTTP: the status comes from aiohttp.
        if isinstance(error.__cause__, aiohttp.http_exceptions.HttpProcessingError):
            return ErrorCode.UNAVAILABLE
        return _S3_CODES.get(getattr(error, "message", "")) or _of_status(getattr(error, "status", 0))
    if isinstance(error, aiohttp.ServerTimeoutError):
        return ErrorCode.TIMEOUT
    if isinstance(error, aiohttp.ClientSSLError):  # some are ValueErrors, too
        return ErrorCode.UNAVAILABLE
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.RedirectClientError, aiohttp.NonHttpUrlClientError)):
        return ErrorCode.BAD_URI
    return ErrorCode.UNAVAILABLE if isinstance(error, aiohttp.ClientError) else None


def _of_status(status: int) -> ErrorCode:
    """Return the code for an HTTP status (RFC 9110, section 15)."""
    if status in _STATUSES:
        return _STATUSES[status]
    return ErrorCode.BAD_URI if 400 <= status < 500 else ErrorCode.UNAVAILABLE


_STATUSES = {
    401: ErrorCode.ACCESS_DENIED,
    402: ErrorCode.ACCESS_DENIED,
    403: ErrorCode.ACCESS_DENIED,
    404: ErrorCode.NOT_FOUND,
    407: ErrorCode.ACCESS_DENIED,
    408: ErrorCode.TIMEOUT,
    409: ErrorCode.UNAVAILABLE,
    410: ErrorCode.NOT_FOUND,
    416: ErrorCode.EMPTY,
    421: ErrorCode.UNAVAILABLE,
    423: ErrorCode.UNAVAILABLE,
    425: ErrorCode.UNAVAILABLE,
    429: ErrorCode.UNAVAILABLE,
    451: ErrorCode.ACCESS_DENIED,
}
_S3_CODES = {
    "AccessDenied": ErrorCode.ACCESS_DENIED,
    "AccountProblem": ErrorCode.ACCESS_DENIED,
    "AllAccessDisabled": ErrorCode.ACCESS_DENIED,
    "AuthorizationHeaderMalformed": ErrorCode.ACCESS_DENIED,
    "ExpiredToken": ErrorCode.ACCESS_DENIED,
    "InternalError": ErrorCode.UNAVAILABLE,
    "InvalidAccessKeyId": ErrorCode.ACCESS_DENIED,
    "InvalidObjectState": ErrorCode.ACCESS_DENIED,
    "InvalidPayer": ErrorCode.ACCESS_DENIED,
    "InvalidRange": ErrorCode.EMPTY,
    "InvalidSecurity": ErrorCode.ACCESS_DENIED,
    "InvalidToken": ErrorCode.ACCESS_DENIED,
    "NoSuchBucket": ErrorCode.NO_SUCH_BUCKET,
    "NoSuchKey": ErrorCode.NOT_FOUND,
    "NoSuchVersion": ErrorCode.NOT_FOUND,
    "NotSignedUp": ErrorCode.ACCESS_DENIED,
    "RequestTimeTooSkewed": ErrorCode.ACCESS_DENIED,
    "RequestTimeout": ErrorCode.TIMEOUT,
    "SignatureDoesNotMatch": ErrorCode.ACCESS_DENIED,
    "TokenRefreshRequired": ErrorCode.ACCESS_DENIED,
} | dict.fromkeys(_SLOW_DOWN, ErrorCode.UNAVAILABLE)
"""Error codes of S3. The HTTP status decides for all others.

https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""
_BOTO_CREDENTIALS = (
    boto.ConfigNotFound,
    boto.ConfigParseError,
    boto.CredentialRetrievalError,
    boto.InfiniteLoopConfigError,
    boto.InvalidConfigError,
    boto.LoginError,
    boto.MetadataRetrievalError,
    boto.NoAuthTokenError,
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.ProfileNotFound,
    boto.RefreshWithMFAUnsupportedError,
    boto.SSOError,
    boto.TokenRetrievalError,
    boto.UnauthorizedSSOTokenError,
    boto.UnknownCredentialError,
    boto.UnsupportedSignatureVersionError,
)
_EXCEPTIONS: tuple[tuple[tuple[type[BaseException], ...], ErrorCode], ...] = (
    ((MemoryError,), ErrorCode.OUT_OF_MEMORY),
    ((FileNotFoundError, NotADirectoryError), ErrorCode.NOT_FOUND),
    ((PermissionError,), ErrorCode.ACCESS_DENIED),
    ((IsADirectoryError,), ErrorCode.BAD_URI),
    (_BOTO_CREDENTIALS, ErrorCode.ACCESS_DENIED),
    ((TimeoutError, boto.ConnectTimeoutError, boto.ReadTimeoutError), ErrorCode.TIMEOUT),
    ((boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError), ErrorCode.UNAVAILABLE),
    ((boto.BotoCoreError,), ErrorCode.BAD_URI),
)
"""Exception types and their codes. The first match counts."""
_ERRNOS = {
    errno.EACCES: ErrorCode.ACCESS_DENIED,
    errno.EFBIG: ErrorCode.TOO_LARGE,
    errno.EINVAL: ErrorCode.BAD_URI,
    errno.EISDIR: ErrorCode.BAD_URI,
    errno.ELOOP: ErrorCode.BAD_URI,
    errno.ENAMETOOLONG: ErrorCode.BAD_URI,
    errno.ENODEV: ErrorCode.NOT_FOUND,
    errno.ENOENT: ErrorCode.NOT_FOUND,
    errno.ENOSYS: ErrorCode.BAD_URI,
    errno.ENOTDIR: ErrorCode.NOT_FOUND,
    errno.ENOTSUP: ErrorCode.BAD_URI,
    errno.ENXIO: ErrorCode.NOT_FOUND,
    errno.EOVERFLOW: ErrorCode.TOO_LARGE,
    errno.EPERM: ErrorCode.ACCESS_DENIED,
    errno.EROFS: ErrorCode.ACCESS_DENIED,
    errno.ESPIPE: ErrorCode.BAD_URI,
    errno.ETIMEDOUT: ErrorCode.TIMEOUT,
}
_BAD_URI_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)
"""Exceptions that fsspec's stores raise for a URI that they did not expect."""
