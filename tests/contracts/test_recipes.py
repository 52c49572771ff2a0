"""The recipes of docs/recipes.md as they stand there, and what it says of the lines that people type first.

Every recipe reads outputs with failed rows, a checkpoint, compacted files, a new kept column, and dataset names of
which readers make numbers or dates. Readers that the project does not install are tested where they are.
"""

import datetime
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from polars.exceptions import ColumnNotFoundError, InvalidOperationError, SchemaError

from tests.support.outputs import FAILED_ROWS, LAKES, OK_ROWS, Output, write_output

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
OK_ONLY = {"ok": OK_ROWS}
ALL = "predictions/*/*/*.parquet"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Output]:
    """An output of each lake, where the page says that the demo's is."""
    folders = {name: tmp_path_factory.mktemp(name) / "lakelens-demo" / "output" for name in LAKES}
    return {name: write_output(folders[name], LAKES[name]) for name in LAKES}


@pytest.fixture(params=LAKES)
def output(
    request: pytest.FixtureRequest, outputs: dict[str, Output], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Output]:
    """Each lake's output, from the folder in which the recipes find it."""
    found = outputs[request.param]
    monkeypatch.chdir(found.path.parents[1])
    return found


@pytest.fixture
def there(outputs: dict[str, Output], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The folder of each lake's output."""
    return {name: str(found.path) for name, found in outputs.items()}


def executed(title: str, number: int = 0, *, absolute: bool = False) -> dict[str, Any]:
    """The variables of a section's Python block once it has run."""
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    block = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)[number]
    if absolute:
        block = block.replace('"lakelens-demo', f'"{Path.cwd()}/lakelens-demo')
    names: dict[str, Any] = {}
    exec(block, names)
    return names


def count_of(datasets: Any) -> dict[Any, int]:
    return dict(Counter(datasets))


def each(output: Output, rows: int) -> dict[Any, int]:
    """That number of rows for each dataset."""
    return dict.fromkeys(output.datasets, rows)


def log_rows(output: Output) -> int:
    """Rows of the checkpoint in the log."""
    return sum(pq.read_metadata(file).num_rows for file in output.path.glob("predictions/_delta_log/*.parquet"))


# Recipes


def test_lakelens_itself(output: Output) -> None:
    names = executed("LakeLens itself")
    assert count_of(names["ok"]["dataset"]) == each(output, OK_ROWS)
    assert "caption" in names["space"].to_arrow().column_names


