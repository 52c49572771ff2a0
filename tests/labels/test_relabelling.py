"""Labels of a head: one for each ok row of the version that they name, whatever happened to the table."""

import json
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings, strategies as st

from pipeline.errors import ConfigError, HeadError, TableError
from pipeline.labels import head as heads, scoring
from pipeline.labels.head import Head
from pipeline.labels.label_files import Labeller
from pipeline.labels.relabelling import Relabelled, relabel
from pipeline.output.label_table import LabelTable
from tests.labels.conftest import head
from tests.output.test_changes import STEPS, Step, play
from tests.support.histories import DIM, History, vector
from tests.support.making import STORAGE

HISTORIES = 100 if "LAKELENS_EVERY_STEP" in os.environ else 4


def relabelled(history: History, folder: str, **options: Any) -> Relabelled:
    return relabel(str(history.path), folder, STORAGE, **options)


def labels(history: History, name: str = "species") -> dict[str, dict[str, Any]]:
    """What any Delta reader sees, by image_id."""
    rows = DeltaTable(str(history.path / "labels" / name)).to_pyarrow_table().to_pylist()
    assert len({row["image_id"] for row in rows}) == len(rows)
    return {row["image_id"]: row for row in rows}


def expected(one: Head, image_id: str, run_id: str) -> tuple[str, float]:
    """The best label and its score, computed in float64."""
    raw = np.array(vector(image_id, run_id)) * 2.0  # `histories` gives every row the norm 2
    logits = raw @ one.weight.astype(float).T + one.bias
    powers = np.exp(logits - logits.max())
    return one.labels[int(logits.argmax())], float(powers.max() / powers.sum())


def assert_complete(history: History, one: Head) -> None:
    """Every ok row has the label that the head gives to its vector, and no other row has one."""
    found = labels(history)
    assert {id_: row["dataset"] for id_, row in found.items()} == {
        id_: row[0] for id_, row in history.rows.items()
    }
    for image_id, (_, run_id) in history.rows.items():
        label, score = expected(one, image_id, run_id)
        row = found[image_id]
        assert (row["label"], row["head"]) == (label, one.sha256)
        assert row["score"] == pytest.approx(score, abs=1e-5)
        assert [top["label"] for top in row["labels"]][0:1] == [label]
        assert len(row["labels"]) == 3


def test_every_ok_row_gets_the_label_that_the_head_gives_to_its_vector(history: History, saved: str) -> None:
    found = relabelled(history, saved)
    assert (found.name, found.version, found.rows, found.computed) == ("species", history.version, 12, 12)
    assert_complete(history, head())


def test_a_second_relabelling_computes_and_commits_nothing(history: History, saved: str) -> None:
    relabelled(history, saved)
    before = DeltaTable(str(history.path / "labels" / "species")).version()
    assert relabelled(history, saved).computed == 0
    assert DeltaTable(str(history.path / "labels" / "species")).version() == before


def test_only_new_and_changed_rows_are_computed_and_rows_that_fail_now_lose_their_label(
    history: History, saved: str
) -> None:
    relabelled(history, saved)
    history.run(ok="an", failed="b")
    found = relabelled(history, saved)
    assert (found.rows, found.computed) == (12, 2)
    assert_complete(history, head())


def test_a_compaction_computes_nothing_again(history: History, saved: str) -> None:
    history.run(ok="mn")
    relabelled(history, saved)
    history.compact()
    assert relabelled(history, saved).computed == 0
    assert_complete(history, head())


def test_after_a_vacuum_of_what_it_needs_everything_is_computed_again(history: History, saved: str) -> None:
    relabelled(history, saved)
    history.run(failed="a")
    history.vacuum()
    assert relabelled(history, saved).computed == 5  # the other rows of the rewritten file
    assert_complete(history, head())


def test_another_head_of_the_same_name_labels_everything_again(history: History, saved: str) -> None:
    relabelled(history, saved)
    heads.save(head(seed=1), saved, STORAGE)
    assert relabelled(history, saved).computed == 12
    assert_complete(history, head(seed=1))


def test_a_condition_labels_its_rows_again_and_leaves_the_others_untouched(history: History, saved: str) -> None:
    relabelled(history, saved)
    before = labels(history)
    heads.save(head(seed=1), saved, STORAGE)
    found = relabelled(history, saved, where="image_id <= 'c'")
    after = labels(history)
    assert (found.rows, found.computed, found.unlabelled) == (12, 3, 0)
    assert {id_ for id_, row in after.items() if row["head"] == head(seed=1).sha256} == set("abc")
    assert {id_: after[id_] for id_ in "defghijkl"} == {id_: before[id_] for id_ in "defghijkl"}
    assert relabelled(history, saved).computed == 12
    assert_complete(history, head(seed=1))


