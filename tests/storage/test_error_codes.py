"""No exception of a store is without a code."""

import builtins
import errno
import inspect
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import NoReturn

import aiohttp
import botocore.exceptions as boto
import pytest
from aiohttp import client_exceptions
from multidict import CIMultiDict

from pipeline.errors import ErrorCode, RowError, Stage
from pipeline.images import fetch
from pipeline.storage.error_codes import RETRYABLE, RefusedError, classify, known, throttle
from pipeline.storage.filesystems import Storage

DENIED = [
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "MetadataRetrievalError",
    "ProfileNotFound",
    "ConfigNotFound",
    "ConfigParseError",
    "InvalidConfigError",
    "InfiniteLoopConfigError",
    "RefreshWithMFAUnsupportedError",
    "UnauthorizedSSOTokenError",
    "SSOError",
    "SSOTokenLoadError",
    "UnsupportedSignatureVersionError",
    "NoAuthTokenError",
    "TokenRetrievalError",
    "UnknownCredentialError",
    "PendingAuthorizationExpiredError",
    "LoginError",
    "LoginInsufficientPermissions",
    "LoginAuthorizationCodeError",
    "LoginRefreshRequired",
    "LoginRefreshTokenExpired",
    "LoginTokenLoadError",
]
SLOW = [
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ServerTimeoutError",
    "ConnectionTimeoutError",
    "SocketTimeoutError",
    "TimeoutError",
]
FAILING = [
    "HTTPClientError",
    "EndpointConnectionError",
    "ConnectionError",
    "ConnectionClosedError",
    "SSLError",
    "ProxyConnectionError",
    "ResponseStreamingError",
    "IncompleteReadError",
    "ClientError",
    "ClientConnectionError",
    "ClientConnectionResetError",
    "ClientOSError",
    "ClientConnectorError",
    "ClientConnectorDNSError",
    "ClientConnectorSSLError",
    "ClientConnectorCertificateError",
    "ClientSSLError",
    "ClientProxyConnectionError",
    "ClientHttpProxyError",
    "ClientPayloadError",
    "ClientResponseError",
    "ContentTypeError",
    "ServerConnectionError",
    "ServerDisconnectedError",
    "ServerFingerprintMismatch",
    "UnixClientConnectorError",
    "EventStreamError",
    "UploadAbortedError",
    "WSServerHandshakeError",
]


# These belong to botocore's own service descriptions, not to a request.
NEVER_RAISED = ("MissingServiceIdError", "UndefinedModelAttributeError")


def classes() -> list[type[BaseException]]:
    """Every exception class of the libraries that stores are reached with."""
    members = [found for module in (boto, client_exceptions) for _, found in inspect.getmembers(module)]
    found = [one for one in members if inspect.isclass(one) and issubclass(one, Exception)]
    found = [one for one in found if not issubclass(one, Warning) and one.__name__ not in NEVER_RAISED]
    return [one for one in found if one.__module__.startswith(("botocore", "aiohttp"))]


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_exception_of_the_libraries_has_a_code_of_its_own(kind: type[BaseException]) -> None:
    error = kind.__new__(kind)
    name = kind.__name__
    if name in DENIED:
        expected = ErrorCode.ACCESS_DENIED
    elif name in SLOW:
        expected = ErrorCode.TIMEOUT
    else:
        expected = ErrorCode.UNAVAILABLE if name in FAILING else ErrorCode.BAD_URI
    assert known(error) is expected, name
    assert (classify(error) in RETRYABLE) is (expected in (ErrorCode.TIMEOUT, ErrorCode.UNAVAILABLE))


