"""URIs: which kind of store one names, how to make it absolute, and how to show it without its secrets.

A URI without a scheme is a local path. This module opens no store and imports no client of one.
"""

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes, urlsplit

from pipeline.errors import StorageError
from pipeline.storage import data_uris

S3 = ("s3", "s3a")
HTTP = ("http", "https")

ROW_MARK = "#row="
"""Ends the URI of an image that only a manifest row holds: `<manifest>#row=<number from 0>`."""
BYTES_MARK = "#bytes="
"""Ends the default id of an image that is a byte range: `<uri>#bytes=<first>-<last>`."""

# Patterns as text, in the syntax that Python, DuckDB and Arrow share.
DATA_PATTERN = "^(?i:data:)"
HTTP_PATTERN = "^(?i:https?)://"
ABSOLUTE_PATTERN = "^([A-Za-z][A-Za-z0-9+.-]+://|/|(?i:file:/)|(?i:data:)[^,]*,)"
"""Matches a URI in a manifest that is not relative to its manifest file."""
QUERY_PATTERN = "[?#].*$"
"""The query and fragment of an HTTP URL. A query may be a signature, which is a secret."""

MAX_SHOWN_CHARS = 200
"""Messages show at most this much of a URI."""

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_FILE = re.compile(r"file:(?://(?:localhost)?)?(/.*)", re.IGNORECASE | re.DOTALL)
"""As written by Hadoop (`file:/a`), pathlib (`file:///a`) and RFC 8089 (`file://localhost/a`)."""
_QUERY_IN_TEXT = re.compile(r"(?<=://)([^\s'\"?]*)\?[^\s'\"]*")
_SECRET = re.compile(r"://[^/@\s]+@|[?&](sig|X-Amz-Signature|X-Goog-Signature)=", re.IGNORECASE)


def scheme(uri: str) -> str:
    """Return the scheme in lower case; "file" for a path, "data" for a `data:` URI."""
    if is_data(uri):
        return "data"
    return uri.split("://", 1)[0].lower() if _SCHEME.match(uri) else "file"


def is_local(uri: str) -> bool:
    """Whether a URI names a file on this machine."""
    return scheme(uri) == "file"


def is_s3(uri: str) -> bool:
    """Whether a URI names an S3 object or prefix."""
    return scheme(uri) in S3


def is_http(uri: str) -> bool:
    """Whether a URI is an HTTP or HTTPS URL."""
    return scheme(uri) in HTTP


def is_data(uri: str) -> bool:
    """Whether a URI is a `data:` URI, or the hash that stands for one (`data_uris.hashed`)."""
    return uri[:5].lower() == "data:"


def is_relative(uri: str) -> bool:
    """Whether a URI means another file in another working or home folder."""
    return is_local(uri) and not uri.startswith("/") and not _FILE.fullmatch(uri)


def absolute(uri: str) -> str:
    """Return a URI that means the same in every process: paths and `file:` URIs become absolute paths.

    Raises: StorageError if a path begins with `~` and there is no such home folder.
    """
    local = _FILE.fullmatch(uri)
    if local:
        return _existing(local[1])
    return uri if not is_local(uri) else str(expanded(uri).absolute())


def expanded(path: str) -> Path:
    """Replace a leading `~` of a local path with the home folder. Raises: StorageError if there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise StorageError(
            f"Cannot open {path}: the home folder that ~ stands for does not exist; write the whole path."
        ) from error


def join(base: str, *parts: str) -> str:
    """Return a URI below another one."""
    return "/".join([base.rstrip("/"), *parts])


def split(uri: str) -> tuple[str, str]:
    """Return the bucket or host of a URI that has a scheme, and the rest behind the first slash."""
    place, _, rest = uri.partition("://")[2].partition("/")
    return place, rest


def store_of(uri: str) -> str:
    """Return the host or bucket that serves a URI, with its scheme; of `zip://a::s3://lake/b.zip`, `s3://lake`."""
    served = uri if is_s3(uri) or is_http(uri) else uri.rpartition("::")[2]
    return "/".join(served.split("/", 3)[:3])


def row_uri(manifest: str, row: int) -> str:
    """Return the URI of an image that only its manifest holds, in row `row` (from 0)."""
    return f"{without_query(manifest)}{ROW_MARK}{row}"


def delta_uri(uri: str) -> str:
    """Return a URI as delta-rs takes it: delta-rs cuts at # and ?, where fsspec takes them literally.

    Raises: StorageError for a percent sign in an object store's key: delta-rs decodes it in some places only.
    """
    if is_local(uri):
        return uri
    if "%" in uri:
        raise StorageError(f"Cannot keep a table at {uri}: use an output.path without a percent sign.")
    bucket, key = split(uri)
    return f"{uri.partition('://')[0]}://{bucket}{'/' if key else ''}{quote(key)}"


def without_query(uri: str) -> str:
    """Return an HTTP URL without its query, which may be a signature, and its fragment; others as they are."""
    return re.sub(QUERY_PATTERN, "", uri, flags=re.DOTALL) if is_http(uri) else uri


def without_queries(text: str) -> str:
    """Return a text, such as a client's error message, with the queries of all URLs in it removed."""
    return _QUERY_IN_TEXT.sub(r"\1", text)


def has_secret(text: str) -> bool:
    """Whether a text holds a URL with a password, a token or a signature in it."""
    return _SECRET.search(text) is not None


def redacted(uri: str) -> str:
    """Return a URI for messages and tables: without signature and password, on one line, at most 200 characters.

    A hash stands for the image in a `data:` URI.
    """
    if is_data(uri):
        uri = data_uris.hashed(uri)
    if is_http(uri):
        try:
            parts = urlsplit(uri)
            uri = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        except ValueError:
            uri = without_query(uri)
    text = printable(uri[:MAX_SHOWN_CHARS])
    return text if len(uri) <= MAX_SHOWN_CHARS else f"{text}…"


def printable(text: str) -> str:
    """Return a text on one line, with characters that would steer a terminal escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _existing(path: str) -> str:
    """Return the path as it stands, or percent-decoded if only that file exists: not all programs encode."""
    if "%" not in path or os.path.lexists(path):
        return path
    decoded = os.fsdecode(unquote_to_bytes(path))
    return decoded if os.path.lexists(decoded) else path
