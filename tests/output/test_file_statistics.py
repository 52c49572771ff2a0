"""The log's statistics of a file bound its rows, so that readers that skip files by them lose no row."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder
from hypothesis import given, settings, strategies as st

from pipeline import schema
from pipeline.output.file_statistics import COLUMNS, TEXT_LIMIT, FileStatistics
from pipeline.output.fragment_files import by_id, write_file
from pipeline.output.layout import PREDICTIONS, fragment_path
from pipeline.output.reader import PredictionsReader
from pipeline.output.table import Predictions
from pipeline.output.visible_files import FEW_IDS, VisibleFile, holding
from tests.support.making import STORAGE, prediction_rows

LONG = "s3://bucket/" + "folder/" * 60
EDGES = [
    "",
    "\x00",
    "a\x00",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "\U0010ffff",
    "\U0010ffff" * 300,
    LONG,
    LONG + "z",
    "Ä'\"",
]
TEXTS = st.one_of(st.text(), st.sampled_from(EDGES), st.text().map(LONG.__add__))
FLOATS = st.one_of(st.floats(width=32), st.sampled_from([0.0, -0.0, float("inf"), float("nan")]))
DECIMALS = st.integers(-(10**19), 10**19).map(lambda cents: Decimal(cents) / 100)
KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "text": (pa.string(), TEXTS),
    "float": (pa.float32(), FLOATS),
    "double": (pa.float64(), st.floats()),
    "long": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "byte": (pa.int8(), st.integers(-128, 127)),
    "flag": (pa.bool_(), st.booleans()),
    "day": (pa.date32(), st.dates()),
    "at": (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(UTC))),
    "local": (pa.timestamp("us"), st.datetimes()),
    "exact": (pa.decimal128(22, 2), DECIMALS),
    "raw": (pa.binary(), st.binary()),
}


def of_json(kind: pa.DataType, bound: Any) -> Any:
    """A bound as a reader understands it."""
    if pa.types.is_timestamp(kind):
        return datetime.fromisoformat(bound)
    if pa.types.is_date(kind):
        return date.fromisoformat(bound)
    return float(bound) if pa.types.is_floating(kind) else bound


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_value_lies_between_the_bounds_and_nulls_are_counted(name: str, data: st.DataObject) -> None:
    kind, one = KINDS[name]
    values = data.draw(st.lists(st.none() | one, max_size=5))
    found = FileStatistics.of(pa.table({name: pa.array(values, kind)})).delta(len(values))
    log = json.loads(json.dumps(found), parse_float=Decimal)
    assert (log["numRecords"], log["nullCount"][name]) == (len(values), values.count(None))
    there = [value for value in pa.array(values, kind).to_pylist() if value is not None]
    bounds = [log.get(of, {}).get(name) for of in ("minValues", "maxValues")]
    low, high = (None if bound is None else of_json(kind, bound) for bound in bounds)
    assert there or (low, high) == (None, None)
    assert all((low is None or low <= value) and (high is None or value <= high) for value in there)
    assert all(len(bound) <= TEXT_LIMIT for bound in bounds if isinstance(bound, str))


def stats_of(kind: pa.DataType, values: list[Any]) -> tuple[Any, Any]:
    found = FileStatistics.of(pa.table({"x": pa.array(values, kind)}))
    return found.low.get("x"), found.high.get("x")


def test_bounds_are_close_to_the_values_and_left_out_where_they_could_be_wrong() -> None:
    long = "common" * 20
    assert stats_of(pa.string(), [long + "b" * 99, long + "c" * 99]) == (
        long + "b" * 32,
        long + "c" * 31 + "d",
    )
    assert stats_of(pa.string(), ["\ud7ff" * 40, "a"]) == ("a", "\ud7ff" * 31 + "\ue000")
    assert stats_of(pa.string(), ["b" + "\U0010ffff" * 40, "a"]) == ("a", "c")
    assert stats_of(pa.string(), ["\U0010ffff" * 40, "a"]) == ("a", None)
    assert stats_of(pa.float64(), [1.0, float("nan")]) == (None, None)
    assert stats_of(pa.float64(), [1.0, float("inf")]) == (1.0, None)
    assert stats_of(pa.float64(), [0.0]) == (0.0, 0.0)
    assert str(stats_of(pa.float64(), [0.0])) == "(-0.0, 0.0)"
    assert stats_of(pa.decimal128(38, 2), [Decimal("-12.50"), Decimal("12345678901234567.89")]) == (-12.5, None)
    at = [datetime(2024, 1, 1, 0, 0, 0, 1500, UTC), datetime(2024, 1, 1, 0, 0, 0, 2001, UTC)]
    assert stats_of(pa.timestamp("us", "UTC"), at) == ("2024-01-01T00:00:00.001Z", "2024-01-01T00:00:00.003Z")
    assert stats_of(pa.timestamp("us"), [datetime(9999, 12, 31, 23, 59, 59, 999_999)])[1] is None
    assert stats_of(pa.date32(), [date(1, 1, 1)]) == ("0001-01-01", "0001-01-01")
    assert stats_of(pa.date32(), [10**7]) == (None, None)
    assert stats_of(pa.bool_(), [True, None]) == (True, True)
    assert stats_of(pa.binary(), [b"\xff"]) == (None, None)
    assert stats_of(pa.string(), [None]) == (None, None)


def test_a_file_has_statistics_of_its_first_columns_that_are_not_nested() -> None:
    wide = pa.table({"list": [[1]]} | {f"c{number}": [number] for number in range(2 * COLUMNS)})
    assert list(FileStatistics.of(wide).nulls) == [f"c{number}" for number in range(COLUMNS)]
    names = FileStatistics.of(prediction_rows(["a"])).nulls
    assert {"image_id", "uri", "label", "score", "width", "error_code", "run_id", "finished_at"} <= names.keys()
    assert not {"embedding", "labels", "content_sha256", "message"} & names.keys()


def sql(out: str, where: str) -> int:
    return pa.table(
        QueryBuilder().register("t", DeltaTable(out)).execute(f"SELECT image_id FROM t WHERE {where}").read_all()
    ).num_rows


CASES: dict[str, tuple[pa.DataType, list[Any], Callable[[Any], str]]] = {
    "text": (pa.string(), [*EDGES, None], lambda v: "'" + v.replace("'", "''") + "'"),
    "double": (pa.float64(), [1.5, -0.0, float("-inf"), float("inf"), None], lambda v: f"CAST('{v}' AS DOUBLE)"),
    "day": (pa.date32(), [date(1, 1, 1), date(9999, 12, 31)], lambda v: f"DATE '{v}'"),
    "at": (
        pa.timestamp("us", "UTC"),
        [datetime(2024, 1, 1, 0, 0, 0, micros, UTC) for micros in (1, 1500, 999_999)],
        lambda v: f"TIMESTAMP '{v:%Y-%m-%d %H:%M:%S.%f}+00:00'",
    ),
    "exact": (
        pa.decimal128(20, 2),
        [Decimal("0.01"), Decimal("-99999999999999999.99"), Decimal("100.00")],
        lambda v: f"CAST('{v}' AS DECIMAL(20,2))",
    ),
    "flag": (pa.bool_(), [True, False, None], str),
}


@pytest.mark.parametrize("name", CASES)
def test_delta_rs_and_polars_find_every_row_by_its_value(name: str, out: str) -> None:
    kind, values, literal = CASES[name]
    kept = [pa.field(name, kind)]
    table = Predictions.create(out, STORAGE, kept)
    epoch = table.claim("one", kept)
    assert epoch is not None
    fragments = []
    for number, pair in enumerate(zip(values, values[1:] + values[:1], strict=True)):
        rows = prediction_rows([f"{number}-0", f"{number}-1"]).append_column(name, pa.array(pair, kind))
        path = fragment_path("a", schema.FAILED, epoch)
        fragments.append(write_file(rows, by_id(rows), path, output=out, storage=STORAGE))
    table.commit(fragments, "one", epoch)
    delta = f"{out}/{PREDICTIONS}"
    for value in {repr(value): value for value in values if value is not None}.values():
        assert sql(delta, f"{name} = {literal(value)}") == 2, value
        polars = pl.scan_delta(delta).filter(pl.col(name) == pl.lit(value, pl.Series([value]).dtype))
        assert polars.select("image_id").collect().height == 2, value
    assert sql(delta, f"{name} IS NULL") == 2 * values.count(None)


def test_a_reader_opens_only_the_file_that_can_hold_an_id(out: str) -> None:
    table = Predictions.create(out, STORAGE, [])
    epoch = table.claim("one", [])
    assert epoch is not None
    fragments = []
    for letter in "abc":
        rows = prediction_rows([f"{letter}{number}" for number in (3, 1, 2)])
        path = fragment_path("d", schema.FAILED, epoch)
        fragments.append(write_file(rows, by_id(rows), path, output=out, storage=STORAGE))
    table.commit(fragments, "one", epoch)
    delta = f"{out}/{PREDICTIONS}"
    for fragment in fragments[::2]:
        Path(delta, fragment.path).unlink()
    assert sql(delta, "image_id = 'b2'") == 1
    assert pl.scan_delta(delta).filter(pl.col("image_id") == "b2").select("image_id").collect().height == 1
    dataset = DeltaTable(delta).to_pyarrow_dataset()
    assert dataset.to_table(["image_id"], pa.dataset.field("image_id") == "b2").num_rows == 1
    wanted = pa.chunked_array([["b3", "0", "b1", "b9", "z"]])
    batches = PredictionsReader.of(table).batches(["image_id"], image_ids=wanted)
    assert [id_ for batch in batches for id_ in batch["image_id"].to_pylist()] == ["b1", "b3"]


def test_files_without_bounds_can_hold_every_id() -> None:
    files = [VisibleFile("a", "d", "ok", 1, 1), VisibleFile("b", "d", "ok", 1, 1, "k", "m")]

    def found(*ids: str) -> str:
        return "".join(file.path for file in holding(files, pa.chunked_array([ids], pa.string())))

    assert [found("k"), found("m", "z"), found("l"), found("j", "n"), found("ka")] == ["ab", "ab", "ab", "a", "ab"]
    assert found(*map(str, range(FEW_IDS + 1))) == "ab"
    assert found() == ""


def test_readers_do_not_take_a_bound_for_a_value(out: str) -> None:
    table = Predictions.create(out, STORAGE, [])
    epoch = table.claim("one", [])
    assert epoch is not None
    ids = ["a" * 2 * TEXT_LIMIT, "z" * 2 * TEXT_LIMIT]
    rows = prediction_rows(ids)
    path = fragment_path("d", schema.FAILED, epoch)
    table.commit([write_file(rows, by_id(rows), path, output=out, storage=STORAGE)], "one", epoch)
    delta = DeltaTable(f"{out}/{PREDICTIONS}")
    query = QueryBuilder().register("t", delta).execute("SELECT min(image_id), max(image_id) FROM t")
    assert list(pa.table(query.read_all()).to_pylist()[0].values()) == ids
    extremes = pl.scan_delta(delta).select(low=pl.col("image_id").min(), high=pl.col("image_id").max())
    assert extremes.collect().rows() == [tuple(ids)]
