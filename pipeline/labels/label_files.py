"""One file of labels from one file of predictions. Only the vectors are read, and only of rows without a label."""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.labels import scoring
from pipeline.labels.head import Head
from pipeline.output.label_table import LABELS, LabelFile, label_path
from pipeline.output.layout import Layout
from pipeline.output.reader import PredictionsReader
from pipeline.output.visible_files import VisibleFile
from pipeline.storage.filesystems import Storage, failure
from pipeline.storage.uris import join

ROW_GROUP_ROWS = 65_536
"""Rows of a row group: some 5 MB, since labels are small."""
_READ = (schema.IMAGE_ID, "embedding", "embedding_norm")
_STORED = pa.schema([field for field in LABELS if field.name != schema.DATASET])


@dataclass(frozen=True)
class LabelTask:
    """A file of labels to write.

    Rows of `source` get the label that one of the files `earlier` has for them, unless they are `changed`, as
    image_ids, or meet the condition `where`. All others get a new label; with `where`, only those that meet it.
    """

    source: VisibleFile
    earlier: tuple[str, ...] = ()
    changed: pa.ChunkedArray | None = None
    where: str | None = None


@dataclass(frozen=True)
class LabelResult:
    """A file of labels, and how many of its rows were computed; the other rows are labels that there were."""

    file: LabelFile
    computed: int


@dataclass(frozen=True)
class Labeller:
    """Writes files of labels. It can be pickled, so that tasks on other nodes write some of them."""

    reader: PredictionsReader
    head: Head
    name: str
    top_k: int

    @property
    def uri(self) -> str:
        """The URI of the table."""
        return Layout(self.reader.output).labels(self.name)

    @property
    def storage(self) -> Storage:
        """The store of the output."""
        return self.reader.storage

    def path(self, task: LabelTask) -> str:
        """Return the path of a task's file below the table. The same task always has the same path and content.

        So a file that an interrupted relabelling has written need not be written again.
        """
        decisive = [self.head.sha256, self.top_k, task.where, sorted(task.earlier)]
        suffix = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:12]
        return label_path(task.source.dataset, task.source.path, suffix)

    def write(self, task: LabelTask) -> LabelResult:
        """Write a task's file, unless it exists. Raises: TableError, StorageError."""
        uri = join(self.uri, self.path(task))
        fs, path = self.storage.filesystem(uri)
        try:
            if fs.exists(path):
                with fs.open(path, "rb") as file:
                    rows = pq.ParquetFile(file).metadata.num_rows
                return self._result(task, rows, fs.size(path), computed=0)
        except Exception as error:
            raise failure(error, uri) from error
        table, computed = self._labels(task)
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", row_group_size=ROW_GROUP_ROWS, write_page_index=True)
        self.storage.write(uri, buffer.getvalue())
        return self._result(task, table.num_rows, buffer.tell(), computed)

    def _result(self, task: LabelTask, rows: int, size: int, computed: int) -> LabelResult:
        return LabelResult(LabelFile(self.path(task), task.source.dataset, rows, size), computed)

    def _labels(self, task: LabelTask) -> tuple[pa.Table, int]:
        """Return the rows of a task's file, and how many of them are computed."""
        source = replace(self.reader, files=(task.source,))
        kept = self._earlier_labels(task, source)
        if task.where is None and kept.num_rows:
            ids = source.to_arrow([schema.IMAGE_ID])[schema.IMAGE_ID]
            missing = ids.filter(pc.invert(pc.is_in(ids, kept[schema.IMAGE_ID])))
            batches = source.batches(_READ, image_ids=missing) if len(missing) else iter(())
        else:
            batches = source.batches(_READ, where=task.where)
        new = pa.Table.from_batches(list(self._scored(batches)), _STORED)
        return pa.concat_tables([new, kept]).sort_by(schema.IMAGE_ID), new.num_rows

    def _scored(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        names = pa.array(self.head.labels)
        for batch in batches:
            scored = scoring.score(self.head, *scoring.vectors_of(batch), self.top_k)
            columns = {schema.IMAGE_ID: batch[schema.IMAGE_ID], **scoring.columns(scored, names)}
            columns["source_version"] = pa.repeat(self.reader.version, batch.num_rows)
            columns["head"] = pa.repeat(self.head.sha256, batch.num_rows)
            yield pa.RecordBatch.from_arrays([columns[name] for name in _STORED.names], schema=_STORED)

    def _earlier_labels(self, task: LabelTask, source: PredictionsReader) -> pa.Table:
        """Return the labels that stay valid for rows of a file of predictions."""
        if not task.earlier:
            return _STORED.empty_table()
        ids = source.to_arrow([schema.IMAGE_ID])[schema.IMAGE_ID]
        new = task.changed
        if task.where is not None:
            new = source.to_arrow([schema.IMAGE_ID], where=task.where)[schema.IMAGE_ID]
        staying = ids if new is None else ids.filter(pc.invert(pc.is_in(ids, new)))
        return pa.concat_tables(self._read_labels(path, staying) for path in task.earlier)

    def _read_labels(self, path: str, ids: pa.ChunkedArray) -> pa.Table:
        uri = join(self.uri, path)
        fs, place = self.storage.filesystem(uri)
        try:
            with fs.open(place, "rb") as file:
                rows = pq.read_table(file, partitioning=None).cast(_STORED)
        except Exception as error:
            raise failure(error, uri) from error
        return rows.filter(pc.is_in(rows[schema.IMAGE_ID], ids))
