"""A head learned from labels that people gave: logistic regression on the stored vectors, by scikit-learn."""

import warnings
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pipeline.errors import HeadError
from pipeline.labels import measuring, scoring
from pipeline.labels.head import Head, HeadDescription, Input, Origin
from pipeline.labels.scoring import F32
from pipeline.labels.truth import Examples
from pipeline.output.space import SpaceDescription

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Inverse strengths of the L2 regularisation that are tried in this order, on standardised vectors, until the loss
rises. The best one lies in this range for some hundred to some ten thousand images of a few hundred dimensions."""
INPUTS: tuple[Input, ...] = ("raw", "normalised")
HELD_OUT = 0.2
"""The share of the images that measure the head, and the share of the rest that chooses the regularisation."""
SEARCH_ROWS = 20_000
"""Images that choose the regularisation, at most."""
FEWEST = 3
"""Images that a class needs: one to learn from, one to choose with, and one to measure on."""
STEPS = 500
"""Steps of the solver at most. It stops earlier once it converges."""


def fit(examples: Examples, space: SpaceDescription, *, version: int, seed: int = 0) -> Head:
    """Learn a head, choose its regularisation on a split, and measure it on images that it has not seen.

    Classes are weighted so that rare ones count as much as frequent ones. If every image has one label, the head
    gives one; otherwise it scores each label by itself. `version` is that of the predictions. Raises: HeadError if
    there are fewer than two classes, too few images of one, or no scikit-learn.
    """
    _require_enough(examples)
    single = bool((examples.targets.sum(axis=1) == 1).all())
    rest, unseen = _split(examples, seed)
    learning, choosing = _split(_sample(rest, seed), seed)
    _, strength, kind = min(_tried(learning, choosing, name, single) for name in INPUTS)
    weight, bias = _Learner(rest, kind, single).learned(strength)
    description = HeadDescription(
        labels=examples.names,
        kind="softmax" if single else "sigmoid",
        input=kind,
        fingerprint=space.fingerprint,
        model=space.model,
        made=Origin.model_validate(
            {
                "by": "fit",
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "version": version,
                "images": len(rest.image_ids),
                "absent": examples.absent,
                "strength": strength,
                "seed": seed,
            }
        ),
    )
    measured = measuring.measure(Head(description, weight, bias), unseen)
    return Head(description.model_copy(update={"measured": measured}), weight, bias)


def _require_enough(examples: Examples) -> None:
    if len(examples.names) < 2:
        raise HeadError(f"The truth has one label only, {examples.names[0]!r}; a head needs two or more.")
    counts = examples.targets.sum(axis=0)
    rare = int(np.argmin(counts))
    if counts[rare] < FEWEST:
        raise HeadError(
            f"The label {examples.names[rare]!r} has {counts[rare]} images in the output; a head needs {FEWEST} "
            "or more of each label. Add some, or leave the label out."
        )


def _split(examples: Examples, seed: int) -> tuple[Examples, Examples]:
    """Divide images at random, class by class: at least one image of every class comes to each side."""
    rng, held = np.random.default_rng(seed), np.zeros(len(examples.image_ids), np.bool_)
    for column in examples.targets.T[np.argsort(examples.targets.sum(axis=0), kind="stable")]:
        rows = rng.permutation(np.flatnonzero(column))
        missing = max(1, round(HELD_OUT * len(rows))) - int(held[rows].sum())
        held[[row for row in rows if not held[row]][: max(0, missing)]] = True
    return examples.part(np.flatnonzero(~held)), examples.part(np.flatnonzero(held))


def _sample(examples: Examples, seed: int) -> Examples:
    count = len(examples.image_ids)
    chosen = np.random.default_rng(seed).permutation(count)[:SEARCH_ROWS]
    return examples if count <= SEARCH_ROWS else examples.part(np.sort(chosen))


def _tried(learning: Examples, choosing: Examples, kind: Input, single: bool) -> tuple[float, float, Input]:
    """Return the least loss on `choosing`, the strength that gives it, and the kind of input."""
    learner, best = _Learner(learning, kind, single), (np.inf, STRENGTHS[0], kind)
    for strength in STRENGTHS:
        loss = _loss(learner.learned(strength), choosing, kind, single)
        if loss >= best[0]:
            break  # weaker regularisation takes longer, and would be worse still
        best = (loss, strength, kind)
    return best


class _Learner:
    """Learns from the same images at several strengths, each time from the weights of the one before."""

    def __init__(self, examples: Examples, kind: Input, single: bool) -> None:
        vectors = scoring.inputs(kind, examples.vectors, examples.norms).astype(np.float64)
        self._mean, self._spread = vectors.mean(axis=0), vectors.std(axis=0)
        self._spread[self._spread == 0] = 1
        self._scaled = (vectors - self._mean) / self._spread
        self._targets = [examples.targets.argmax(axis=1)] if single else list(examples.targets.T)
        self._models = [_logistic() for _ in self._targets]
        self._binary = single and len(examples.names) == 2

    def learned(self, strength: float) -> tuple[F32, F32]:
        """Return weights (C, D) and bias (C,) for vectors that are not standardised."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fit that has not converged is judged by its loss, like the others
            for model, targets in zip(self._models, self._targets, strict=True):
                model.set_params(C=strength).fit(self._scaled, targets)
        weight = np.vstack([model.coef_ for model in self._models])
        bias = np.concatenate([model.intercept_ for model in self._models])
        if self._binary:  # scikit-learn keeps one row for two classes
            weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        weight = weight / self._spread
        return weight.astype(np.float32), (bias - weight @ self._mean).astype(np.float32)


def _logistic() -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise HeadError("Fitting a head needs scikit-learn: pip install 'lakelens[heads]'.") from error
    return LogisticRegression(class_weight="balanced", max_iter=STEPS, warm_start=True)


def _loss(learned: tuple[F32, F32], examples: Examples, kind: Input, single: bool) -> float:
    """Return the mean log loss of all classes, each with the same weight."""
    weight, bias = learned
    logits = scoring.inputs(kind, examples.vectors, examples.norms) @ weight.T + bias
    scores = np.clip(scoring.probabilities("softmax" if single else "sigmoid", logits), 1e-7, 1 - 1e-7)
    if single:
        rows = -np.log(scores[examples.targets])
        classes = examples.targets.argmax(axis=1)
        return float(np.mean([rows[classes == at].mean() for at in np.unique(classes)]))
    return float(-np.where(examples.targets, np.log(scores), np.log(1 - scores)).mean())
