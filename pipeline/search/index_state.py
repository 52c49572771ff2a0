"""What a version of the index tells about itself. It does not know how the index is made.

Lance keeps it in the transaction that made the version, so it becomes visible together with the rows.
"""

from pydantic import ValidationError

from pipeline.output.documents import Document

FORMAT = 1
"""The newest format of an index that this version knows. An index of another format is built anew."""


class IndexState(Document):
    """The rows of one version of the index, and how they are searched.

    `table_id`, `fingerprint` and `version` name the predictions that the rows are of. `columns` are those of the
    rows, without the embedding.

    `trained` is the number of rows at the last training of the ANN index; 0 without one. `model` has the rotation
    that all its segments share. `base` is the highest number of a fragment when all indexes were made anew;
    segments of later fragments are deltas.

    `recall`, of `measured` queries, holds for `nprobes` partitions and `refine` × k candidates a query.

    `follows` is the version that has the same rows; None for a version that changes rows.
    """

    format: int = FORMAT
    table_id: str
    fingerprint: str
    version: int
    columns: tuple[str, ...]
    trained: int = 0
    model: str | None = None
    base: int | None = None
    nprobes: int = 0
    refine: int = 0
    recall: float = 1.0
    measured: int = 0
    follows: int | None = None

    @property
    def approximate(self) -> bool:
        """Whether searches use an ANN index."""
        return self.trained > 0

    def holds_at(self, version: int) -> bool:
        """Tell whether the state describes a version of the index.

        It does not if another writer has changed rows between this state's rows and its version.
        """
        return self.follows in (None, version - 1)


def parsed_state(text: str) -> IndexState | None:
    """Parse what a transaction holds. Return None for a text that this version cannot read."""
    try:
        state = IndexState.model_validate_json(text)
    except ValidationError:
        return None
    return state if state.format == FORMAT else None
