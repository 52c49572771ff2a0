"""The index of an output: what it holds after every change, and when it is made anew."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from pipeline.errors import ConfigError, SpaceError, TableError
from pipeline.search import index_segments
from pipeline.search.index import open_index
from pipeline.search.index_update import DELETED
from tests.output.test_changes import STEPS, Step, play
from tests.support import histories
from tests.support.histories import DIM, History, vector
from tests.support.indexes import ANN_ROWS, described, folder_of, index_of, refreshed, rows_in, rows_of
from tests.support.making import STORAGE, edit_json

HISTORIES = 200 if "LAKELENS_EVERY_STEP" in os.environ else 4
MANY = [f"image-{number:03}" for number in range(60)]


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> History:
    """An output of 60 labelled images, with an approximate index."""
    made = described(History(tmp_path_factory.mktemp("indexed") / "out"))
    made.run(ok=MANY, failed=["broken"])
    assert refreshed(made.path).anew == "there was none"
    return made


@pytest.fixture
def history(indexed: History, tmp_path: Path) -> History:
    """A copy of it, which a test may change."""
    shutil.copytree(indexed.path, tmp_path / "out")
    return History(tmp_path / "out", dict(indexed.rows), indexed.runs)


def test_an_index_holds_the_ok_rows_and_tells_which_version_they_are_of(indexed: History) -> None:
    index = index_of(indexed.path)
    assert rows_in(index) == rows_of(indexed)
    assert index.version == indexed.version
    assert index.fields.names == ["image_id", "dataset", "uri", "label", "score", "width", "height", "embedding"]
    assert str(index.fields.field("embedding").type) == "fixed_size_list<item: halffloat>[8]"


def test_its_recall_is_measured_and_kept(indexed: History) -> None:
    state = index_of(indexed.path).state
    assert (state.approximate, state.measured) == (True, 60)
    assert 0.9 <= state.recall <= 1


def test_a_small_index_is_exact(tmp_path: Path) -> None:
    small = described(History(tmp_path / "out"))
    small.run(ok=MANY[: ANN_ROWS - 1])
    report = refreshed(small.path)
    assert (report.approximate, report.recall, report.rows) == (False, 1.0, ANN_ROWS - 1)
    small.run(ok=MANY)
    report = refreshed(small.path)
    assert (report.approximate, report.anew, report.upserts) == (True, None, 60)


def test_nothing_is_written_if_nothing_has_changed(history: History) -> None:
    before = index_of(history.path).dataset.version
    report = refreshed(history.path)
    assert (report.anew, report.upserts, report.deletes, report.written) == (None, 0, 0, 0)
    assert index_of(history.path).dataset.version == before


def test_changes_are_applied_in_one_commit_that_older_readers_do_not_see(history: History) -> None:
    older, before = index_of(history.path), rows_of(history)
    history.run(ok=["new", MANY[0]], failed=[MANY[1]])
    report = refreshed(history.path)
    assert (report.anew, report.upserts, report.deletes, report.rows) == (None, 2, 1, 60)
    assert rows_in(index_of(history.path)) == rows_of(history)
    assert rows_in(older) == before
    with_rows = older.dataset.checkout_version(older.dataset.version + 1)
    assert rows_in(type(older)(older.folder, older.state, with_rows)) == rows_of(history)


def test_small_changes_are_indexed_in_segments_of_their_own_which_are_merged_when_they_are_many(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_segments, "DELTAS", 2)
    for number in range(4):
        history.run(ok=[f"later-{number}"])
        refreshed(history.path)
    index = index_of(history.path)
    fragments = [one.fragment_id for one in index.dataset.get_fragments()]
    indexes = {one.name: one.segments for one in index.dataset.describe_indices()}
    assert indexes.keys() == {"image_id", "dataset", "label", "embedding"}
    for segments in indexes.values():
        assert sorted(sorted(one.fragment_ids) for one in segments) == [
            fragments[:1],
            fragments[1:4],
            fragments[4:],
        ]
    later = np.array(vector("later-2", history.rows["later-2"][1]), np.float32)
    assert index.nearest(later, 1)["image_id"].to_pylist() == ["later-2"]


def test_an_index_that_has_doubled_is_trained_anew(history: History) -> None:
    trained = index_of(history.path).state.trained
    history.run(ok=[f"more-{number}" for number in range(100)])
    assert refreshed(history.path).anew is None
    assert (trained, index_of(history.path).state.trained) == (60, 160)


def with_other_table(history: History) -> None:
    rows = [*history.rows]
    shutil.rmtree(history.path / "predictions")
    history.run(ok=rows)


def with_other_space(history: History) -> None:
    described(history, "f01")


def with_vacuum(history: History) -> None:
    history.run(failed=MANY[:2])
    history.vacuum()


def with_many_deletes(history: History) -> None:
    history.run(failed=MANY[: int(60 * DELETED) + 1])
    assert refreshed(history.path).anew is None


def with_foreign_rows(history: History) -> None:
    dataset = folder_of(history.path).open()
    assert dataset is not None
    dataset.delete(f"image_id = '{MANY[3]}'")


def with_newer_format(history: History) -> None:
    index = index_of(history.path)
    newer = index.state.model_copy(update={"format": 99})
    operation = index.folder.update(index.dataset, _no_ids(), [])
    index.folder.commit(index.dataset, operation, newer)


def _no_ids() -> Any:
    import pyarrow as pa

    return pa.table({"image_id": pa.array([], pa.string())}).to_reader()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_other_table, "the output was made anew"),
        (with_other_space, "another embedding space"),
        (with_vacuum, "was deleted"),
        (with_many_deletes, "more than 25% of its rows were deleted"),
        (with_foreign_rows, "another program"),
        (with_newer_format, "another version of LakeLens"),
    ],
)
def test_an_index_that_cannot_be_continued_is_made_anew_and_says_why(
    history: History, change: Any, reason: str
) -> None:
    change(history)
    report = refreshed(history.path)
    assert reason in (report.anew or "")
    assert rows_in(index_of(history.path)) == rows_of(history)
    assert refreshed(history.path).anew is None


def test_columns_are_chosen_once_and_kept(history: History) -> None:
    assert refreshed(history.path, columns=["run_id"]).anew == "its columns have changed"
    assert index_of(history.path).fields.names[-2:] == ["run_id", "embedding"]
    assert refreshed(history.path).anew is None
    assert refreshed(history.path, rebuild=True).anew == "it was asked for"
    assert index_of(history.path).fields.names[-2:] == ["run_id", "embedding"]
    with pytest.raises(TableError, match="no column 'colour'"):
        refreshed(history.path, columns=["colour"])


def test_an_index_of_a_table_that_is_gone_is_not_opened(history: History) -> None:
    with_other_table(history)
    assert open_index(str(history.path), STORAGE) is None


def test_there_is_nothing_to_index_without_an_output(tmp_path: Path) -> None:
    history = History(tmp_path / "out")
    history.run(failed="a")
    with pytest.raises(SpaceError, match="no output"):
        refreshed(history.path)
    edit_json(described(history).path / "space.json", dim=None)
    with pytest.raises(TableError, match="nothing to index"):
        refreshed(history.path)


def test_an_index_may_have_no_rows_and_gets_some_later(tmp_path: Path) -> None:
    history = described(History(tmp_path / "out"))
    history.run(failed="a")
    assert refreshed(history.path).rows == 0
    nothing = index_of(history.path).nearest(np.ones(8, np.float32), 3, columns=["uri"])
    assert (nothing.num_rows, nothing.schema.names) == (0, ["uri", "distance"])
    history.run(ok="a")
    assert refreshed(history.path).rows == 1
    history.run(failed="a")
    assert refreshed(history.path).rows == 0


def test_an_approximate_index_may_lose_all_rows_and_get_some_later(tmp_path: Path) -> None:
    history = described(History(tmp_path / "out"))
    history.run(ok="abcd")
    refreshed(history.path, exact_rows=4)
    history.run(failed="abcd")
    history.compact()
    assert refreshed(history.path, exact_rows=4).rows == 0
    assert index_of(history.path).nearest(np.ones(DIM, np.float32), 3).num_rows == 0
    history.run(ok="abcd")
    assert refreshed(history.path, exact_rows=4).rows == 4
    assert rows_in(index_of(history.path)) == rows_of(history)


def test_a_dimension_that_is_no_multiple_of_8_has_an_index_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "DIM", 6)
    odd = described(History(tmp_path / "out"))
    edit_json(odd.path / "space.json", dim=6)
    for some in (MANY[:30], MANY[30:]):
        odd.run(ok=some)
        assert refreshed(odd.path).recall > 0.9
    assert rows_in(index_of(odd.path)) == rows_of(odd)


def test_vectors_of_another_length_are_refused(history: History) -> None:
    edit_json(history.path / "space.json", dim=16)
    with pytest.raises(TableError, match=r"^Among the rows up to image-059 are vectors that do not"):
        refreshed(history.path)


def test_without_lance_one_sentence_says_what_to_install(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lance.dataset", None)
    for use in (lambda: refreshed(history.path), lambda: open_index(str(history.path), STORAGE)):
        with pytest.raises(ConfigError, match=r"pip install 'lakelens\[search\]'"):
            use()


@settings(
    max_examples=HISTORIES,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # a smaller history that fails as well takes minutes to find
    suppress_health_check=[HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_after_any_history_the_index_holds_the_rows_of_the_table(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = described(History(Path(folder) / "out"))
        history.run(ok="ab", failed="c")
        for at in range(0, len(steps), 2):
            refreshed(history.path, exact_rows=4)
            play(history, steps[at : at + 2])
        refreshed(history.path, exact_rows=4)
        index = index_of(history.path)
        assert rows_in(index) == rows_of(history)
        assert index.version == history.version
        for id_, (_, run) in history.rows.items():
            near = index.nearest(np.array(vector(id_, run), np.float32), 1)
            assert near["image_id"].to_pylist() == [id_]