def test_duckdb(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    executed("DuckDB")
    shown = capsys.readouterr().out
    for name in output.datasets:
        assert re.search(rf"{name} +│ cat +│ +{OK_ROWS} ", shown), shown


def test_polars(output: Output) -> None:
    best = executed("Polars")["best"]
    assert count_of(best["dataset"]) == each(output, OK_ROWS)
    assert set(best["label"]) == {"cat"}
    assert "caption" in executed("Polars")["predictions"].collect_schema().names()


def test_pandas(output: Output) -> None:
    failed = executed("pandas")["failed"]
    assert count_of(failed["dataset"]) == each(output, FAILED_ROWS)
    assert set(failed["error_code"]) == {"corrupt"}


def test_pyarrow(output: Output) -> None:
    names = executed("pyarrow")
    assert count_of(names["rows"]["dataset"].to_pylist()) == each(output, OK_ROWS)
    assert "caption" in names["table"].schema.names


def test_delta_rs(output: Output) -> None:
    names = executed("delta-rs")
    assert count_of(names["rows"]["dataset"].to_pylist()) == each(output, OK_ROWS + FAILED_ROWS)
    assert names["before"].version() == names["newest"].version() - 1


def test_vectors_belong_to_their_ids(output: Output) -> None:
    names = executed("Load into a vector index", 1)
    found = dict(zip(names["ids"], names["vectors"].tolist(), strict=True))
    assert found == output.vectors


def test_the_wrong_way_gives_ids_the_vectors_of_others(output: Output) -> None:
    wrong = executed("Load into a vector index", 0)["wrong"]
    assert sum(output.vectors.get(id_) != vector.tolist() for id_, vector in wrong.items()) > 0


# The lines that people type first


def test_duckdb_counts_the_rows_of_the_log(output: Output) -> None:
    found = duckdb.sql(f"FROM '{output.path}/predictions/**/*.parquet'").aggregate("count(*)").fetchall()
    assert found == [(output.rows + log_rows(output),)]


def test_duckdb_guesses_types_and_drops_new_columns(there: dict[str, str]) -> None:
    types = {}
    for name, folder in there.items():
        found = duckdb.sql(f"FROM '{folder}/{ALL}'")
        types[name] = str(dict(zip(found.columns, found.types, strict=True))["dataset"])
        assert "caption" not in found.columns
    assert types == {"mixed": "VARCHAR", "numbers": "VARCHAR", "years": "BIGINT", "dates": "DATE"}


def test_polars_cannot_read_the_folder(there: dict[str, str]) -> None:
    with pytest.raises(InvalidOperationError):
        pl.read_parquet(f"{there['mixed']}/predictions")
    with pytest.raises(SchemaError):
        pl.read_parquet(f"{there['mixed']}/predictions/**/*.parquet")


def test_polars_misses_folders_and_guesses_types(there: dict[str, str]) -> None:
    files = f"{there['numbers']}/predictions/*/outcome=failed/*.parquet"
    with pytest.raises((SchemaError, ColumnNotFoundError)):
        pl.read_parquet(files)
    even = {"missing_columns": "insert", "extra_columns": "ignore"}
    assert "dataset" not in pl.scan_parquet(files, **even).collect().columns  # type: ignore[arg-type]
    hive = pl.scan_parquet(files, hive_partitioning=True, **even).collect()  # type: ignore[arg-type]
    assert set(hive["dataset"]) == {7, 42}


def test_pandas_makes_numbers_and_drops_new_columns(there: dict[str, str]) -> None:
    found = pd.read_parquet(f"{there['numbers']}/predictions")
    assert set(found["dataset"]) == {7, 42}
    assert str(found["dataset"].dtype) == "category"
    assert "caption" not in found.columns


def test_pyarrow_makes_numbers_and_drops_new_columns(there: dict[str, str]) -> None:
    folder = f"{there['numbers']}/predictions"
    assert "dataset" not in ds.dataset(folder).schema.names
    for found in (ds.dataset(folder, partitioning="hive").to_table(), pq.read_table(folder)):
        assert set(found["dataset"].to_pylist()) == {7, 42}
        assert "caption" not in found.column_names


# Readers that the project does not install: their recipes, and what people type first


@pytest.fixture
def datasets() -> Any:
    return pytest.importorskip("datasets", reason="needs `pip install datasets`")


@pytest.fixture
def daft() -> Any:
    return pytest.importorskip("daft", reason="needs Daft, which wants an older pyarrow")


@pytest.fixture
def chdb() -> Any:
    return pytest.importorskip("chdb", reason="needs `pip install chdb`, 500 MB")


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    sql = pytest.importorskip("pyspark.sql", reason="needs `pip install pyspark`, 400 MB")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    session = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    yield session
    session.stop()


@pytest.mark.filterwarnings("ignore")
def test_datasets(datasets: Any, output: Output) -> None:
    assert count_of(executed("Hugging Face datasets")["ok"]["dataset"]) == each(output, OK_ROWS)


@pytest.mark.filterwarnings("ignore")
def test_datasets_by_glob_has_no_dataset_and_no_outcome(
    datasets: Any, there: dict[str, str], tmp_path: Path
) -> None:
    files = f"{there['mixed']}/predictions/*/outcome=failed/*.parquet"
    columns = ["image_id", "label"]
    found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=tmp_path, columns=columns)
    assert not {"dataset", "outcome"} & set(found.column_names)
    for path, options in ((f"{there['mixed']}/predictions", {}), ("parquet", {"data_files": files + "/**"})):
        with pytest.raises(Exception, match=r"."):
            datasets.load_dataset(path, split="train", cache_dir=tmp_path, **options)


