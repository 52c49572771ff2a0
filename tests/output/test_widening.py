"""Kept columns get wider types, in one commit, and no row is lost or written twice."""

import sys
from collections import Counter
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from jobs import __main__ as cli
from pipeline import schema
from pipeline.errors import (
    ConfigError,
    SpaceError,
    TableError,
)
from pipeline.output import compaction, maintenance, orphans, widening
from pipeline.output.layout import PREDICTIONS
from pipeline.output.table import Predictions
from pipeline.output.widening import widen
from tests.support import seaweed
from tests.support.making import STORAGE
from tests.support.rated import actions, fragment, made, named, on_disk, rows_of


@pytest.fixture
def running(out: str) -> Predictions:
    return made(out, pa.array([3, None, 2**53]))


def test_a_column_is_widened_in_every_file_by_one_commit(out: str, running: Predictions) -> None:
    before, version = rows_of(out), running.version
    assert widen(out, STORAGE, {"rating": "double"}) == 4
    assert rows_of(out) == before
    assert {type(value) for _, value in rows_of(out)} == {float, type(None)}
    delta = DeltaTable(f"{out}/{PREDICTIONS}")
    assert delta.version() == version + 2  # the claim, and the commit
    kinds = Counter(kind for action in actions(out, version + 2) for kind in action)
    assert kinds == {"commitInfo": 1, "txn": 1, "add": 4, "remove": 4, "metaData": 1}
    assert pa.schema(delta.schema().to_arrow()).field("rating").type == pa.float64()
    assert delta.metadata().partition_columns == ["dataset", "outcome"]
    assert on_disk(out) == named(out)
    assert maintenance.history(out, STORAGE)[0].what == "widen rating=double"


def test_a_plain_glob_meets_one_type_after_a_widening(out: str, running: Predictions) -> None:
    widen(out, STORAGE, {"rating": "double"})
    schemas = map(pq.read_schema, on_disk(out))
    types = {columns.field("rating").type for columns in schemas if "rating" in columns.names}
    assert types == {pa.float64()}
    files = f"'{out}/{PREDICTIONS}/*/*/*.parquet', union_by_name = true"
    found = duckdb.sql(f"SELECT count(*), sum(rating) FROM read_parquet({files})").fetchall()
    assert found == [(8, 2 * (3.0 + 2**53))]


WIDER = {
    "text": (pa.array([3, -4]), pa.string(), ["3", "-4"]),
    "decimal(21,2)": (pa.array([3, -4]), pa.decimal128(21, 2), [Decimal("3.00"), Decimal("-4.00")]),
    "bigint": (pa.array([3, -4], pa.int8()), pa.int64(), [3, -4]),
    "string": (pa.array([4.0, 0.1]), pa.string(), ["4.0", "0.1"]),
    "double": (pa.array([0.5, float("nan")], pa.float32()), pa.float64(), [0.5, float("nan")]),
    "timestamp": (pa.array([date(2024, 1, 1)]), pa.timestamp("us"), [datetime(2024, 1, 1)]),
    "TEXT": (pa.array([True, False]), pa.string(), ["true", "false"]),
    "varchar": (pa.array([b"abc"]), pa.string(), ["abc"]),
    "decimal(38, 4)": (
        pa.array([Decimal("4.25")], pa.decimal128(10, 2)),
        pa.decimal128(38, 4),
        [Decimal("4.2500")],
    ),
}


@pytest.mark.parametrize("type_", WIDER)
def test_every_wider_type_holds_the_same_values(out: str, type_: str) -> None:
    values, arrow, expected = WIDER[type_]
    made(out, values)
    assert widen(out, STORAGE, {"rating": type_}) == 4
    found = DeltaTable(f"{out}/{PREDICTIONS}").to_pyarrow_table(columns=["rating"])["rating"]
    assert found.type == arrow
    assert sorted(map(str, found.drop_null().to_pylist())) == sorted(map(str, 2 * expected))


REFUSED = {
    "rating=int": (TableError, "the column is bigint, and int is not wider"),
    "rating=boolean": (TableError, "the column is bigint, and boolean is not wider"),
    "rating=date": (TableError, "the column is bigint, and date is not wider"),
    "rating=money": (ConfigError, r"int, bigint, double, decimal\(p,s\), timestamp or text"),
    "rating=decimal(50,2)": (ConfigError, "unknown"),
    "stars=double": (TableError, "has no such kept column; it has rating"),
    "score=double": (TableError, "has no such kept column"),
}


@pytest.mark.parametrize("asked", REFUSED)
def test_what_cannot_be_widened_is_one_sentence_and_writes_nothing(
    out: str, running: Predictions, asked: str
) -> None:
    kind, reason = REFUSED[asked]
    before = sorted(Path(out).rglob("*"))
    with pytest.raises(kind, match=reason) as caught:
        widen(out, STORAGE, widening.parse_assignments([asked]))
    assert str(caught.value).startswith(f"--widen {asked}: ")
    assert sorted(Path(out).rglob("*")) == before


