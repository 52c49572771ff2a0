"""A head learned from labels that people gave: logistic regression on the stored vectors, by scikit-learn."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pipeline.errors import HeadError
from pipeline.labels import measuring, scoring
from pipeline.labels.head import Head, HeadDescription, Input, Origin
from pipeline.labels.scoring import F32
from pipeline.labels.truth import Examples
from pipeline.output.space import SpaceDescription

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Inverse strengths of the L2 regularisation that are tried, on standardised vectors: those that are best for some
hundred to some ten thousand images of a few hundred dimensions."""
INPUTS: tuple[Input, ...] = ("raw", "normalised")
HELD_OUT = 0.2
"""The share of the images that measure the head, and the share of the rest that chooses the regularisation."""
SEARCH_ROWS = 20_000
"""Images that choose the regularisation, at most."""
FEWEST = 3
"""Images that a class needs: one to learn from, one to choose with, and one to measure on."""
STEPS = 2_000
"""Steps of the solver at most. It stops earlier once it converges."""


@dataclass(frozen=True)
class _Setting:
    input: Input
    strength: float


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
    settings = [_Setting(name, strength) for name in INPUTS for strength in STRENGTHS]
    losses = [_loss(_learned(learning, setting, single), choosing, setting, single) for setting in settings]
    best = settings[int(np.argmin(losses))]
    weight, bias = _learned(rest, best, single)
    description = HeadDescription(
        labels=examples.names,
        kind="softmax" if single else "sigmoid",
        input=best.input,
        fingerprint=space.fingerprint,
        model=space.model,
        made=Origin.model_validate(
            {
                "by": "fit",
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "version": version,
                "images": len(rest.image_ids),
                "absent": examples.absent,
                "strength": best.strength,
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


def _learned(examples: Examples, setting: _Setting, single: bool) -> tuple[F32, F32]:
    """Return weights (C, D) and bias (C,) for vectors that are not standardised."""
    vectors = scoring.inputs(setting.input, examples.vectors, examples.norms).astype(np.float64)
    mean, spread = vectors.mean(axis=0), vectors.std(axis=0)
    spread[spread == 0] = 1
    scaled = (vectors - mean) / spread
    if single:
        found = _logistic(setting).fit(scaled, examples.targets.argmax(axis=1))
        weight, bias = found.coef_, found.intercept_
        if len(examples.names) == 2:  # scikit-learn keeps one row for two classes
            weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    else:
        each = [_logistic(setting).fit(scaled, column) for column in examples.targets.T]
        weight, bias = np.vstack([one.coef_ for one in each]), np.concatenate([one.intercept_ for one in each])
    weight = weight / spread
    return weight.astype(np.float32), (bias - weight @ mean).astype(np.float32)


def _logistic(setting: _Setting) -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise HeadError("Fitting a head needs scikit-learn: pip install 'lakelens[heads]'.") from error
    return LogisticRegression(C=setting.strength, class_weight="balanced", max_iter=STEPS)


def _loss(learned: tuple[F32, F32], examples: Examples, setting: _Setting, single: bool) -> float:
    """Return the mean log loss of all classes, each with the same weight."""
    weight, bias = learned
    logits = scoring.inputs(setting.input, examples.vectors, examples.norms) @ weight.T + bias
    scores = np.clip(scoring.probabilities("softmax" if single else "sigmoid", logits), 1e-7, 1 - 1e-7)
    if single:
        rows = -np.log(scores[examples.targets])
        classes = examples.targets.argmax(axis=1)
        return float(np.mean([rows[classes == at].mean() for at in np.unique(classes)]))
    return float(-np.where(examples.targets, np.log(scores), np.log(1 - scores)).mean())
