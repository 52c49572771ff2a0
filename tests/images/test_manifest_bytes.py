"""Image bytes that a Parquet manifest carries are read where they are, row by row."""

import base64
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ErrorCode, RowError
from pipeline.images.fetch import Fetcher, Request
from pipeline.images.manifest_bytes import BATCH_ROWS, CarriedBytes
from tests.support import seaweed
from tests.support.making import STORAGE

ROWS = 200
VALUES = [None if i % 17 == 3 else b"image %d" % i for i in range(ROWS)]


@pytest.fixture
def file(tmp_path: Path) -> str:
    structs = [{"bytes": value, "path": str(i)} for i, value in enumerate(VALUES)]
    table = pa.table({"n": range(ROWS), "data": pa.array(VALUES, pa.binary()), "image": structs})
    pq.write_table(table, tmp_path / "a b.parquet", row_group_size=70)
    return str(tmp_path / "a b.parquet")


ORDERS = {
    "rising": range(ROWS),
    "with gaps": range(5, ROWS, 13),
    "falling": range(ROWS - 1, -1, -7),
    "back and forth": [0, 199, 69, 70, 71, 139, 140, 3, 3, 3, 15, 16, 17, 0],
}


@pytest.mark.parametrize("column", ["data", "image.bytes"])
@pytest.mark.parametrize("order", ORDERS)
def test_every_row_has_its_own_bytes_in_any_order_of_requests(file: str, order: str, column: str) -> None:
    carried = CarriedBytes(STORAGE)
    for row in ORDERS[order]:
        assert carried.read(file, column, row) == VALUES[row]


def test_rows_in_rising_order_are_read_once(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    whole = pq.ParquetFile.iter_batches

    def counted(self: pq.ParquetFile, *args: Any, **options: Any) -> Any:
        for batch in whole(self, *args, **options):
            read.append(batch.num_rows)
            assert batch.num_rows <= BATCH_ROWS
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    carried = CarriedBytes(STORAGE)
    assert [carried.read(file, "data", row) for row in range(ROWS)] == VALUES
    assert sum(read) == ROWS


def test_two_files_are_not_mixed_up_and_a_missing_row_is_an_error(file: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other.parquet")
    pq.write_table(pa.table({"data": [b"other"]}), other)
    carried = CarriedBytes(STORAGE)
    for _ in range(2):
        assert carried.read(file, "data", 0) == b"image 0"
        assert carried.read(other, "data", 0) == b"other"
    with pytest.raises(IndexError, match="no row 1"):
        carried.read(other, "data", 1)
    assert carried.read(other, "data", 0) == b"other"


def codes(found: list[bytes | RowError]) -> list[object]:
    return [one.code if isinstance(one, RowError) else one for one in found]


def test_a_fetch_takes_the_carried_bytes_and_the_uri_where_there_are_none(file: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"by uri")
    requests = [Request(f"{file}#row={row}", carried_in=file, row=row, column="data") for row in (0, 1, 3, 4)]
    requests += [Request(str(tmp_path / "elsewhere"), carried_in=file, row=3, column="data")]
    requests += [Request("nowhere", carried_in=str(tmp_path / "gone.parquet"), row=0, column="data")]
    found = [one.data for one in Fetcher(STORAGE, 1000)(requests)]
    expected = [b"image 0", b"image 1", ErrorCode.EMPTY, b"image 4", b"by uri", ErrorCode.NOT_FOUND]
    assert codes(found) == expected
    assert codes([one.data for one in Fetcher(STORAGE, 6)(requests[:1])]) == [ErrorCode.TOO_LARGE]


def test_the_data_uris_of_rows_without_bytes_are_not_kept(file: str) -> None:
    def fetched(fetcher: Fetcher, number: int) -> bytes | RowError:
        text = base64.b64encode(bytes([number]) * (1 << 20)).decode()
        request = Request(f"data:image/png;base64,{text}", carried_in=file, row=3, column="data")
        (found,) = fetcher([request])
        return found.data

    fetcher = Fetcher(STORAGE, 2 << 20)
    fetched(fetcher, 0)
    tracemalloc.start()
    try:
        assert all(fetched(fetcher, number) == bytes([number]) * (1 << 20) for number in range(20))
        assert tracemalloc.get_traced_memory()[0] < 4 << 20
    finally:
        tracemalloc.stop()


def test_carried_bytes_are_read_from_an_object_store(file: str, s3: seaweed.S3Server) -> None:
    STORAGE.upload(Path(file), "s3://lake/carried/m.parquet")
    carried = CarriedBytes(STORAGE)
    assert [carried.read("s3://lake/carried/m.parquet", "data", row) for row in (0, 75, 199)] == [
        b"image 0",
        b"image 75",
        b"image 199",
    ]
