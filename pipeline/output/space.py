"""The embedding space of an output: one `space.json`, written once, never mixed.

It does not know how a space's description is made.
"""

import json
from typing import Annotated, Any

from pydantic import Field

from pipeline.errors import SpaceError, StorageError
from pipeline.output.documents import Document, parsed
from pipeline.output.layout import Layout
from pipeline.storage.filesystems import Storage

FORMAT = 2
"""The newest format of an output that this version knows, and that of new ones.

    1   the default `image_id` of a byte range or of a data: URI is the uri, an id that is a floating-point
        number is its text, and letter case counts in the names of the columns for ids, datasets and versions
    2   the default `image_id` of a byte range is `<uri>#bytes=<first>-<last>`, that of a data: URI a hash, and an
        id that is a whole floating-point number is the integer's text

An output keeps the format that it was made with.
"""


class SpaceDescription(Document):
    """What `space.json` says; its fingerprint covers all that decides the vectors.

    `format` is 1 where it is not said; `dim` is the length of an embedding; `labels` are the names of the classes,
    by index.
    """

    format: Annotated[int, Field(strict=True, ge=1)] = 1
    fingerprint: Annotated[str, Field(strict=True)]
    model: str | None = None
    revision: str | None = None
    pooling: str | None = None
    dim: int | None = None
    labels: tuple[str, ...] | None = None

    @property
    def named(self) -> str:
        """For messages."""
        return f"{self.model} ({self.fingerprint}, pooling {self.pooling})"


def location(path: str, slug: str, description: dict[str, Any]) -> str:
    """`output.path` with `{space}` filled in as `<model-slug>-<fingerprint>`."""
    return path.replace("{space}", f"{slug}-{description['fingerprint']}")


def read(output: str, storage: Storage) -> SpaceDescription | None:
    """The space that an output holds; None if it holds none.

    Raises: SpaceError, also for a format that this version does not know; StorageError.
    """
    uri = Layout(output).space
    found = storage.read(uri)
    return None if found is None else _parsed(found, uri)


def check(output: str, description: dict[str, Any], storage: Storage) -> SpaceDescription | None:
    """The space that the output holds, if it is this one; None if it holds none yet.

    Raises: SpaceError, naming both, if it holds another one.
    """
    held = read(output, storage)
    if held is None:
        return None
    mine = SpaceDescription.model_validate(description)
    if held.fingerprint != mine.fingerprint:
        raise SpaceError(
            f"{output} holds the embedding space of {held.named}, and this run would write that of {mine.named}; "
            "choose another output.path, or put {space} into it."
        )
    if held.labels != mine.labels:
        raise SpaceError(
            f"{output} holds labels of {held.named} under other names than this model's id2label gives them; "
            "choose another output.path."
        )
    return held


def claim(output: str, description: dict[str, Any], storage: Storage) -> SpaceDescription:
    """Make the output this space, in the newest format, or find that it is. Raises: SpaceError, StorageError."""
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
        raise SpaceError(f"{uri} is not a description of an embedding space.") from error


def _require_known_format(data: bytes, uri: str) -> None:
    """Raises: SpaceError for a newer format, whatever else such a document holds."""
    try:
        newer = json.loads(data)["format"]
    except (ValueError, LookupError, TypeError):
        return
    if isinstance(newer, int) and newer > FORMAT:
        raise SpaceError(
            f"{uri} says format {newer}, and this LakeLens knows formats up to {FORMAT}; upgrade LakeLens."
        )