@pytest.mark.parametrize(("value", "type_"), [(2**53 + 1, "double"), (2**60, "double"), (10**17, "decimal(18,2)")])
def test_a_value_that_a_wider_type_does_not_hold_exactly_is_named(out: str, value: int, type_: str) -> None:
    made(out, pa.array([3, value]))
    before = sorted(Path(out).rglob("*"))
    with pytest.raises(TableError, match=f"the column holds {value}, which .* cannot hold exactly"):
        widen(out, STORAGE, {"rating": type_})
    assert sorted(Path(out).rglob("*")) == before


@pytest.mark.parametrize("given", ["rating", "=double", "rating=", ""])
def test_what_is_no_assignment_is_one_sentence(given: str) -> None:
    with pytest.raises(ConfigError, match="COLUMN=TYPE"):
        widening.parse_assignments([given])
    with pytest.raises(ConfigError, match="names the column 'a=b' twice"):
        widening.parse_assignments(["a=b=int", "a=b=text"])


def test_a_column_that_has_its_type_is_left_alone(out: str, running: Predictions) -> None:
    version = running.version
    assert widen(out, STORAGE, {"rating": "bigint"}) == 0
    assert DeltaTable(f"{out}/{PREDICTIONS}").version() == version


def test_a_table_without_files_is_widened(out: str) -> None:
    Predictions.create(out, STORAGE, [pa.field("rating", pa.int64())])
    assert widen(out, STORAGE, {"rating": "double"}) == 0
    (field,) = schema.kept(Predictions.existing(out, STORAGE).columns())
    assert field.type == pa.float64()


def test_a_column_that_no_file_has_is_widened(out: str) -> None:
    found = Predictions.create(out, STORAGE, [])
    found.claim("zero", [pa.field("rating", pa.int64())])
    found.commit([fragment(out, "a", ["1"], 1, None)], "zero", 1)
    assert widen(out, STORAGE, {"rating": "double"}) == 1
    assert rows_of(out) == [("1", None)]


def test_replaced_files_can_stay_for_readers_of_older_versions(out: str, running: Predictions) -> None:
    reader = DeltaTable(f"{out}/{PREDICTIONS}")
    assert widen(out, STORAGE, {"rating": "double"}, keep_replaced=True) == 4
    assert len(on_disk(out)) == 8
    assert reader.to_pyarrow_table().num_rows == 8
    maintenance.vacuum(out, STORAGE)
    assert on_disk(out) == named(out)


def test_large_files_are_rewritten_some_rows_at_a_time(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made(out, pa.array(range(50)))
    monkeypatch.setattr(widening, "ROW_GROUP_ROWS", 20)
    widen(out, STORAGE, {"rating": "double"})
    assert sorted(map(groups_of, on_disk(out))) == [[1], [1], [20, 20, 10], [20, 20, 10]]
    assert sorted(value for _, value in rows_of(out) if value is not None) == sorted(2 * [*map(float, range(50))])


def groups_of(path: str) -> list[int]:
    """The rows of each row group."""
    found = pq.read_metadata(path)
    return [found.row_group(number).num_rows for number in range(found.num_row_groups)]


def test_an_output_of_a_newer_format_is_left_alone(out: str, running: Predictions) -> None:
    Path(out, "space.json").write_text('{"format": 3, "fingerprint": "f00"}')
    for work in (lambda: widen(out, STORAGE, {"rating": "double"}), lambda: maintenance.vacuum(out, STORAGE)):
        with pytest.raises(SpaceError, match="format 3"):
            work()
    with pytest.raises(SpaceError, match="format 3"):
        list(compaction.compact(out, STORAGE))


def test_the_command_widens_and_then_compacts(
    out: str, running: Predictions, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["lakelens", "compact", out, "--widen", "rating=double"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert "Widened rating=double: rewrote 4 files." in capsys.readouterr().out
    assert len(on_disk(out)) == 2
    assert on_disk(out) == named(out)


@pytest.mark.slow
def test_a_column_is_widened_on_s3(s3: seaweed.S3Server) -> None:
    s3.filesystem().makedirs("widened", exist_ok=True)
    out = "s3://widened/an output"
    made(out, pa.array([3, None]))
    assert widen(out, STORAGE, {"rating": "double"}) == 4
    found = Predictions.existing(out, STORAGE)
    rows = found.newest().to_pyarrow_table(columns=["rating"])["rating"]
    assert rows.type == pa.float64()
    assert sorted(rows.drop_null().to_pylist()) == [3.0, 3.0]
    assert orphans.unreferenced_files(found) == []
