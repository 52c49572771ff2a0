"""Kept columns whose type changes from one manifest to the next."""

import shlex
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.config import ManifestConfig
from pipeline.errors import ManifestError
from pipeline.output import column_types
from pipeline.output.table import Predictions
from pipeline.planning.plan import open_plan
from tests.support.making import STORAGE, write_fragment

DECIMAL = pa.decimal128(10, 2)
NOON = datetime(2024, 1, 1, 12)


def held(folder: Path, type_: pa.DataType, ids: Sequence[str] = ()) -> Predictions:
    """A table with a kept column of a type, and failed rows of these ids."""
    table = Predictions.create(str(folder / "out"), STORAGE, [pa.field("rating", type_)])
    epoch = table.claim("run", [])
    assert epoch is not None
    table.commit([write_fragment(str(folder / "out"), "images", [id_], epoch) for id_ in ids], "run", epoch)
    return table


def manifest(folder: Path, values: pa.Array, name: str = "rating") -> ManifestConfig:
    path = folder / "manifest.parquet"
    pq.write_table(pa.table({"uri": [f"/{i}.jpg" for i in range(len(values))], name: values}), path)
    return ManifestConfig(path=(str(path),), keep=(name,))


def planned(folder: Path, config: ManifestConfig, table: Predictions | None) -> pa.ChunkedArray:
    """The kept column as a plan writes it."""
    with open_plan(config, STORAGE, table) as found:
        (file,) = found.write_pending(str(folder / "pending"), STORAGE)
    return pq.read_table(file).sort_by("uri")["rating"]


FITTING = {
    "int8 in int64": (pa.int64(), pa.array([3], pa.int8()), [3]),
    "int64 in int8": (pa.int8(), pa.array([-128, 127], pa.int64()), [-128, 127]),
    "whole doubles in int64": (pa.int64(), pa.array([3.0, None, -4.0]), [3, None, -4]),
    "int64 in double": (pa.float64(), pa.array([2**53, -(2**53)], pa.int64()), [2.0**53, -(2.0**53)]),
    "double in float": (pa.float32(), pa.array([0.5, float("inf")]), [0.5, float("inf")]),
    "float in double": (pa.float64(), pa.array([0.1], pa.float32()), [pa.scalar(0.1, pa.float32()).as_py()]),
    "nulls of another type": (pa.int64(), pa.array([None, None], pa.timestamp("us")), [None, None]),
    "a null-typed column": (pa.int64(), pa.nulls(2), [None, None]),
    "a null-typed column in dates": (pa.date32(), pa.nulls(1), [None]),
    "true and false in int64": (pa.int64(), pa.array([True, False]), [1, 0]),
    "0 and 1 in bool": (pa.bool_(), pa.array([1.0, 0.0]), [True, False]),
    "double in decimal": (DECIMAL, pa.array([4.5, 0.1]), [Decimal("4.50"), Decimal("0.10")]),
    "int64 in decimal": (DECIMAL, pa.array([7]), [Decimal("7.00")]),
    "decimal in double": (pa.float64(), pa.array([Decimal("4.25")], DECIMAL), [4.25]),
    "whole decimals in int64": (pa.int64(), pa.array([Decimal("4.00")], DECIMAL), [4]),
    "a date in timestamps": (pa.timestamp("us"), pa.array([date(2024, 1, 1)]), [datetime(2024, 1, 1)]),
    "midnight in dates": (pa.date32(), pa.array([datetime(2024, 1, 1)], pa.timestamp("us")), [date(2024, 1, 1)]),
    "nanoseconds": (pa.timestamp("us"), pa.array([NOON], pa.timestamp("ns")), [NOON]),
    "numbers in text": (pa.string(), pa.array([4.0, 0.1]), ["4.0", "0.1"]),
    "int64 in text": (pa.string(), pa.array([2**60]), [str(2**60)]),
    "dates in text": (pa.string(), pa.array([date(2024, 1, 1)]), ["2024-01-01"]),
    "UTF-8 bytes in text": (pa.string(), pa.array(["grün".encode()]), ["grün"]),
    "text in bytes": (pa.binary(), pa.array(["gr\\x41ün"]), ["gr\\x41ün".encode()]),
    "text of int64": (pa.int64(), pa.array(["3", "-4", "5.0", None]), [3, -4, 5, None]),
    "text of double": (pa.float64(), pa.array(["5", "4.50", "1e-05", "nan"][:3]), [5.0, 4.5, 1e-05]),
    "text of decimal": (DECIMAL, pa.array(["4.5", "3", "1.2500"]), [Decimal("4.50"), Decimal(3), Decimal("1.25")]),
    "text of bool": (pa.bool_(), pa.array(["true", "False"]), [True, False]),
    "text of dates": (pa.date32(), pa.array(["2024-01-01"]), [date(2024, 1, 1)]),
    "text of timestamps": (
        pa.timestamp("us"),
        pa.array(["2024-01-01T12:00:00", "2024-01-01 12:00"]),
        [NOON, NOON],
    ),
    "text with a time zone": (
        pa.timestamp("us", tz="UTC"),
        pa.array(["2024-01-01T14:00:00+02:00", "2024-01-01T12:00:00Z"]),
        [NOON.replace(tzinfo=UTC)] * 2,
    ),
    "a list in text": (pa.string(), pa.array([[1, 2]]), ["[1,2]"]),
}


@pytest.mark.parametrize("name", FITTING)
def test_values_that_fit_the_tables_type_are_cast_to_it(tmp_path: Path, name: str) -> None:
    type_, values, expected = FITTING[name]
    found = planned(tmp_path, manifest(tmp_path, values), held(tmp_path, type_))
    assert (found.type, found.to_pylist()) == (type_, expected)