def test_rows_that_never_met_a_condition_are_counted(history: History, saved: str) -> None:
    found = relabelled(history, saved, where="image_id <= 'c'")
    assert (found.rows, found.unlabelled) == (3, 9)


def test_one_dataset_is_brought_up_to_date_without_the_others(history: History, saved: str) -> None:
    relabelled(history, saved)
    history.run(ok="n")
    history.run(ok="m", dataset="map")
    relabelled(history, saved, datasets=["map"])
    assert labels(history).keys() == history.rows.keys() - {"n"}
    assert relabelled(history, saved).computed == 1
    assert_complete(history, head())


def test_a_relabelling_that_died_before_its_commit_loses_nothing_but_the_commit(
    history: History, saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(LabelTable, "commit", dies)
        with pytest.raises(KeyboardInterrupt):
            relabelled(history, saved)
    assert labels(history) == {}
    assert relabelled(history, saved).computed == 0
    assert_complete(history, head())


def test_two_relabellings_at_once_give_the_labels_once(history: History, saved: str) -> None:
    done = list[Relabelled]()
    threads = [threading.Thread(target=lambda: done.append(relabelled(history, saved))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.rows for one in done] == [12] * 3
    assert_complete(history, head())


def test_a_relabelling_plans_again_if_another_one_commits_first(
    history: History, saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, others = Labeller.write, [2]

    def overtaken(self: Labeller, task: Any) -> Any:
        if others[0]:
            others[0] -= 1
            history.run(ok=[f"n{others[0]}"])
            relabelled(history, saved)
        return write(self, task)

    monkeypatch.setattr(Labeller, "write", overtaken)
    assert relabelled(history, saved).rows == 14
    assert_complete(history, head())


def test_a_head_of_another_space_is_refused_and_both_fingerprints_are_named(history: History, saved: str) -> None:
    heads.save(head(fingerprint="bad"), saved, STORAGE)
    with pytest.raises(HeadError, match=r"bad.*f00"):
        relabelled(history, saved)


def test_a_condition_that_is_not_sql_and_an_unknown_dataset_are_refused(history: History, saved: str) -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        relabelled(history, saved, where="nonsense = 1")
    with pytest.raises(TableError, match="sea"):
        relabelled(history, saved, datasets=["sea"])


def test_an_output_that_was_made_again_gets_labels_of_its_own_rows(
    history: History, saved: str, tmp_path: Path
) -> None:
    relabelled(history, saved)
    other = History(tmp_path / "other")
    other.run(ok="ab")
    other.path.joinpath("space.json").write_text(json.dumps({"format": 2, "fingerprint": "f00", "dim": DIM}))
    (history.path / "labels").rename(other.path / "labels")
    assert relabelled(other, saved).computed == 2
    assert_complete(other, head())


@settings(max_examples=HISTORIES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, between=st.integers(0, 7))
def test_after_any_history_each_ok_row_has_one_label(steps: list[Step], between: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history, saved = History(Path(folder) / "out"), f"{folder}/species"
        heads.save(head(), saved, STORAGE)
        history.run(ok="ab")
        (history.path / "space.json").write_text(json.dumps({"format": 2, "fingerprint": "f00", "dim": DIM}))
        play(history, steps[:between])
        relabelled(history, saved)
        play(history, steps[between:])
        relabelled(history, saved)
        assert_complete(history, head())


def test_scores_of_a_sigmoid_head_are_independent_and_sorted() -> None:
    one = head(kind="sigmoid", input="normalised", scale=3.0)
    vectors = np.random.default_rng(0).normal(size=(5, DIM)).astype(np.float32)
    found = scoring.score(one, vectors, np.ones(5, np.float32), 2)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    true = 1 / (1 + np.exp(-(3 * unit @ one.weight.T + one.bias)))
    np.testing.assert_allclose(found.scores, -np.sort(-true, axis=1)[:, :2], atol=1e-6)
    assert found.indices.shape == (5, 2)


def test_a_zero_vector_gets_the_label_of_the_bias() -> None:
    one = head(input="normalised")
    found = scoring.score(one, np.zeros((1, DIM), np.float32), np.zeros(1, np.float32), 1)
    assert found.indices[0, 0] == one.bias.argmax()


def test_label_columns_have_the_types_of_the_predictions() -> None:
    found = scoring.columns(
        scoring.score(head(), np.ones((2, DIM), np.float32), np.ones(2, np.float32), 9), pa.array("abc")
    )
    assert [len(top) for top in found["labels"].to_pylist()] == [3, 3]
