"""An export from start to end. It does not know how the files of a format are made."""

from collections.abc import Sequence
from functools import partial

from pipeline.errors import ConfigError, StorageError
from pipeline.export import all_rows, changed_rows, destination, faiss_index, ray_tasks
from pipeline.export.all_rows import Stretch
from pipeline.export.request import Format, OnProgress, Request
from pipeline.export.summary import EXPORT, ExportSummary, Written, earlier_version
from pipeline.output import label_views
from pipeline.output.reader import PredictionsReader
from pipeline.output.space import SpaceDescription
from pipeline.storage.uris import is_local, join


def export(
    reader: PredictionsReader,
    space: SpaceDescription,
    out: str,
    request: Request,
    *,
    since: int | str | None = None,
    address: str | None = None,
    on_progress: OnProgress = lambda done, rows: None,
) -> ExportSummary:
    """Write the rows of one version to a new or empty folder on any store, and `export.json` last.

    `reader` has all rows of the version. With `since`, which is an earlier version or the folder of an earlier
    export, write upserts and deletes. `ray_tasks.are_used` tells what `address` does. Raises: ConfigError,
    TableError, SpaceError, StorageError, ClusterError.
    """
    columns = request.columns_of(reader)
    _require_sense(reader, request, columns, since, address)
    if isinstance(since, str):
        since = earlier_version(since, request, reader, reader.storage)
    folder = destination.claimed(out, reader.output, reader.storage)
    deletes, index = Written(), None
    if since is not None:
        rows, deletes = changed_rows.write(reader, request, columns, since, folder)
    elif request.to is Format.FAISS:
        plan, rows = faiss_index.write(_chosen(reader, request), request, columns, folder, on_progress=on_progress)
        index = plan.described()
    else:
        rows = _all_rows(_chosen(reader, request), request, columns, folder, space, address, on_progress)
    summary = ExportSummary.of(reader, space, request, columns, since, rows, deletes, index)
    reader.storage.write_json(join(folder, EXPORT), summary.model_dump(mode="json"))
    return summary


def _require_sense(
    reader: PredictionsReader,
    request: Request,
    columns: Sequence[str],
    since: int | str | None,
    address: str | None,
) -> None:
    """Raises: ConfigError for options that do not go together."""
    if since is not None and request.to is Format.FAISS:
        raise ConfigError(
            "A FAISS index is exported as a whole. For --since, use --to parquet, and apply the upserts and "
            "deletes to the index."
        )
    if address is not None and (since is not None or request.to is Format.FAISS):
        raise ConfigError("One process writes changes and FAISS indexes: leave --address out.")
    heads = _heads(reader, request, columns)
    if heads and (since is not None or address is not None):
        raise ConfigError(
            f"Labels of the head {heads[0]} are exported with all rows, by one process: leave --since and "
            "--address out."
        )


def _heads(reader: PredictionsReader, request: Request, columns: Sequence[str]) -> list[str]:
    """Return the heads whose labels an export has. Their join with the rows keeps no order that tasks share."""
    return label_views.mentioned([request.where or "", *columns], reader.output, reader.storage)


def _chosen(reader: PredictionsReader, request: Request) -> PredictionsReader:
    return reader.only(request.datasets, request.outcome)


def _all_rows(
    reader: PredictionsReader,
    request: Request,
    columns: Sequence[str],
    folder: str,
    space: SpaceDescription,
    address: str | None,
    on_progress: OnProgress,
) -> Written:
    counts, heads = reader.counts_by_file(request.where), _heads(reader, request, columns)
    write = partial(all_rows.write, reader=reader, request=request, columns=columns, out=folder)
    stretches = all_rows.stretches(reader, request, counts, None if heads else all_rows.FILES_OF_A_STRETCH)
    on_ray = not heads and ray_tasks.are_used(address, sum(counts) * (space.dim or 0) * 4)
    found = dict[Stretch, Written]()
    for stretch, written in (
        ray_tasks.write_all(stretches, write, address) if on_ray else ((one, write(one)) for one in stretches)
    ):
        found[stretch] = written
        on_progress(sum(one.rows for one in found.values()), sum(counts))
    whole = Written()
    for stretch in stretches:
        whole += found[stretch]
    if on_ray and is_local(folder):
        _require_shared(whole, folder, reader)
    return whole


def _require_shared(written: Written, folder: str, reader: PredictionsReader) -> None:
    """Check that files of tasks on other machines are on this one, too. Raises: StorageError."""
    for file in written.files:
        fs, path = reader.storage.filesystem(join(folder, file.path))
        if not fs.exists(path):
            raise StorageError(
                f"Machines of the cluster have written to {folder}, which they do not share with this one. "
                "Use an object store or a shared folder for --out."
            )
