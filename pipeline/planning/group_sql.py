"""SQL that reads a group of manifest files: their rows as they are, and the raw columns of each row.

It does not know how raw columns are resolved: see `row_sql`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from pipeline.column_names import (
    CARRIED_IN,
    DATASET,
    IMAGE_ID,
    LENGTH,
    OFFSET,
    ORDINAL,
    ROW,
    SELECTED,
    SOURCE,
    UNREADABLE,
    VERSION,
)
from pipeline.planning.manifest_file import ManifestFile, is_binary
from pipeline.planning.manifest_files import KEYS, ManifestFiles
from pipeline.planning.parquet_copy import EXACT
from pipeline.planning.row_sql import RAW
from pipeline.schema import ROW_BITS
from pipeline.storage import sql
from pipeline.storage.sql import literal, quoted

_NO_TEXT = "CAST(NULL AS VARCHAR)"
_NO_ROW = "CAST(NULL AS BIGINT)"
_ROW_NUMBER = f"{ORDINAL} & {(1 << ROW_BITS) - 1}"


@dataclass(frozen=True)
class Group:
    """Manifest files that one SELECT reads: the requested columns have the same names and types in all of them."""

    manifest: ManifestFiles
    files: list[ManifestFile]

    @property
    def first(self) -> ManifestFile:
        """The file that stands for the group where all of its files are alike."""
        return self.files[0]

    def table(self) -> str:
        """Return SQL for the rows with their own columns, `SOURCE`, `ORDINAL` and `UNREADABLE`."""
        return self._parquet_table() if self.first.copy is None else self._copied_table()

    def raw_rows(self, kept: Mapping[str, str]) -> str:
        """Return a SELECT of the raw columns and the kept ones, which get the types of `kept`."""
        is_carried = self.manifest.carried(self.first) is not None
        raw = {key: self._text(key) for key in KEYS} | self._byte_range()
        columns = {
            **{RAW[key]: text for key, text in raw.items()},
            VERSION: self._text(VERSION),
            CARRIED_IN: SOURCE if is_carried else _NO_TEXT,
            ROW: _ROW_NUMBER if is_carried else _NO_ROW,
            SELECTED: f"coalesce(CAST(({self.manifest.where or 'true'}\n) AS BOOLEAN), false)",
            UNREADABLE: f"coalesce({', '.join([UNREADABLE, *self._undecoded_keys()])})",
            **{name: self._kept(name, kind) for name, kind in kept.items()},
        }
        values = ", ".join(f"{value} AS {quoted(name)}" for name, value in columns.items())
        return f"SELECT {SOURCE}, {ORDINAL}, {values} FROM {self.table()}"

    def _copied_table(self) -> str:
        paths = [path for file in self.files if file.copy is not None for path in file.copy.files]
        return f"""(
            SELECT *{self._columns_of_others()}
            FROM read_parquet({sql.files(paths)}, hive_partitioning = false, union_by_name = true)
        )"""

    def _parquet_table(self) -> str:
        alike = all(file.schema.equals(self.first.schema) for file in self.files)
        paths = sql.files(file.source.uri for file in self.files)
        return f"""(
            SELECT *, ({self._file_number()}::BIGINT << {ROW_BITS}) + file_row_number AS {ORDINAL},
                {_NO_TEXT} AS {UNREADABLE}{self._columns_of_others()}
            FROM read_parquet({paths}, filename = '{SOURCE}', hive_partitioning = false,
                union_by_name = {str(not alike).lower()})
        )"""

    def _file_number(self) -> str:
        """Return SQL for the number of a row's file in the manifest; DuckDB counts the files of the group."""
        numbers = [file.number for file in self.files]
        if numbers == [*range(numbers[0], numbers[0] + len(numbers))]:
            return f"(file_index::BIGINT + {numbers[0]})"
        return f"{numbers}[file_index::BIGINT + 1]"

    def _columns_of_others(self) -> str:
        """For a condition: return nulls for the columns that only files of other groups have."""
        if self.manifest.where is None:
            return ""
        own = {name.casefold() for file in self.files for name in file.schema.names}
        every = {name.casefold(): name for file in self.manifest.files for name in file.schema.names}
        return "".join(f", NULL AS {quoted(name)}" for lower, name in every.items() if lower and lower not in own)

    def _text(self, key: str) -> str:
        """Return SQL for a canonical column as text; null if the files have no such column."""
        path = self.manifest.path(self.first, key)
        if path is None:
            return _NO_TEXT
        value, kind = self.first.sql(path), self.first.kind(path)
        if pa.types.is_nested(kind):
            return f"CAST(to_json({value}) AS VARCHAR)"
        if is_binary(kind):
            return f"TRY(decode({value}))"
        if self.first.is_in_json(path) and self.manifest.id_format > 1 and key in (IMAGE_ID, DATASET, VERSION):
            return _text_of_json(value, self.first.sql_of_json_type(path))
        if pa.types.is_floating(kind) and (self.manifest.id_format > 1 or key in (OFFSET, LENGTH)):
            return _text_of_float(value)
        return f"CAST({value} AS VARCHAR)"

    def _byte_range(self) -> dict[str, str]:
        """Return SQL for offset and length as text. A length without a column of offsets is a size, no range."""
        names = self.manifest.names
        is_range = names[LENGTH] is not None and self.first.find(names[OFFSET]) is not None
        return {key: self._text(key) if is_range else _NO_TEXT for key in (OFFSET, LENGTH)}

    def _undecoded_keys(self) -> list[str]:
        """Return SQL for the reasons why a key that is stored as bytes is not text."""
        paths = [self.manifest.path(self.first, key) for key in KEYS]
        return [
            _reason_of_undecoded(self.first.sql(path), ".".join(path))
            for path in paths
            if path is not None and is_binary(self.first.kind(path))
        ]

    def _kept(self, name: str, kind: str) -> str:
        """Return SQL for a kept column."""
        path = self.first.find(name)
        if path is None or pa.types.is_null(self.first.kind(path)):
            return f"CAST(NULL AS {kind})"
        value = self.first.sql(path)
        if pa.types.is_nested(self.first.kind(path)):
            value = f"to_json({value})"
        return f"CAST({value} AS {kind})"


def _text_of_float(value: str) -> str:
    """Return SQL for a floating-point number as text: a whole number without its point, NaN as null."""
    return f"""
        CASE WHEN isnan({value}) THEN NULL
            WHEN {value} = trunc({value}) AND abs({value}) < {EXACT:.0f}
                THEN CAST(CAST({value} AS BIGINT) AS VARCHAR)
            ELSE CAST({value} AS VARCHAR) END
    """


def _text_of_json(value: str, json_type: str) -> str:
    """Return SQL for a value in a JSON object as text: a whole floating-point number without its point."""
    number = f"TRY_CAST({value} AS DOUBLE)"
    return f"""
        CASE WHEN {json_type} = 'DOUBLE' AND {number} = trunc({number}) AND abs({number}) < {EXACT:.0f}
                THEN CAST(CAST({number} AS BIGINT) AS VARCHAR)
            ELSE {value} END
    """


def _reason_of_undecoded(value: str, column: str) -> str:
    reason = literal(f"{column} is not UTF-8")
    return f"CASE WHEN {value} IS NOT NULL AND TRY(decode({value})) IS NULL THEN {reason} END"
