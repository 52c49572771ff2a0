"""Heads learned from labels, measured on images that they have not seen."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import HeadError
from pipeline.labels import comparing, fitting, head as heads, measuring, scoring, truth as truths
from pipeline.labels.truth import Examples
from pipeline.output.space import SpaceDescription
from tests.labels.conftest import head
from tests.support.histories import DIM, History
from tests.support.making import STORAGE

SPACE = SpaceDescription(fingerprint="f00", model="m", dim=DIM)


def clustered(counts: dict[str, int], *, spread: float = 0.3, offset: float = 0.0, seed: int = 0) -> Examples:
    """Images around one centre for each class, with vectors of very different scales in each dimension."""
    rng, names = np.random.default_rng(seed), tuple(sorted(counts))
    centres, scales = rng.normal(size=(len(names), DIM)), 10.0 ** rng.integers(-3, 3, DIM)
    classes = np.repeat(np.arange(len(names)), [counts[name] for name in names])
    vectors = (centres[classes] + spread * rng.normal(size=(len(classes), DIM))) * scales + offset
    targets = np.eye(len(names), dtype=np.bool_)[classes]
    ids = tuple(f"{row}" for row in range(len(classes)))
    return Examples(names, ids, vectors.astype(np.float32), np.ones(len(ids), np.float32), targets, absent=0)


def test_a_head_learns_classes_whatever_the_scales_of_the_dimensions() -> None:
    made = fitting.fit(clustered({"cat": 60, "dog": 60, "owl": 60}), SPACE, version=3)
    assert made.description.measured is not None
    assert made.description.measured.accuracy > 0.95
    assert made.description.measured.images == 36
    assert made.description.made.model_dump()["version"] == 3
    fresh = clustered({"cat": 200, "dog": 200, "owl": 200}, seed=0)
    assert measuring.measure(made, fresh).accuracy > 0.95


def test_two_classes_give_one_of_two_labels() -> None:
    made = fitting.fit(clustered({"no": 40, "yes": 40}), SPACE, version=0)
    assert made.weight.shape == (2, DIM)
    assert made.description.measured is not None
    assert made.description.measured.accuracy > 0.95


def test_a_rare_class_counts_as_much_as_a_frequent_one() -> None:
    made = fitting.fit(clustered({"common": 400, "rare": 10}, spread=0.8), SPACE, version=0)
    assert made.description.measured is not None
    recall = {one.label: one.recall for one in made.description.measured.classes}
    assert (recall["rare"] or 0) >= 0.5


def test_several_labels_an_image_make_a_head_that_scores_each_by_itself() -> None:
    images = clustered({"cat": 60, "dog": 60, "owl": 60})
    targets = np.column_stack([images.targets, images.targets[:, 0] | images.targets[:, 1]])
    both = Examples((*images.names, "mammal"), images.image_ids, images.vectors, images.norms, targets, absent=0)
    made = fitting.fit(both, SPACE, version=0)
    assert made.description.kind == "sigmoid"
    assert made.description.measured is not None
    assert made.description.measured.accuracy > 0.95
    assert made.description.measured.confusions == ()


def test_the_images_that_measure_a_head_are_none_that_it_has_seen() -> None:
    images = clustered({"cat": 60, "dog": 60})
    noise = np.random.default_rng(1).permutation(images.targets)  # labels that say nothing about the vectors
    random = Examples(images.names, images.image_ids, images.vectors, images.norms, noise, absent=0)
    made = fitting.fit(random, SPACE, version=0)
    assert made.description.measured is not None
    assert made.description.measured.images == 24
    assert made.description.made.model_dump()["images"] == 96
    assert made.description.measured.accuracy < 0.8


@pytest.mark.parametrize(
    ("counts", "problem"), [({"cat": 9}, "one label only, 'cat'"), ({"cat": 9, "dog": 2}, "'dog' has 2 images")]
)
def test_too_few_classes_or_images_are_one_sentence(counts: dict[str, int], problem: str) -> None:
    with pytest.raises(HeadError, match=problem):
        fitting.fit(clustered(counts), SPACE, version=0)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_labels_of_images_that_are_not_in_the_output_are_counted(
    history: History, tmp_path: Path, ending: str
) -> None:
    rows = {"image_id": ["a", "b", "b", "x", "nowhere", "c"], "label": ["cat", "dog", "owl", "cat", "cat", ""]}
    path = tmp_path / f"truth.{ending}"
    if ending == "csv":
        path.write_text(
            "\n".join(map(",".join, zip(*([name, *values] for name, values in rows.items()), strict=True)))
        )
    else:
        pq.write_table(pa.table(rows), path)
    truth = truths.read(str(path), STORAGE)
    found = truths.examples(truth, history.reader())
    assert (truth.unlabelled, found.absent, found.image_ids) == (1, 2, ("a", "b"))  # x has failed
    assert found.targets.tolist() == [[True, False, False], [False, True, True]]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image_id,class\na,cat\n", "no column 'label'"),
        ("image_id,label\nnowhere,cat\n", "such as 'nowhere'"),
        ("image_id,label\n,\n", "no row with"),
        ("image_id,label\na\n", "not a Parquet or CSV"),
    ],
)
def test_a_truth_that_cannot_be_used_is_one_sentence(
    history: History, tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "truth.csv"
    path.write_text(text)
    with pytest.raises(HeadError, match=problem):
        truths.examples(truths.read(str(path), STORAGE), history.reader())


def test_a_label_that_the_head_lacks_is_named(history: History, tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("image_id,label\na,cat\nb,bat\n")
    with pytest.raises(HeadError, match="'bat'"):
        truths.examples(truths.read(str(path), STORAGE), history.reader(), ["cat", "dog"])


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_saved_head_is_the_same_head(tmp_path: Path, order: Literal["C", "F"]) -> None:
    one, folder = head(kind="sigmoid", scale=2.5), str(tmp_path / "birds")
    one = replace(one, weight=one.weight.copy(order=order))
    heads.save(one, folder, STORAGE)
    again = heads.load(folder, STORAGE)
    assert again.sha256 == one.sha256
    assert again.description == one.description
    np.testing.assert_array_equal(again.weight, one.weight)
    assert heads.name_of(folder) == "birds"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"labels": ("cat", "dog")}, "2 labels, but weights of shape"),
        ({"labels": ("cat", "dog", "cat")}, "'cat' twice"),
        ({"labels": ()}, "no labels"),
    ],
)
def test_a_head_whose_parts_do_not_fit_is_refused(change: dict[str, object], problem: str) -> None:
    good = head()
    with pytest.raises(HeadError, match=problem):
        heads.Head(good.description.model_copy(update=change), good.weight, good.bias)


def test_weights_that_are_not_finite_are_refused() -> None:
    good = head()
    bad = good.weight.copy()
    bad[0, 0] = np.nan
    with pytest.raises(HeadError, match="not finite"):
        heads.Head(good.description, bad, good.bias)


def test_a_folder_without_a_head_a_damaged_one_and_a_newer_one_are_named(tmp_path: Path, saved: str) -> None:
    with pytest.raises(HeadError, match="no head at"):
        heads.load(str(tmp_path / "nothing"), STORAGE)
    description = Path(saved, "head.json").read_text()
    Path(saved, "head.json").write_text(description.replace('"format": 1', '"format": 2'))
    with pytest.raises(HeadError, match="Upgrade"):
        heads.load(saved, STORAGE)
    Path(saved, "head.json").write_text(description)
    Path(saved, "head.safetensors").write_bytes(b"nonsense")
    with pytest.raises(HeadError, match="damaged"):
        heads.load(saved, STORAGE)


@pytest.mark.parametrize("name", ["", "..", "a b", "a'b", ".hidden"])
def test_a_name_that_cannot_be_a_folder_everywhere_is_refused(name: str) -> None:
    with pytest.raises(HeadError, match="--name"):
        heads.require_name(name)


def test_two_heads_are_compared_on_the_rows_where_they_differ(history: History) -> None:
    first, second = head(), head(seed=1)
    found = comparing.compare(history.reader(), first, second, sample=100)
    rows = history.reader().only(outcome="ok").to_arrow(["embedding", "embedding_norm"])
    best = [scoring.score(one, *scoring.vectors_of(rows), 1).indices[:, 0] for one in (first, second)]
    assert (found.rows, found.different) == (12, int((best[0] != best[1]).sum()))
    assert sum(change.images for change in found.changes) == found.different
    margins = found.table["margin"].to_pylist()
    assert margins == sorted(margins)
