"""`export.json`: what an export holds, and the version to go on from. A folder without it is incomplete."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import ConfigError
from pipeline.export.request import Format, Importer, Request
from pipeline.output.documents import Document, parsed
from pipeline.output.reader import PredictionsReader
from pipeline.output.space import SpaceDescription
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import absolute, join, redacted

EXPORT = "export.json"
UPSERTS, DELETES = "upserts", "deletes"
"""The folders of an export of changes."""


class ExportedFile(Document):
    """A file of an export, by its path below the folder."""

    path: str
    rows: int


@dataclass
class Written:
    """What has been written: rows, and files with them."""

    rows: int = 0
    files: list[ExportedFile] = field(default_factory=list)

    def __iadd__(self, other: "Written") -> "Written":
        self.rows += other.rows
        self.files += other.files
        return self


class ExportSummary(Document):
    """The content of `export.json`.

    `version` is the version of the predictions table that was exported: the next export goes on from it. `since`
    is the version that this one goes on from; None if it has all rows. `rows` counts rows or upserts, `deletes`
    the ids to delete. `index` describes the index of an export to FAISS.
    """

    to: Format
    importer: Importer | None
    output: str
    table_id: str
    version: int
    since: int | None
    rows: int
    deletes: int
    columns: tuple[str, ...]
    where: str | None
    datasets: tuple[str, ...]
    outcome: str
    fingerprint: str
    model: str | None
    dim: int | None
    index: dict[str, Any] | None = None
    files: tuple[ExportedFile, ...]

    @classmethod
    def of(
        cls,
        reader: PredictionsReader,
        space: SpaceDescription,
        request: Request,
        columns: Sequence[str],
        since: int | None,
        rows: Written,
        deletes: Written,
        index: dict[str, Any] | None,
    ) -> "ExportSummary":
        """Describe an export whose files have been written."""
        return cls(
            to=request.to,
            importer=request.importer,
            output=reader.output,
            table_id=reader.table_id,
            version=reader.version,
            since=since,
            rows=rows.rows,
            deletes=deletes.rows,
            columns=tuple(columns),
            where=request.where,
            datasets=request.datasets,
            outcome=request.outcome,
            fingerprint=space.fingerprint,
            model=space.model,
            dim=space.dim,
            index=index,
            files=(*rows.files, *deletes.files),
        )

    def sentence(self, out: str) -> str:
        """Say what was written to the folder `out`."""
        what = (
            f"{self.rows:,} rows" if self.since is None else f"{self.rows:,} upserts and {self.deletes:,} deletes"
        )
        return (
            f"{what} in {len(self.files):,} files written to {redacted(out)}; continue with --since {self.version}"
        )


def earlier_version(folder: str, request: Request, reader: PredictionsReader, storage: Storage) -> int:
    """Return the version that an earlier export in `folder` holds, so that a new one can go on from it.

    Raises: ConfigError if that export did not finish, or holds other rows than the new one; StorageError.
    """
    uri = join(absolute(folder), EXPORT)
    data = storage.read(uri)
    if data is None:
        raise ConfigError(
            f"--since {redacted(folder)} has no {EXPORT}: it is no export, or one that did not finish."
        )
    held = parsed(ExportSummary, data, uri)
    asked = {"table_id": reader.table_id, "where": request.where, "outcome": request.outcome}
    for name, wanted in (asked | {"datasets": request.datasets}).items():
        found = getattr(held, name)
        if found != wanted:
            raise ConfigError(
                f"The export in {redacted(folder)} has {name} {found!r}, but this one would have {wanted!r}. "
                "Use the same options, or export all rows, without --since."
            )
    return held.version