@pytest.mark.filterwarnings("ignore")
def test_daft(daft: Any, output: Output) -> None:
    found = executed("Daft")["ok"].to_pydict()
    assert count_of(found["dataset"]) == each(output, OK_ROWS)
    assert dict(zip(found["image_id"], found["embedding"], strict=True)) == output.vectors


@pytest.mark.filterwarnings("ignore")
def test_daft_counts_the_log_and_makes_numbers(daft: Any, there: dict[str, str]) -> None:
    folder = f"{there['mixed']}/predictions"
    assert daft.read_parquet(f"{folder}/**/*.parquet").count_rows() == 41
    assert "dataset" not in daft.read_parquet(f"{folder}/*/*/*.parquet").column_names
    hive = daft.read_parquet(f"{there['numbers']}/predictions/*/*/*.parquet", hive_partitioning=True)
    assert set(hive.to_pydict()["dataset"]) == {7, 42}


def test_clickhouse(chdb: Any, output: Output) -> None:
    rows = str(executed("ClickHouse")["nearest"]).splitlines()
    assert len(rows) == 5
    assert rows[0].endswith(",0")
    assert rows[0].split(",")[1].strip('"') in output.datasets


def test_clickhouse_fails_on_names_of_two_types_and_on_nullable_vectors(chdb: Any, there: dict[str, str]) -> None:
    with pytest.raises(RuntimeError, match="Cannot convert string"):
        chdb.query(f"SELECT dataset, count() FROM file('{there['mixed']}/{ALL}', Parquet) GROUP BY ALL")
    numbers = chdb.query(f"SELECT DISTINCT dataset FROM file('{there['numbers']}/{ALL}', Parquet) ORDER BY 1")
    assert str(numbers).split() == ["7", "42"]
    with pytest.raises(RuntimeError, match="Nullable"):
        chdb.query(f"SELECT cosineDistance(embedding, embedding) FROM file('{there['numbers']}/{ALL}', Parquet)")


@pytest.mark.filterwarnings("ignore")
def test_spark(spark: Any, output: Output) -> None:
    names = executed("Spark", absolute=True)
    found = names["ok"].collect()
    assert count_of(row.dataset for row in found) == each(output, OK_ROWS)
    assert {row.image_id: row.embedding for row in found} == output.vectors
    assert names["predictions"].count() == output.rows
    assert "caption" in names["predictions"].columns


@pytest.mark.filterwarnings("ignore")
def test_spark_guesses_types_and_reads_the_log_alone(spark: Any, there: dict[str, str]) -> None:
    spark.conf.set("spark.sql.sources.partitionColumnTypeInference.enabled", "true")
    spark.conf.set("spark.sql.parquet.mergeSchema", "false")
    numbers = spark.read.parquet(f"{there['numbers']}/predictions")
    assert {row.dataset for row in numbers.select("dataset").collect()} == {7, 42}
    assert "caption" not in numbers.columns
    spark.conf.set("spark.sql.parquet.enableVectorizedReader", "true")
    with pytest.raises(Exception, match="Unsupported encoding: BYTE_STREAM_SPLIT"):
        numbers.select("embedding").collect()
    dates = spark.read.parquet(f"{there['dates']}/predictions")
    assert {type(row.dataset) for row in dates.select("dataset").collect()} == {datetime.date}
    assert "dataset" not in spark.read.parquet(f"{there['mixed']}/{ALL}").columns
    assert spark.read.parquet(f"{there['mixed']}/predictions/**/*.parquet").count() == 17
