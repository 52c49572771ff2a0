"""Which stores have a client that reads single objects faster than fsspec. A new one is registered here."""

from collections.abc import Callable
from typing import Protocol

from pipeline.config import StorageConfig
from pipeline.storage import uris
from pipeline.storage.s3_objects import Objects


class FastPath(Protocol):
    """Reads ranges of objects. Safe for threads."""

    def read(self, uri: str, start: int, end: int, otherwise: Callable[[], bytes]) -> bytes:
        """Return bytes `start` to `end` of an object, or to its end; what `otherwise` returns if the client cannot
        read this object. Raises what `error_codes.classify` knows."""


_CLIENTS: dict[str, Callable[[StorageConfig], FastPath]] = dict.fromkeys(uris.S3, Objects)
"""Clients by scheme. Schemes with the same client share one."""


class FastPaths:
    """The fast clients of one configuration. Opens nothing until an object is read."""

    def __init__(self, config: StorageConfig) -> None:
        opened = {client: client(config) for client in set(_CLIENTS.values())}
        self._of_scheme = {scheme: opened[client] for scheme, client in _CLIENTS.items()}

    def of(self, uri: str) -> FastPath | None:
        """Return the client for a URI; None if its store has no fast path."""
        return self._of_scheme.get(uris.scheme(uri))
