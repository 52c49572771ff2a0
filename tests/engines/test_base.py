"""The top k of the logits."""

import numpy as np

from pipeline.engines.base import top_k


def test_top_k_breaks_ties_by_index_and_its_scores_are_a_softmax() -> None:
    indices, scores = top_k(np.array([[1.0, 3.0, 3.0, -1000.0], [1000.0, 0.0, 0.0, 0.0]]), 3)
    assert indices.tolist() == [[1, 2, 0], [0, 1, 2]]
    assert np.allclose(scores[0], np.exp([3, 3, 1]) / np.exp([3, 3, 1]).sum())
    assert scores[1].tolist() == [1.0, 0.0, 0.0]
