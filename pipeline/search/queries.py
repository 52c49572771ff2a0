"""Queries: an image, an id, a text or a vector -> a vector in the space of an output.

Only images and texts need the model. It is loaded once, at the first of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import schema
from pipeline.errors import QueryError
from pipeline.output.reader import PredictionsReader
from pipeline.output.space import SpaceDescription
from pipeline.search.images import ImageQueries
from pipeline.search.texts import TextQueries
from pipeline.search.vectors import checked
from pipeline.space_model import last_run
from pipeline.storage import sql
from pipeline.storage.uris import redacted

NEAR_IDS = 3
"""Ids that are named if a query's id does not exist."""


@dataclass(frozen=True)
class Query:
    """What is sought: `vector`, float32 (D,), and in words, as in "the image cat.jpg".

    `image` is the path or URI of the image, where there is one. `image_id` is a row of the output, which is not
    among its own hits.
    """

    vector: NDArray[np.float32]
    words: str
    image: str | None = None
    image_id: str | None = None


@dataclass(frozen=True)
class Queries:
    """Makes queries to one output, as of the version that its reader sees.

    `model` is where the model is now; by default where the newest run found it.
    """

    reader: PredictionsReader
    description: SpaceDescription
    model: str | None = None

    def only(
        self,
        image: str | None,
        image_id: str | None,
        text: str | None,
        vector: Sequence[float] | NDArray[Any] | None,
    ) -> Query:
        """Return the query for the one that is not None. Raises: QueryError if not exactly one is given."""
        given = [one for one in (image, image_id, text, vector) if one is not None]
        if len(given) != 1:
            raise QueryError(
                f"A search has exactly one query, an image, an id, a text or a vector; {len(given)} are given."
            )
        if image is not None:
            return self.image(image)
        if image_id is not None:
            return self.stored(image_id)
        if text is not None:
            return self.text(text)
        assert vector is not None
        return self.vector(vector)

    def image(self, image: str) -> Query:
        """Return the query for an image, given its path or URI. Raises: as `ImageQueries`."""
        named = f"the image {redacted(image)}"
        return Query(checked(self._images.encode([image])[0], self.dim, named), named, image=image)

    def stored(self, image_id: str) -> Query:
        """Return the query for the stored vector of a row. Raises: QueryError if there is no such ok row."""
        shown = redacted(image_id)  # it may be a signed URL
        columns = [schema.OUTCOME, "embedding", schema.URI, "stage", "error_code", "message"]
        wanted = pa.chunked_array([[image_id]], pa.string())
        found = [row for batch in self.reader.batches(columns, image_ids=wanted) for row in batch.to_pylist()]
        if not found:
            raise QueryError(f"{self.reader.output} has no image_id {shown!r}{self._hint(image_id)}")
        row = found[0]
        if row[schema.OUTCOME] != schema.OK:
            raise QueryError(
                f"The row {shown!r} has no vector: {row['stage']} failed with {row['error_code']}, "
                f"{row['message']}."
            )
        named = f"the image with the id {shown!r}"
        return Query(checked(row["embedding"], self.dim, named), named, row[schema.URI], image_id)

    def text(self, text: str) -> Query:
        """Return the query for a text. Raises: QueryError if it is blank; as `TextQueries`."""
        if not text.strip():
            raise QueryError("The text of a query is empty; write what the images should show.")
        return Query(checked(self.texts.encode([text])[0], self.dim, "the text"), f'the text "{text}"')

    def vector(self, values: Sequence[float] | NDArray[Any], named: str = "the vector") -> Query:
        """Return the query for a vector of the space. Raises: QueryError if it is none."""
        return Query(checked(values, self.dim, named), named)

    @property
    def dim(self) -> int:
        """The length of the vectors of the space."""
        return self.description.dim or self._stored_dim

    @cached_property
    def texts(self) -> TextQueries:
        """The text encoder of the space."""
        return TextQueries(self.reader.output, self.description, self._run_id, self.reader.storage, self.model)

    @cached_property
    def _images(self) -> ImageQueries:
        return ImageQueries(self.reader.output, self._run_id, self.reader.storage, self.model)

    @cached_property
    def _run_id(self) -> str:
        return last_run(self.reader)

    @cached_property
    def _stored_dim(self) -> int:
        batch = next(self.reader.only(outcome=schema.OK).batches(["embedding"], batch_rows=1))
        return len(batch["embedding"][0])

    def _hint(self, image_id: str) -> str:
        """Return the end of a sentence: ids that contain the one that does not exist."""
        near = f"contains(lower(image_id), {sql.literal(image_id.lower())})"
        batches = self.reader.batches([schema.IMAGE_ID], where=near)
        ids = islice(
            (repr(redacted(id_.as_py())) for batch in batches for id_ in batch[schema.IMAGE_ID]), NEAR_IDS
        )
        found = ", ".join(ids)
        return f"; did you mean {found}?" if found else "."
