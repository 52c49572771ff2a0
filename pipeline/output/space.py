"""The embedding space of an output: one `space.json`, written once. An output never mixes spaces.

This module does not know how the description of a space is made.
"""

import json
from typing import Annotated, Any

from pydantic import Field

from pipeline.errors import SpaceError, StorageError
from pipeline.output.documents import Document, parsed
from pipeline.output.layout import Layout
from pipeline.storage.filesystems import Storage

FORMAT = 2
"""The newest format of an output that this version knows, and the format of new outputs.

    1   the default `image_id` of a byte range or of a data: URI is the uri, an id that is a floating-point
        number is its text, and letter case counts in the names of the columns for ids, datasets and versions
    2   the default `image_id` of a byte range is `<uri>#bytes=<first>-<last>`, that of a data: URI a hash, and an
        id that is a whole floating-point number is the integer's text

An output keeps the format that it was created with.
"""


class SpaceDescription(Document):
    """The content of `space.json`. The fingerprint covers everything that changes the vectors.

    `format` is 1 where the file does not have it. `dim` is the length of an embedding. `labels` are the names of
    the classes, by index; a model without a head has none. `text` describes the model's text encoder, if it has
    one.
    """

    format: Annotated[int, Field(strict=True, ge=1)] = 1
    fingerprint: Annotated[str, Field(strict=True)]
    model: str | None = None
    revision: str | None = None
    pooling: str | None = None
    dim: int | None = None
    labels: tuple[str, ...] | None = None
    text: dict[str, Any] | None = None

    @property
    def named(self) -> str:
        """The space in words, for messages."""
        return f"{self.model} ({self.fingerprint}, pooling {self.pooling})"


def location(path: str, slug: str, description: dict[str, Any]) -> str:
    """Return `output.path` with `{space}` replaced by `<model-slug>-<fingerprint>`."""
    return path.replace("{space}", f"{slug}-{description['fingerprint']}")


def read(output: str, storage: Storage) -> SpaceDescription | None:
    """Read the description of an output's space. Return None if there is no output yet.

    Raises: SpaceError, also for a format that this version does not know; StorageError.
    """
    uri = Layout(output).space
    found = storage.read(uri)
    return None if found is None else _parsed(found, uri)


def check(output: str, description: dict[str, Any], storage: Storage) -> SpaceDescription | None:
    """Read the description of an output's space, and check that it is this one. Return None if there is none yet.

    Raises: SpaceError if it is another space; the message names both.
    """
    held = read(output, storage)
    if held is None:
        return None
    mine = SpaceDescription.model_validate(description)
    if held.fingerprint != mine.fingerprint:
        raise SpaceError(
            f"{output} holds the embedding space of {held.named}, but this run would write that of {mine.named}. "
            "Choose another output.path, or put {space} into it."
        )
    if held.labels != mine.labels:
        raise SpaceError(
            f"{output} holds labels of {held.named}, but their names differ from the id2label of this model. "
            "Choose another output.path."
        )
    return held


def claim(output: str, description: dict[str, Any], storage: Storage) -> SpaceDescription:
    """Write the description in the newest format, unless the output has this space already.

    Raises: SpaceError, StorageError.
    """
    document = {"format": FORMAT, **description}
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    created = storage.create(Layout(output).space, text.encode())
    held = None if created else check(output, description, storage)
    return held or SpaceDescription.model_validate(document)


def _parsed(data: bytes, uri: str) -> SpaceDescription:
    _require_known_format(data, uri)
    try:
        return parsed(SpaceDescription, data, uri)
    except StorageError as error:
        raise SpaceError(f"{uri} does not describe an embedding space.") from error


def _require_known_format(data: bytes, uri: str) -> None:
    """Refuse a newer format, whatever the rest of the document looks like. Raises: SpaceError."""
    try:
        newer = json.loads(data)["format"]
    except (ValueError, LookupError, TypeError):
        return
    if isinstance(newer, int) and newer > FORMAT:
        raise SpaceError(
            f"{uri} has format {newer}, but this LakeLens knows formats up to {FORMAT} only. Upgrade LakeLens."
        )
