"""Searches in an index: what they find, conditions, columns, stores, clusters, and the command."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import TableError
from pipeline.search import exact, index_filters, index_work
from pipeline.search.index import Index, open_index
from pipeline.search.index_filters import OnlyExactError
from tests.support.commands import lakelens
from tests.support.histories import DIM, History
from tests.support.indexes import described, index_of, refreshed, rows_in, rows_of
from tests.support.making import STORAGE
from tests.support.seaweed import S3Server

QUERY = np.linspace(-1, 1, DIM, dtype=np.float32)
FIELDS = pa.schema(
    [
        pa.field("label", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("width", pa.int32()),
        pa.field("Is good", pa.bool_()),
        pa.field("at", pa.date32()),
    ]
)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    made = described(History(tmp_path_factory.mktemp("searched") / "out"))
    made.run(ok=[f"street-{number:03}" for number in range(50)])
    made.run(ok=[f"map-{number:03}" for number in range(50)], dataset="map")
    refreshed(made.path)
    made.run(ok=["street-003"], failed=["street-004"])
    refreshed(made.path)
    return made


@pytest.fixture(scope="module")
def index(history: History) -> Index:
    return index_of(history.path)


@pytest.mark.parametrize("k", [1, 10, 1000])
@pytest.mark.parametrize(
    ("where", "datasets"),
    [
        (None, []),
        ("image_id LIKE 'street%' AND NOT image_id = 'street-007'", []),
        ("score >= 0.75 AND width IN (640, 641)", ["map"]),
        ("score > 0.75", []),
        (None, ["map", "street"]),
    ],
)
def test_an_index_finds_what_exact_search_finds(
    index: Index, history: History, k: int, where: str | None, datasets: list[str]
) -> None:
    asked: dict[str, Any] = {"where": where, "datasets": datasets, "columns": ["image_id", "label"]}
    assert index.state.approximate
    found, true = index.nearest(QUERY, k, **asked), exact.nearest(history.reader(), QUERY, k, **asked)
    assert found.select(["image_id", "label"]).equals(true.select(["image_id", "label"]))
    assert np.allclose(found["distance"], true["distance"], atol=3e-6)


def test_a_query_that_the_index_cannot_answer_is_left_to_exact_search(index: Index) -> None:
    with pytest.raises(OnlyExactError, match="run_id"):
        index.nearest(QUERY, 1, columns=["run_id"])
    with pytest.raises(OnlyExactError, match="width / height"):
        index.nearest(QUERY, 1, where="width / height > 1.3")
    with pytest.raises(TableError, match="3 numbers"):
        index.nearest(QUERY[:3], 1)


@pytest.mark.parametrize(
    ("where", "pushed_down"),
    [
        ("label = 'it''s' -- a comment", "(`label` = 'it''s')"),
        ("LABEL IN ('a', 'b') OR label IS NULL", "((`label` IN ('a', 'b')) OR (`label` IS NULL))"),
        ("score BETWEEN 0.1 AND 1", "(`score` BETWEEN 0.1 AND 1)"),
        ('NOT ("Is good" = true) AND width > -5', "((NOT (`Is good` = true)) AND (`width` > -5))"),
        ("label NOT LIKE 'cat%'", "(`label` NOT LIKE 'cat%')"),
    ],
)
def test_comparisons_with_values_are_pushed_down(where: str, pushed_down: str) -> None:
    assert index_filters.pushed_down(where, FIELDS) == pushed_down


@pytest.mark.parametrize(
    "where",
    [
        "width / 2 > 1.5",
        "lower(label) = 'cat'",
        "label ILIKE 'cat'",
        r"label LIKE 'a\_b'",
        "width > 1.5",
        "width = '640'",
        "at > DATE '2024-01-01'",
        "species.label = 'cat'",
        "colour = 'red'",
        "label = label",
        "no SQL at all",
        "true",
        "label = 'a'); DROP TABLE predictions; --",
    ],
)
def test_every_other_condition_is_left_to_exact_search(where: str) -> None:
    with pytest.raises(OnlyExactError):
        index_filters.pushed_down(where, FIELDS)


def test_an_index_lives_on_s3(s3: S3Server, history: History) -> None:
    s3.filesystem().put(str(history.path), "indexed/out x", recursive=True)
    out = "s3://indexed/out x"
    assert open_index(out, STORAGE) is not None
    copy = History(history.path, history.rows)
    report = refreshed(out, rebuild=True)
    assert (report.rows, report.anew) == (99, "it was asked for")
    assert rows_in(index_of(out)) == rows_of(copy)
    assert refreshed(out).written == 0


def test_large_changes_are_made_by_a_cluster(local_cluster: None, tmp_path: Path) -> None:
    made = described(History(tmp_path / "out"))
    made.run(ok=[f"image-{number}" for number in range(30)])
    made.run(ok=[f"other-{number}" for number in range(30)], dataset="other")
    report = refreshed(made.path)
    assert (report.rows, report.approximate) == (60, True)
    assert rows_in(index_of(made.path)) == rows_of(made)
    with index_work.place(None, large=True) as work:
        assert os.getpid() not in work.map(process_id, [(), ()])
    with index_work.place(None, large=False) as work:
        assert list(work.map(process_id, [()])) == [os.getpid()]


def process_id() -> int:
    return os.getpid()


def test_the_command_prints_what_it_has_done(
    history: History, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert lakelens("index", history.path, "--rebuild", monkeypatch=monkeypatch) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert out.splitlines()[0] == "All rows were indexed anew: it was asked for."
    assert f"99 rows, as of version {history.version} of the predictions: 99 upserts, 0 deletes" in out
    assert "exact: searches compare the query with every row" in out
    assert lakelens("index", history.path, "--json", monkeypatch=monkeypatch) == 0
    document = json.loads(capfd.readouterr().out)
    assert (document["rows"], document["upserts"], document["anew"]) == (99, 0, None)


def test_the_command_says_in_one_sentence_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert lakelens("index", tmp_path / "none", monkeypatch=monkeypatch) == 2
    assert "There are no predictions at" in capfd.readouterr().err
