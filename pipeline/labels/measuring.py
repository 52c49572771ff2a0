"""How right a head is on images whose labels people gave. Pure."""

from collections import Counter

import numpy as np

from pipeline.labels import scoring
from pipeline.labels.head import ClassMeasure, Confusion, Head, Measure
from pipeline.labels.truth import Examples

THRESHOLD = 0.5
"""The score from which a sigmoid head says yes."""
CONFUSIONS = 10
"""The confusions that are kept, the most frequent first."""


def measure(head: Head, examples: Examples) -> Measure:
    """Compare a head's labels with the truth. `examples` have the classes of the head, in their order."""
    logits = scoring.logits(head, examples.vectors, examples.norms)
    if head.description.kind == "softmax":
        given = np.zeros_like(examples.targets)
        given[np.arange(len(given)), logits.argmax(axis=1)] = True
        right = (given & examples.targets).any(axis=1).mean()
    else:
        given = scoring.probabilities("sigmoid", logits) >= THRESHOLD
        right = (given == examples.targets).mean()
    return Measure(
        images=len(given),
        accuracy=float(right),
        classes=tuple(_of_class(examples, given, at) for at in range(len(examples.names))),
        confusions=_confusions(examples, given) if head.description.kind == "softmax" else (),
    )


def _of_class(examples: Examples, given: np.ndarray, at: int) -> ClassMeasure:
    hits = int((given[:, at] & examples.targets[:, at]).sum())
    said, true = int(given[:, at].sum()), int(examples.targets[:, at].sum())
    return ClassMeasure(
        label=examples.names[at],
        images=true,
        precision=hits / said if said else None,
        recall=hits / true if true else None,
    )


def _confusions(examples: Examples, given: np.ndarray) -> tuple[Confusion, ...]:
    pairs = Counter(
        (int(truth.argmax()), int(said.argmax()))
        for truth, said in zip(examples.targets, given, strict=True)
        if not (truth & said).any()
    )
    return tuple(
        Confusion(truth=examples.names[truth], given=examples.names[said], images=images)
        for (truth, said), images in pairs.most_common(CONFUSIONS)
    )
