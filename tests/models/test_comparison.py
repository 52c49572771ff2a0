"""Two sets of labels and vectors are compared, dataset by dataset."""

import numpy as np
import pytest

from pipeline.models.comparison import Agreement, Limits, ModelOutputs, compare, concatenate


def outputs(indices: list[list[int]], embeddings: list[list[float]]) -> ModelOutputs:
    return ModelOutputs(np.array(indices, np.int32), np.array(embeddings, np.float32))


def test_each_dataset_is_compared_and_last_all_images() -> None:
    found = outputs([[1, 2], [3, 4], [5, 6]], [[1, 0], [0, 2], [1, 1]])
    truth = outputs([[1, 2], [4, 3], [7, 8]], [[9, 0], [0, 1], [1, 0]])
    wanted = {
        "a": (2, 0.853553, 0.707107, 0, 0.5),
        "b": (1, 1, 1, 1, 1),
        None: (3, 0.902369, 0.707107, 1 / 3, 2 / 3),
    }
    agreements = compare(["b", "a", "a"], found, truth)
    assert [one.dataset for one in agreements] == list(wanted)
    for one in agreements:
        figures = (one.images, one.cosine_mean, one.cosine_min, one.top1, one.top5)
        assert figures == pytest.approx(wanted[one.dataset], abs=1e-6)


def test_only_labels_that_both_sets_have_are_compared() -> None:
    one = compare(["a"], outputs([[1, 2, 3]], [[1.0]]), outputs([[2, 1, 0, 9, 8]], [[1.0]]))[0]
    assert (one.top1, one.top5) == (0.0, pytest.approx(2 / 3))


def test_a_vector_of_zeros_has_a_cosine_of_zero() -> None:
    assert compare(["a"], outputs([[1]], [[0.0, 0.0]]), outputs([[1]], [[1.0, 0.0]]))[0].cosine_mean == 0.0


def test_values_below_their_limits_are_named() -> None:
    fine = Agreement("a", 9, 0.999, 0.9, 0.95, 0.9)
    assert Limits().shortfall(fine) is None
    assert Limits(cosine_mean=0.9995).shortfall(fine) == "mean cosine 0.9990 < 0.9995"
    both = Limits(1, 1).shortfall(fine)
    assert both == "mean cosine 0.9990 < 1 and top-1 agreement 0.9500 < 1"
    assert Limits().shortfall(Agreement("a", 9, float("nan"), 0, 1, 1)) == "mean cosine nan < 0.997"


def test_batches_are_joined_in_order() -> None:
    both = concatenate([outputs([[1]], [[1.0]]), outputs([[2], [3]], [[2.0], [3.0]])])
    assert (both.indices.tolist(), both.embeddings.tolist()) == ([[1], [2], [3]], [[1.0], [2.0], [3.0]])
