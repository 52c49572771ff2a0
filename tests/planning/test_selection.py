"""Which rows a run is for: failed ones, changed ones, selected ones."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.config import ManifestConfig
from pipeline.errors import ConfigError
from pipeline.output.table import Predictions
from pipeline.planning.account import Counts
from pipeline.planning.plan import open_plan
from pipeline.planning.selection import Selection
from tests.support.making import STORAGE, write_fragment
from tests.support.manifests import write_rows
from tests.support.plans import committed, config, outcome


@pytest.fixture
def failed(tmp_path: Path) -> Predictions:
    """A table of failed rows: a and c corrupt, b and "d d" timed out; "elsewhere" is not in the manifest."""
    table = committed(tmp_path / "out", {"x/y": ["a", "c", "elsewhere"]})
    fragments = [write_fragment(str(tmp_path / "out"), "x/y", ["b", "d d"], 1, code="timeout")]
    table.commit(fragments, "run", 1)
    return table


FAILED_LAKE = [{"uri": "/", "image_id": id_, "dataset": "x/y"} for id_ in ("a", "b", "c", "d d", "new", "a")]


@pytest.mark.parametrize(
    ("codes", "chosen"),
    [((), ["a", "b", "c", "d d"]), (("timeout",), ["b", "d d"]), (("timeout", "empty"), ["b", "d d"])],
)
def test_failed_rows_are_pending_again_and_say_which_file_holds_them(
    tmp_path: Path, failed: Predictions, codes: tuple[str, ...], chosen: list[str]
) -> None:
    selection = Selection(failed=True, codes=codes)
    account, pending = outcome(config(tmp_path, FAILED_LAKE), tmp_path / "pending", failed, selection)
    done = 4 - len(chosen)
    expected = Counts(input=6, already_done=done, not_selected=1, duplicates=1, left=len(chosen))
    assert account.total == expected
    assert sorted(row["image_id"] for row in pending) == chosen
    for row in pending:
        old = pq.read_table(tmp_path / "out" / "predictions" / row[schema.REPLACES], partitioning=None)
        assert row["image_id"] in old.column("image_id").to_pylist()
        assert row[schema.TRIES] == 1


def test_no_failed_row_of_a_code_leaves_nothing_to_do(tmp_path: Path, failed: Predictions) -> None:
    selection = Selection(failed=True, codes=("not_found",))
    account, pending = outcome(config(tmp_path, FAILED_LAKE), tmp_path / "pending", failed, selection)
    assert (account.total.already_done, account.total.not_selected, pending) == (4, 1, [])


def test_without_a_table_no_row_has_failed(tmp_path: Path) -> None:
    account, _ = outcome(config(tmp_path, FAILED_LAKE), tmp_path / "pending", None, Selection(failed=True))
    assert account.total == Counts(input=6, duplicates=1, not_selected=5)


VERSIONED = [{"uri": "/", "image_id": id_, "version": version} for id_, version in ("a1", "b2", "c3", "d4")]


@pytest.fixture
def versioned(tmp_path: Path) -> Predictions:
    """A table with a and c of version 1, b of version 2, d of no known version."""
    table = Predictions.create(str(tmp_path / "out"), STORAGE, [])
    assert table.claim("run", []) == 1
    fragments = [
        write_fragment(str(tmp_path / "out"), "images", ids, 1, version=version)
        for ids, version in ((["a", "c"], "1"), (["b"], "2"), (["d"], None))
    ]
    table.commit(fragments, "run", 1)
    return table


def test_a_row_whose_version_has_changed_is_pending_again_and_names_the_file_of_its_old_row(
    tmp_path: Path, versioned: Predictions
) -> None:
    account, rows = outcome(config(tmp_path, VERSIONED), tmp_path / "pending", versioned)
    assert account.total == Counts(input=4, already_done=3, left=1)
    (row,) = rows
    old = pq.read_table(tmp_path / "out" / "predictions" / row[schema.REPLACES], partitioning=None)
    assert (row["image_id"], old.column("image_id").to_pylist()) == ("c", ["a", "c"])
    assert row[schema.TRIES] is None  # another object: its attempts are counted anew


def test_a_manifest_without_versions_changes_nothing(tmp_path: Path, versioned: Predictions) -> None:
    rows = [{"uri": "/", "image_id": id_} for id_ in "abcd"]
    account, _ = outcome(config(tmp_path, rows), tmp_path / "pending", versioned)
    assert account.total == Counts(input=4, already_done=4)


CHOICE = [
    {"uri": f"/{i}", "image_id": str(i), "dataset": "ab"[i % 2], "year": 2000 + i, "text": f"t{i}"}
    for i in range(8)
]


@pytest.mark.parametrize("format_", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        (Selection(datasets=("b",)), ["1", "3", "5", "7"]),
        (Selection(datasets=("a", "nowhere")), ["2", "4", "6"]),
        (Selection(where="year::INT > 2004 AND text <> 't6'"), ["5", "7"]),
        (Selection(where="year::INT > 2004 -- late", datasets=("a",)), ["6"]),
        (Selection(where="nullif(year::INT, 2003) IS NULL"), ["3"]),
        (Selection(where="uri LIKE '%7' OR NULL"), ["7"]),
    ],
)
def test_only_selected_rows_are_pending_and_the_others_are_counted(
    tmp_path: Path, format_: str, selection: Selection, chosen: list[str]
) -> None:
    table = committed(tmp_path / "out", {"a": ["0"]})
    path = tmp_path / f"m.{format_}"
    rows = pa.Table.from_pylist(CHOICE)
    if format_ == "parquet":
        pq.write_table(rows, path)
    elif format_ == "csv":
        rows.to_pandas().to_csv(path, index=False)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in CHOICE))
    account, found = outcome(ManifestConfig(path=(str(path),)), tmp_path / "pending", table, selection)
    assert sorted(row["image_id"] for row in found) == chosen
    assert account.total == Counts(input=8, already_done=1, left=len(chosen), not_selected=7 - len(chosen))


@pytest.mark.parametrize("where", ["nowhere = 1", "year >", "max(year) = 1", "("])
def test_a_condition_that_does_not_fit_is_one_sentence(tmp_path: Path, where: str) -> None:
    with (
        pytest.raises(ConfigError, match=r"^--where .* does not fit the manifest .*m.*: .*\.$") as caught,
        open_plan(config(tmp_path, CHOICE), STORAGE, None, Selection(where=where)),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_limit_leaves_the_rest(tmp_path: Path) -> None:
    with open_plan(config(tmp_path, CHOICE), STORAGE, None, Selection(limit=3)) as found:
        files = found.write_pending(str(tmp_path / "pending"), STORAGE)
    assert (found.pending, found.account.total) == (3, Counts(input=8, left=8))
    assert [row["image_id"] for file in files for row in pq.read_table(file).to_pylist()] == ["0", "2", "4"]
    with open_plan(config(tmp_path, CHOICE), STORAGE, None, Selection(limit=30)) as found:
        assert found.pending == 8


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_a_condition_that_compares_text_with_a_number_is_refused_with_the_cast_to_write(
    tmp_path: Path, format_: str
) -> None:
    path = write_rows(tmp_path / f"m.{format_}", [{"uri": "/a", "year": "2001"}])
    with (
        pytest.raises(ConfigError, match=r"year > 2000") as caught,
        open_plan(ManifestConfig(path=(str(path),)), STORAGE, None, Selection(where="year > 2000")),
    ):
        pass
    assert ("are text" in str(caught.value)) == (format_ != "parquet")
