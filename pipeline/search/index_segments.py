"""The indexes on the columns of the rows: what is missing, and how it is built. Rows are not changed here.

An index is made of segments, each for some fragments. Lance searches all of them, and compares the query with
every row of a fragment that none covers. All segments of the ANN index share one model: the centres of the
partitions, and the rotation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.search import index_lance
from pipeline.search.index_lance import Segment
from pipeline.search.index_rows import EMBEDDING
from pipeline.search.index_state import IndexState

EXACT_ROWS = 20_000
"""Below this number of rows there is no ANN index: comparing with 20,000 vectors of 768 dimensions takes 30 ms."""
PARTITION_ROWS = 2_000
"""Rows of a partition. Training takes time with the square of the number of partitions, and these are enough."""
MAX_PARTITIONS = 4_096
"""More would need more than 1 GB for the sample of 768-dimensional vectors that they are trained with."""
SAMPLE = 64
"""Vectors a partition in this sample."""
ITERATIONS = 20
BITS = 5
"""Bits a dimension. With 1, 5 k candidates have a recall of 0.77 (100,000 × 768); with 5, 2 k have 0.999."""
DELTAS = 8
"""Segments for new rows. A further one takes the place of all of them, because each is searched by itself."""
GROWTH = 2
"""The ANN index is trained anew once there are more than this many times the rows that it was trained with."""
SCALAR = {"image_id": "BTREE", "dataset": "BITMAP", "label": "BITMAP"}
"""Indexes for conditions, and for the ids that an update deletes."""


@dataclass(frozen=True)
class Plan:
    """Segments to build on a version, the segments that they replace, and the state afterwards."""

    segments: tuple[Segment, ...]
    replaced: tuple[Any, ...]
    state: IndexState


def plan(dataset: Any, state: IndexState, *, exact_rows: int, workers: int) -> Plan:
    """Return what the indexes of a version lack. If training is due, it happens here.

    `workers` build the segments. Raises: what Lance raises.
    """
    rows, fragments = dataset.count_rows(), sorted(one.fragment_id for one in dataset.get_fragments())
    due = rows >= exact_rows and rows > GROWTH * state.trained
    base = None if due else state.base
    if due:
        model = {"trained": rows, "model": _rotation(dataset), "nprobes": 0, "refine": 0}
        state = state.model_copy(update=model)
    if base is None:
        state = state.model_copy(update={"base": max(fragments, default=-1)})
    segments, replaced = list[Segment](), list[Any]()
    for column in [*SCALAR, *([EMBEDDING] if state.trained else [])]:
        present = index_lance.index_segments(dataset, column)
        missing, old = (fragments, present) if base is None else _missing(present, base, fragments)
        options = _options(dataset, state, due) if column == EMBEDDING and missing else {}
        kind = SCALAR.get(column) or _kind(dataset)
        segments += [Segment(column, kind, tuple(group), options) for group in _groups(missing, workers)]
        replaced += old
    return Plan(tuple(segments), tuple(replaced), state)


def _missing(present: Sequence[Any], base: int, fragments: Sequence[int]) -> tuple[Sequence[int], Sequence[Any]]:
    """Return the fragments that an index has to cover, and the segments that they replace."""
    covered = {number for one in present for number in one.fragment_ids}
    uncovered = [number for number in fragments if number not in covered]
    deltas = [one for one in present if min(one.fragment_ids, default=0) > base]
    if not uncovered or len(deltas) < DELTAS:
        return uncovered, []
    return [number for number in fragments if number > base], deltas


def _groups(fragments: Sequence[int], workers: int) -> list[Sequence[int]]:
    """Divide fragments among workers, without workers that have none."""
    return [fragments[at::workers] for at in range(min(workers, len(fragments)))]


def _kind(dataset: Any) -> str:
    """IVF_RQ takes dimensions that are a multiple of 8, as those of almost all models are."""
    return "IVF_FLAT" if _dim(dataset) % 8 else "IVF_RQ"


def _options(dataset: Any, state: IndexState, train: bool) -> dict[str, Any]:
    """Return the model of the ANN index: a new one, or that of the segments that are there."""
    if train:
        partitions = min(max(1, state.trained // PARTITION_ROWS), MAX_PARTITIONS)
        sample = min(SAMPLE, state.trained // partitions)
        centres = index_lance.trained_centroids(dataset, EMBEDDING, partitions, sample, ITERATIONS)
    else:
        centres = index_lance.centroids(dataset, EMBEDDING)
    model = {"rabitq_model": state.model, "num_bits": BITS} if state.model else {}
    return {"metric": "cosine", "num_partitions": len(centres), "ivf_centroids": centres, **model}


def _rotation(dataset: Any) -> str | None:
    return None if _dim(dataset) % 8 else index_lance.rotation(_dim(dataset), BITS)


def _dim(dataset: Any) -> int:
    return int(dataset.schema.field(EMBEDDING).type.list_size)