@pytest.mark.parametrize(
    "kind",
    [
        one
        for one in vars(builtins).values()
        if isinstance(one, type) and issubclass(one, Exception) and not issubclass(one, BaseExceptionGroup)
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_builtin_exception_can_be_classified(kind: type[Exception]) -> None:
    error = kind.__new__(kind)
    known_ones = (OSError, ValueError, TypeError, AttributeError, LookupError, ImportError, MemoryError)
    assert isinstance(classify(error), ErrorCode)
    assert known(error) is not None or not issubclass(kind, known_ones)


NOT_FOUND = ("ENOENT", "ENOTDIR", "ENODEV", "ENXIO")
REFUSED = ("EACCES", "EPERM", "EROFS")
ASTRAY = ("EINVAL", "EISDIR", "ELOOP", "ENAMETOOLONG", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "ESPIPE")


@pytest.mark.parametrize(("number", "name"), errno.errorcode.items())
def test_every_errno_has_a_code(number: int, name: str) -> None:
    expected = ErrorCode.UNAVAILABLE
    for names, code in ((NOT_FOUND, ErrorCode.NOT_FOUND), (REFUSED, ErrorCode.ACCESS_DENIED)):
        expected = code if name in names else expected
    if name in ASTRAY:
        expected = ErrorCode.BAD_URI
    elif name in ("EFBIG", "EOVERFLOW"):
        expected = ErrorCode.TOO_LARGE
    elif name == "ETIMEDOUT":
        expected = ErrorCode.TIMEOUT
    assert classify(OSError(number, "said")) is expected


S3 = {
    **dict.fromkeys(("NoSuchKey", "NoSuchVersion"), ErrorCode.NOT_FOUND),
    "NoSuchBucket": ErrorCode.NO_SUCH_BUCKET,
    **dict.fromkeys(
        ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidObjectState"),
        ErrorCode.ACCESS_DENIED,
    ),
    **dict.fromkeys(("SlowDown", "InternalError", "RequestLimitExceeded"), ErrorCode.UNAVAILABLE),
    **{"RequestTimeout": ErrorCode.TIMEOUT, "InvalidRange": ErrorCode.EMPTY, "KeyTooLongError": ErrorCode.BAD_URI},
}


@pytest.mark.parametrize("name", S3)
def test_every_answer_of_s3_has_its_code_by_its_name(name: str) -> None:
    said = {"Error": {"Code": name}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    error = boto.ClientError(said, "GetObject")  # type: ignore[arg-type]
    assert classify(error) is S3[name]
    wrapped = OSError(22, "s3fs says so")
    wrapped.__cause__ = error
    assert classify(wrapped) is S3[name]


@pytest.mark.parametrize("code", sorted({classify(OSError(number, "said")) for number in errno.errorcode}))
def test_every_code_of_a_failed_read_becomes_a_row_error(
    code: ErrorCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = next(number for number in errno.errorcode if classify(OSError(number, "said")) is code)
    (tmp_path / "a.jpg").write_bytes(b"x")

    def failing(path: str, *mode: object) -> NoReturn:
        raise OSError(number, "said")

    monkeypatch.setattr(fetch, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr("builtins.open", failing)
    (found,) = fetch.Fetcher(Storage(), 1000)([fetch.Request(str(tmp_path / "a.jpg"))])
    assert isinstance(found.data, RowError)
    assert (found.data.code, bool(found.data.message)) == (code, True)


def test_the_code_of_an_s3_store_counts_over_http_too() -> None:
    assert classify(http_error(400, "ExpiredToken")) is ErrorCode.ACCESS_DENIED
    assert classify(http_error(400, "Bad Request")) is ErrorCode.BAD_URI


def test_what_is_no_http_at_all_is_unavailable() -> None:
    error = aiohttp.ClientResponseError(None, (), status=400)  # type: ignore[arg-type]
    assert classify(error) is ErrorCode.BAD_URI
    error.__cause__ = aiohttp.http_exceptions.BadStatusLine("garbage")
    assert classify(error) is ErrorCode.UNAVAILABLE


def http_error(status: int, message: str = "", **headers: str) -> aiohttp.ClientResponseError:
    given = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return aiohttp.ClientResponseError(None, (), status=status, message=message, headers=given)  # type: ignore[arg-type]


def s3_error(status: int, name: str, **headers: str) -> boto.ClientError:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return boto.ClientError({"Error": {"Code": name}, "ResponseMetadata": metadata}, "GetObject")  # type: ignore[arg-type]


class StatusError(Exception):
    """As gcsfs (`code`) and azure-core (`status_code`) have it."""

    def __init__(self, **facts: object) -> None:
        super().__init__("no")
        vars(self).update(facts)


def behind(error: Exception, **facts: object) -> OSError:
    wrapped = OSError(5, "s3fs says so")
    vars(wrapped).update(facts)
    wrapped.__cause__ = error
    return wrapped


THROTTLES = [
    (http_error(429), None),
    (http_error(429, Retry_After="7"), 7),
    (http_error(503, Retry_After="0"), 0),
    (http_error(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), 0),
    (http_error(429, Retry_After="soon"), None),
    (http_error(429, Retry_After="-5"), None),
    (http_error(503, "SlowDown"), None),
    (http_error(400, "Throttling"), None),
    (RefusedError(503, "SlowDown"), None),
    (RefusedError(429, ""), None),
    (RefusedError(503, "RequestLimitExceeded"), None),
    (s3_error(503, "SlowDown"), None),
    (s3_error(503, "", **{"retry-after": "3"}), 3),
    (behind(s3_error(503, "SlowDown", **{"retry-after": "4"})), 4),
    (behind(s3_error(503, "SlowDown", **{"retry-after": "4"}), response=object()), 4),
    (StatusError(code=429), None),
    (StatusError(status_code=503, error_code="ServerBusy"), None),
]


@pytest.mark.parametrize(("error", "wait_s"), THROTTLES, ids=lambda value: repr(value)[:60])
def test_a_store_that_says_slow_down_is_understood_and_for_how_long(
    error: Exception, wait_s: float | None
) -> None:
    found = throttle(error)
    assert found is not None
    assert found.wait_s is None if wait_s is None else found.wait_s == pytest.approx(wait_s, abs=30)
    assert classify(error) is ErrorCode.UNAVAILABLE


def test_a_store_may_say_until_when_to_slow_down() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    found = throttle(http_error(503, retry_after=later))
    assert found is not None
    assert found.wait_s == pytest.approx(300, abs=30)


@pytest.mark.parametrize(
    "error",
    [
        *(http_error(503), http_error(500, Retry_After="7"), http_error(404, "NoSuchKey"), s3_error(503, "")),
        *(RefusedError(500, "InternalError"), RefusedError(503, ""), TimeoutError(), FileNotFoundError()),
        *(OSError(5, "no"), StatusError(code="x"), RowError(Stage.FETCH, ErrorCode.EMPTY, "x")),
    ],
    ids=repr,
)
def test_other_failures_are_no_throttling(error: Exception) -> None:
    assert throttle(error) is None
