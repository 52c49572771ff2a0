"""The committed predictions, read as the Delta log names them, on local disk and on S3."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from pipeline import schema
from pipeline.errors import ConfigError, TableError
from pipeline.output.layout import Layout
from pipeline.output.reader import Count, PredictionsReader
from pipeline.output.table import Predictions
from tests.support import outputs, seaweed
from tests.support.making import STORAGE, write_fragment
from tests.support.outputs import FAILED_ROWS, OK_ROWS, Output

NAMES = ("007", "2024-01-01", "50% off/x=y", "straße [a] 'b'")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    """Datasets with awkward names, partly compacted, below folders that look like partitions."""
    folder = tmp_path_factory.mktemp("reader") / "dataset=zzz" / "outcome=ok" / "my [out] 5%"
    written = outputs.write_output(folder, NAMES)
    write_fragment(str(folder), "007", ["never committed"], 1)
    return written


@pytest.fixture
def reader(output: Output) -> PredictionsReader:
    return PredictionsReader.open(str(output.path), STORAGE)


def test_rows_are_counted_by_dataset_outcome_and_code(reader: PredictionsReader) -> None:
    ok = [Count(name, "ok", None, OK_ROWS) for name in NAMES]
    failed = [Count(name, "failed", "corrupt", FAILED_ROWS) for name in NAMES]
    assert sorted(reader.counts(), key=str) == sorted(ok + failed, key=str)


def test_files_without_statistics_are_counted_from_their_rows(reader: PredictionsReader) -> None:
    bare = tuple(replace(file, rows=None) for file in reader.files)
    assert replace(reader, files=bare).counts() == reader.counts()


def test_all_columns_have_the_types_of_the_table(reader: PredictionsReader, output: Output) -> None:
    rows = reader.to_arrow()
    assert rows.schema.equals(schema.predictions([outputs.CAPTION]))
    assert rows.num_rows == output.rows
    assert set(rows["dataset"].to_pylist()) == set(NAMES)
    found = rows.filter(pc.equal(rows["outcome"], "ok"))
    assert dict(zip(found["image_id"].to_pylist(), found["embedding"].to_pylist(), strict=True)) == output.vectors


@pytest.mark.parametrize("name", NAMES)
def test_a_dataset_and_an_outcome_open_no_other_files(reader: PredictionsReader, name: str) -> None:
    chosen = reader.only([name], "ok")
    assert {(file.dataset, file.outcome) for file in chosen.files} == {(name, "ok")}
    rows = chosen.to_arrow(["image_id", "dataset", "outcome"])
    assert rows.column_names == ["image_id", "dataset", "outcome"]
    assert set(rows["dataset"].to_pylist()) == {name}
    assert rows.num_rows == OK_ROWS


def test_a_condition_selects_rows_even_with_a_comment_at_its_end(reader: PredictionsReader) -> None:
    rows = reader.to_arrow(["image_id"], where="dataset = '007' AND outcome = 'failed' -- a comment")
    assert sorted(rows["image_id"].to_pylist()) == ["007/0bad.jpg", "007/1bad.jpg"]
    assert reader.count("error_code = 'corrupt'") == len(NAMES) * FAILED_ROWS


def test_batches_have_no_more_rows_than_asked_for(reader: PredictionsReader, output: Output) -> None:
    batches = list(reader.batches(["image_id", "embedding"], batch_rows=5, order_by=["image_id"]))
    assert max(batch.num_rows for batch in batches) <= 5
    ids = [id_ for batch in batches for id_ in batch["image_id"].to_pylist()]
    assert ids == sorted(ids)
    assert len(ids) == output.rows


def test_a_sample_has_as_many_rows_of_each_dataset_and_depends_on_its_seed(reader: PredictionsReader) -> None:
    ok = reader.only(outcome="ok")
    first, again, other = (ok.sample(8, seed, ["image_id", "dataset"]) for seed in (0, 0, 1))
    assert sorted(first["dataset"].to_pylist()) == sorted(NAMES * 2)
    assert first == again
    assert first != other


def test_a_reader_keeps_its_version_and_survives_pickling(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    table = Predictions.create(out, STORAGE, [])
    epoch = table.claim("one", [])
    assert epoch is not None
    table.commit([write_fragment(out, "a", ["a"], epoch)], "one", epoch)
    reader = PredictionsReader.open(out, STORAGE)
    table.commit([write_fragment(out, "b", ["b"], epoch)], "one", epoch)
    assert pickle.loads(pickle.dumps(reader)).to_arrow(["image_id"])["image_id"].to_pylist() == ["a"]
    assert PredictionsReader.open(out, STORAGE).count() == 2


def test_files_that_are_older_than_a_column_are_null_there(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    table = Predictions.create(out, STORAGE, [])
    epoch = table.claim("one", [])
    assert epoch is not None
    table.commit([write_fragment(out, "a", ["a"], epoch)], "one", epoch)
    assert table.claim("two", [pa.field("caption", pa.string()), pa.field("Größe", pa.int64())]) is not None
    rows = PredictionsReader.open(out, STORAGE).to_arrow(["image_id", "caption", "Größe"])
    assert rows.to_pylist() == [{"image_id": "a", "caption": None, "Größe": None}]


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    Predictions.create(str(tmp_path), STORAGE, [pa.field("caption", pa.string())])
    reader = PredictionsReader.open(str(tmp_path), STORAGE)
    assert (reader.counts(), reader.datasets, reader.count(), reader.failures(3)) == ([], [], 0, [])
    assert reader.to_arrow().schema.names == [*schema.PREDICTIONS.names, "caption"]


def test_unknown_names_and_conditions_are_refused_by_name(reader: PredictionsReader, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"no column 'Image-ID'.*'image_id'"):
        reader.to_arrow(["Image-ID"])
    with pytest.raises(TableError, match=r"no dataset '7'.*007"):
        reader.only(["7"])
    with pytest.raises(ConfigError, match="'good'"):
        reader.only(outcome="good")
    with pytest.raises(ConfigError, match="'nope = 1'"):
        reader.to_arrow(where="nope = 1")
    with pytest.raises(ConfigError, match=r"'image_id ='"):
        reader.to_arrow(where="image_id =")
    with pytest.raises(TableError, match=str(tmp_path)):
        PredictionsReader.open(str(tmp_path), STORAGE)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    out = outputs.write_output(tmp_path / "out", ["a"])
    reader = PredictionsReader.open(str(out.path), STORAGE)
    gone = Path(Layout(str(out.path)).fragment(reader.files[0].path))
    gone.unlink()
    with pytest.raises(TableError, match=gone.name):
        reader.to_arrow()


def test_an_output_on_s3_reads_the_same(
    s3: seaweed.S3Server, output: Output, reader: PredictionsReader, tmp_path: Path
) -> None:
    copied = shutil.copytree(
        output.path, tmp_path / "out"
    )  # s3fs takes the brackets of the other path for a pattern
    s3.filesystem().makedirs("reader", exist_ok=True)
    s3.filesystem().put(f"{copied}/", "reader/out a/", recursive=True)
    there = PredictionsReader.open("s3://reader/out a", STORAGE)
    assert there.counts() == reader.counts()
    assert there.to_arrow().sort_by("image_id").equals(reader.to_arrow().sort_by("image_id"))


def test_the_log_is_read_from_its_checkpoint(output: Output, reader: PredictionsReader) -> None:
    log = Path(Layout(str(output.path)).log_entry(0)).parent
    assert list(log.glob("*.checkpoint.parquet"))
    assert reader.version == DeltaTable(Layout(str(output.path)).predictions).version()
