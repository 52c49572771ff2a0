"""The embedding space of an output: one `space.json`, written once, never mixed.

It does not know how a space's description is made.
"""

import json
from typing import Any

from pipeline.errors import SpaceError
from pipeline.storage import Storage, join

FILE = "space.json"


def location(path: str, slug: str, description: dict[str, Any]) -> str:
    """`output.path` with `{space}` filled in as `<model-slug>-<fingerprint>`."""
    return path.replace("{space}", f"{slug}-{description['fingerprint']}")


def read(output: str, storage: Storage) -> dict[str, Any] | None:
    """The description of the space that an output holds; None if it holds none. Raises: SpaceError."""
    found = storage.read(join(output, FILE))
    return None if found is None else _parse(found, output)


def check(output: str, description: dict[str, Any], storage: Storage) -> bool:
    """Whether the output already holds this space; False if it holds none yet.

    Raises: SpaceError, naming both, if it holds another one.
    """
    held = read(output, storage)
    if held is None:
        return False
    if held["fingerprint"] != description["fingerprint"]:
        raise SpaceError(
            f"{output} holds the embedding space of {_named(held)}, and this run would write that of "
            f"{_named(description)}; choose another output.path, or put {{space}} into it."
        )
    if held.get("labels") != description["labels"]:
        raise SpaceError(
            f"{output} holds labels of {_named(held)} under other names than this model's id2label gives them; "
            "choose another output.path."
        )
    return True


def claim(output: str, description: dict[str, Any], storage: Storage) -> None:
    """Make the output this space, or find that it is. Raises: SpaceError."""
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    if not storage.create(join(output, FILE), text.encode()):
        check(output, description, storage)


def _parse(data: bytes, output: str) -> dict[str, Any]:
    try:
        held = json.loads(data)
        if isinstance(held["fingerprint"], str):
            return dict(held)
    except (ValueError, KeyError, TypeError):
        pass
    raise SpaceError(f"{join(output, FILE)} is not a description of an embedding space.")


def _named(description: dict[str, Any]) -> str:
    return f"{description.get('model')} ({description['fingerprint']}, pooling {description.get('pooling')})"
