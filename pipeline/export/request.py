"""What an export is to hold, and in which form. It is checked before anything is read or written."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import duckdb

from pipeline import schema
from pipeline.errors import ConfigError
from pipeline.output.reader import VIEW, PredictionsReader

OnProgress = Callable[[int, int], None]
"""Gets the number of rows that have been written, and of all rows."""
VECTOR = "embedding"
ROWS_PER_FILE = 100_000
"""Rows of one file: 300 MB of 768-dimensional vectors in float32."""
USUAL_COLUMNS = (schema.IMAGE_ID, schema.DATASET, schema.URI, "label", "score", "width", "height", VECTOR)
"""The columns of an export that names none, followed by the kept columns."""


_CHANGING = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}
"""What DuckDB parses as a column, and then takes for the time."""


class Format(StrEnum):
    """What the files are."""

    PARQUET = "parquet"
    NPY = "npy"
    FAISS = "faiss"
    JSONL = "jsonl"


class Importer(StrEnum):
    """A vector database whose bulk importer reads Parquet files of a certain shape."""

    MILVUS = "milvus"
    PINECONE = "pinecone"


@dataclass(frozen=True)
class Request:
    """Which rows and columns an export has, and how they are written.

    `columns` None means `USUAL_COLUMNS` and the kept columns. `where` is an SQL condition about one row.
    """

    to: Format = Format.PARQUET
    importer: Importer | None = None
    columns: tuple[str, ...] | None = None
    where: str | None = None
    datasets: tuple[str, ...] = ()
    outcome: str = schema.OK
    rows_per_file: int = ROWS_PER_FILE

    def __post_init__(self) -> None:
        """Raises: ConfigError for what does not go together."""
        if self.importer is not None and self.to is not Format.PARQUET:
            raise ConfigError(f"--for {self.importer} writes Parquet files: use it with --to {Format.PARQUET}.")
        if self.outcome == schema.FAILED and (self.importer or self.to in (Format.NPY, Format.FAISS)):
            raise ConfigError("Failed rows have no vectors: export them with --to parquet or --to jsonl.")
        if self.rows_per_file < 1:
            raise ConfigError(f"A file cannot have {self.rows_per_file} rows; it has 1 or more.")
        if self.where is not None and (other := _looks_beyond_its_row(self.where)):
            raise ConfigError(
                f"The condition {self.where!r} uses {other}. A condition of an export is about the columns of one "
                "row alone."
            )

    @property
    def by_dataset(self) -> bool:
        """Whether each dataset has a folder of its own: for Pinecone, a folder is a namespace."""
        return self.importer is Importer.PINECONE

    def columns_of(self, reader: PredictionsReader) -> list[str]:
        """Return the names of the columns, with `image_id` among them. Raises: TableError for an unknown one."""
        if self.columns is None:
            names = [*USUAL_COLUMNS, *(field.name for field in schema.kept(reader.columns))]
        else:
            names = [*dict.fromkeys(self.columns)]
        if schema.IMAGE_ID not in names:
            names.insert(0, schema.IMAGE_ID)
        return list(reader.schema(names).names)


def request(
    to: str,
    importer: str | None = None,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    datasets: Sequence[str] = (),
    outcome: str = schema.OK,
    rows_per_file: int | None = None,
) -> Request:
    """Return a request whose names are given as text; None is the default. Raises: ConfigError."""
    for name, given, known in (("--to", to, Format), ("--for", importer, Importer)):
        if given is not None and given not in set(known):
            raise ConfigError(f"{name} {given} is not known; use one of {', '.join(known)}.")
    if outcome not in (schema.OK, schema.FAILED):
        raise ConfigError(f"outcome = {outcome!r} is neither {schema.OK!r} nor {schema.FAILED!r}.")
    chosen = None if columns is None else tuple(columns)
    target = None if importer is None else Importer(importer)
    size = ROWS_PER_FILE if rows_per_file is None else rows_per_file
    return Request(Format(to), target, chosen, where, tuple(datasets), outcome, size)


def _looks_beyond_its_row(where: str) -> str | None:
    """Return what a condition depends on besides its row, such as a subquery or now(), if anything.

    Its value could change while the row does not. A condition that is not SQL is refused where it is evaluated.
    """
    with duckdb.connect() as connection:
        query = f"SELECT 1 FROM {VIEW} WHERE ({where}\n)"
        ((parsed,),) = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
        functions = "SELECT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
        changing = _CHANGING | {name for (name,) in connection.execute(functions).fetchall()}
    if '"class":"SUBQUERY"' in parsed:
        return "a subquery"
    named = re.findall(r'"(?:function_name|column_names)":\[?"([^"]+)"', parsed)
    return next((name for name in named if name.lower() in changing), None)
