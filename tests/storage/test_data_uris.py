"""Images that are written out in their uri: their bytes, and the hash that stands for them everywhere else."""

import base64
import hashlib
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.cluster.workers import Decoder
from pipeline.config import parse
from pipeline.errors import ErrorCode, RowError
from pipeline.images.fetch import Fetcher, Request
from pipeline.models.processor import read_preprocessing
from pipeline.storage import data_uris
from pipeline.storage.filesystems import failure
from pipeline.storage.uris import absolute, redacted, scheme
from tests.support.making import STORAGE, encoded, photo

PNG = encoded(photo(40, 30))
TEXT = base64.b64encode(PNG).decode()
PERCENT = "".join(f"%{byte:02x}" for byte in PNG)
WELL_FORMED = {
    "base64": f"data:image/png;base64,{TEXT}",
    "upper case": f"DATA:IMAGE/PNG;BASE64,{TEXT}",
    "without a media type": f"data:;base64,{TEXT}",
    "with parameters": f"data:image/png;name=a.png;charset=utf-8;base64,{TEXT}",
    "percent-encoded": f"data:image/png,{PERCENT}",
    "percent-encoded base64": f"data:image/png;base64,{quote(TEXT, safe='')}",
    "with line ends": "data:image/png;base64,"
    + "\r\n ".join(TEXT[at : at + 60] for at in range(0, len(TEXT), 60)),
    "with encoded line ends": f"data:image/png;base64,{TEXT[:40]}%0A{TEXT[40:]}",
    "without padding": f"data:image/png;base64,{TEXT.rstrip('=')}",
    "with a blank": f"data:image/png; base64,{TEXT}",
}
MALFORMED = [
    "data:",
    "data:image/png;base64",
    f"data:image/png;base64,{TEXT[:-5]}*",
    "data:image/png;base64,A",
    "data:image/png;base64,_-_-",
    f"data:{TEXT}",
]


def fetched(uri: str, offset: int | None = None, length: int | None = None, max_bytes: int = 1 << 20) -> object:
    (found,) = Fetcher(STORAGE, max_bytes)([Request(uri, offset, length)])
    assert found.attempts == 1
    return found.data.code if isinstance(found.data, RowError) else found.data


@pytest.mark.parametrize("name", WELL_FORMED)
def test_the_bytes_of_a_data_uri_are_the_image(name: str) -> None:
    assert fetched(WELL_FORMED[name]) == PNG


@pytest.mark.parametrize("uri", MALFORMED)
def test_a_malformed_data_uri_is_a_bad_uri(uri: str) -> None:
    assert fetched(uri) is ErrorCode.BAD_URI


def test_ranges_and_limits_hold_for_data_uris_as_for_others() -> None:
    uri = WELL_FORMED["base64"]
    assert fetched(uri, 3, 7) == PNG[3:10]
    assert fetched(uri, len(PNG) - 2, 7) is ErrorCode.TRUNCATED
    assert fetched(uri, max_bytes=len(PNG) - 1) is ErrorCode.TOO_LARGE
    assert fetched("data:,") is ErrorCode.EMPTY


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        (WELL_FORMED["base64"], "image/png"),
        (WELL_FORMED["with parameters"], "image/png"),
        ("data:,x", "text/plain"),
        ("data:;charset=utf-8,x", "text/plain"),
        ("data:" + "a" * 40_000, "text/plain"),
        ("data:image/" + "a" * 40_000 + ",x", "text/plain"),
    ],
)
def test_a_hash_of_the_whole_text_stands_for_a_data_uri(uri: str, kind: str) -> None:
    expected = f"data:{kind};sha256={hashlib.sha256(uri.encode()).hexdigest()}"
    assert data_uris.hashed(uri) == expected
    assert data_uris.hashed(expected) == redacted(uri) == redacted(expected) == expected


def test_no_message_shows_a_whole_image() -> None:
    uri = WELL_FORMED["base64"]
    assert (scheme(uri), absolute(uri)) == ("data", uri)
    assert len(str(failure(ValueError("x"), uri))) < 200


def test_the_output_has_the_hash_for_good_and_for_malformed_ones_and_other_uris_as_they_are(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    uris = [WELL_FORMED["base64"], str(tmp_path / "a.png"), MALFORMED[2]]
    rows = pa.Table.from_pylist(
        [{"image_id": f"{n}", "uri": uri, "dataset": "d"} for n, uri in enumerate(uris)], schema=schema.PENDING
    )
    settings = parse({"manifest": {"path": "m"}, "output": {"path": "o"}})
    steps = read_preprocessing({"image_processor_type": "ViTImageProcessor", "size": 32}, "m")
    found = Decoder(settings, steps, "run")(rows)
    assert found["uri"].to_pylist() == [data_uris.hashed(uris[0]), uris[1], data_uris.hashed(uris[2])]
    assert found["error_code"].to_pylist() == [None, None, "bad_uri"]
    assert found["content_sha256"].to_pylist()[:2] == [hashlib.sha256(PNG).hexdigest()] * 2
    assert found.schema.field("uri") == schema.PENDING.field("uri")