UNFIT = {
    "a fraction in int64": (pa.int64(), pa.array([3.0, 4.5]), "4.5", "double"),
    "nan in int64": (pa.int64(), pa.array([float("nan")]), "nan", "double"),
    "infinity in int64": (pa.int64(), pa.array([float("-inf")]), "-inf", "double"),
    "2^63 in int64": (pa.int64(), pa.array([2.0**63]), "9.223372036854776e+18", "double"),
    "300 in int8": (pa.int8(), pa.array([300]), "300", "bigint"),
    "a fraction in int8": (pa.int8(), pa.array([0.5]), "0.5", "double"),
    "2^53 + 1 in double": (pa.float64(), pa.array([2**53 + 1]), str(2**53 + 1), "text"),
    "2^60 in double": (pa.float64(), pa.array([2**60]), str(2**60), "text"),
    "0.1 in float": (pa.float32(), pa.array([0.1]), "0.1", "double"),
    "2 in bool": (pa.bool_(), pa.array([2]), "2", "text"),
    "three decimals": (DECIMAL, pa.array([Decimal("1.234")], pa.decimal128(12, 3)), "1.234", "double"),
    "a long decimal": (DECIMAL, pa.array([10**12]), str(10**12), "double"),
    "noon in dates": (pa.date32(), pa.array([NOON], pa.timestamp("us")), "2024-01-01 12:00:00", "timestamp"),
    "a time without a zone": (
        pa.timestamp("us", tz="UTC"),
        pa.array([NOON], pa.timestamp("us")),
        "2024-01-01 12:00:00",
        "text",
    ),
    "a number in dates": (pa.date32(), pa.array([3]), "3", "text"),
    "a word in int64": (pa.int64(), pa.array(["3", "three"]), "three", "text"),
    "leading zeros in int64": (pa.int64(), pa.array(["007"]), "007", "text"),
    "an empty text in int64": (pa.int64(), pa.array([""]), "", "text"),
    "many digits in double": (pa.float64(), pa.array(["0.12345678901234567890"]), "0.1234567890123456789", "text"),
    "a struct in int64": (pa.int64(), pa.array([{"a": 1}]), '{"a":1}', "text"),
    "numbers in bytes": (pa.binary(), pa.array([3]), "3", "text"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_value_that_does_not_fit_is_one_sentence_with_the_command_that_widens_the_column(
    tmp_path: Path, name: str
) -> None:
    type_, values, example, wider = UNFIT[name]
    table = held(tmp_path, type_)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ManifestError) as caught:
        planned(tmp_path, manifest(tmp_path, values), table)
    sentence, command = str(caught.value).split(". Widen the column with ")
    spoken = column_types.type_name(column_types.duckdb_types(schema.kept(table.columns()))["rating"])
    assert sentence.startswith(f"The kept column 'rating' is {spoken} in {table.output}, ")
    assert f"and {example}" in sentence
    assert shlex.split(command) == ["lakelens", "compact", table.output, "--widen", f"rating={wider}"]
    assert caught.value.exit_code == 2
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "manifest.parquet"])


def test_binary_data_that_is_no_text_is_refused_without_a_command(tmp_path: Path) -> None:
    table = held(tmp_path, pa.string())
    with pytest.raises(ManifestError, match=r"'rating' is text in .*binary data.* Rename the column"):
        planned(tmp_path, manifest(tmp_path, pa.array([b"\xff"])), table)


def test_a_value_of_a_row_that_is_done_need_not_fit(tmp_path: Path) -> None:
    table = held(tmp_path, pa.int64(), ["/0.jpg"])
    assert planned(tmp_path, manifest(tmp_path, pa.array([4.5, 4.0])), table).to_pylist() == [4]


def test_a_column_that_the_next_manifest_lacks_or_no_longer_keeps_stays_in_the_table(tmp_path: Path) -> None:
    table = held(tmp_path, pa.int64())
    config = manifest(tmp_path, pa.array([4.5])).model_copy(update={"keep": ()})
    with open_plan(config, STORAGE, table) as found:
        assert (found.kept, found.pending) == ([], 1)


def test_an_all_null_column_is_text_in_a_new_table_and_takes_numbers_later(tmp_path: Path) -> None:
    first = planned(tmp_path, manifest(tmp_path, pa.nulls(1)), None)
    assert (first.type, first.to_pylist()) == (pa.string(), [None])
    table = held(tmp_path, first.type)
    assert planned(tmp_path, manifest(tmp_path, pa.array([3])), table).to_pylist() == ["3"]


def test_a_column_whose_name_differs_in_case_is_one_sentence(tmp_path: Path) -> None:
    table = held(tmp_path, pa.int64())
    with pytest.raises(ManifestError, match=r"'Rating'.*'rating'.*[Rr]ename"):
        planned(tmp_path, manifest(tmp_path, pa.array([3]), "Rating"), table)


def test_values_are_looked_at_only_where_types_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    misfits = column_types.misfits
    monkeypatch.setattr(
        column_types, "misfits", lambda c, rows, changes: asked.append(changes) or misfits(c, rows, changes)
    )
    table = held(tmp_path, pa.int64())
    planned(tmp_path, manifest(tmp_path, pa.array([3])), table)
    planned(tmp_path, manifest(tmp_path, pa.array([3.0])), table)
    assert asked == [{}, {"rating": ("DOUBLE", "BIGINT")}]


def test_a_floating_point_number_in_a_decimal_column_has_the_digits_that_it_was_written_with(
    tmp_path: Path,
) -> None:
    config = manifest(tmp_path, pa.array([123456.789]))
    found = planned(tmp_path, config, held(tmp_path, pa.decimal128(38, 16)))
    assert found.to_pylist() == [Decimal("123456.7890000000000000")]
