"""What readers make of the table: dataset names in folders, and kept columns."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as pds
import pytest
from deltalake import DeltaTable

from pipeline import schema
from pipeline.config import ManifestConfig
from pipeline.errors import LakeLensError, TableError
from pipeline.output import failed_rows, orphans, widening
from pipeline.output.fragment import Fragment
from pipeline.output.layout import PREDICTIONS, fragment_path
from pipeline.output.prediction_rows import parquet_bytes
from pipeline.output.table import Predictions
from pipeline.planning.plan import open_plan
from pipeline.planning.selection import Selection
from tests.support import lakes
from tests.support.making import STORAGE, prediction_rows, write_fragment

CAPTION = pa.field("caption", pa.string())
NAMES = [
    "plain",
    "with space",
    "100%",
    "a%20b",
    "a/b",
    "k=v",
    "grün-猫",
    "007",
    "2024-01-01",
    "a+b",
    "[x]*?",
    "o'q",
]
NAMES += ["..", 'a"b', "a:b", "tab\there", "#&~", "C:\\x", "true", "null"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One row in each of many oddly named datasets."""
    folder = str(tmp_path_factory.mktemp("out"))
    found = Predictions.create(folder, STORAGE, [])
    epoch = found.claim("run", [])
    assert epoch is not None
    found.commit([write_fragment(folder, name, [f"id of {name}"], epoch) for name in NAMES], "run", epoch)
    return folder


def expected() -> list[tuple[str, str]]:
    return sorted((name, f"id of {name}") for name in NAMES)


def test_deltalake_reads_every_dataset_name_back(out: str) -> None:
    rows = DeltaTable(f"{out}/{PREDICTIONS}").to_pyarrow_table(columns=["dataset", "image_id"]).to_pylist()
    assert sorted((row["dataset"], row["image_id"]) for row in rows) == expected()


def test_duckdb_reads_every_dataset_name_back_from_a_plain_glob(out: str) -> None:
    rows = duckdb.sql(
        f"SELECT dataset, image_id FROM read_parquet('{out}/{PREDICTIONS}/*/outcome=failed/*.parquet', "
        "hive_partitioning = true, hive_types = {'dataset': VARCHAR})"
    ).fetchall()
    assert sorted(rows) == expected()


def test_pyarrow_reads_every_dataset_name_back_from_hive_folders(out: str) -> None:
    folders = pds.partitioning(pa.schema([("dataset", pa.string()), ("outcome", pa.string())]), flavor="hive")
    dataset = pds.dataset(f"{out}/{PREDICTIONS}", partitioning=folders, format="parquet")
    rows = dataset.to_table(columns=["dataset", "image_id", "outcome"]).to_pylist()
    assert sorted((row["dataset"], row["image_id"]) for row in rows) == expected()
    assert {row["outcome"] for row in rows} == {"failed"}


def test_the_named_files_are_those_on_disk_and_none_is_an_orphan(out: str) -> None:
    found = Predictions.open(out, STORAGE)
    assert found is not None
    assert sorted(found.files()) == sorted(map(str, Path(out, PREDICTIONS).rglob("*.parquet")))
    assert orphans.delete(found, range(9)) == 0
    assert len(found.files()) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_dataset_is_one_folder_whatever_its_name(name: str) -> None:
    path = fragment_path(name, "ok", 1)
    assert path.count("/") == 2
    assert path.isascii()
    assert not set(path) & set(" *?[]\\:")


def test_a_new_table_has_the_output_schema_in_hive_folders(tmp_path: Path) -> None:
    Predictions.create(str(tmp_path), STORAGE, [])
    delta = DeltaTable(f"{tmp_path}/{PREDICTIONS}")
    assert pa.schema(delta.schema().to_arrow()).equals(schema.PREDICTIONS)
    assert delta.metadata().partition_columns == ["dataset", "outcome"]


def claimed(out: str, kept: list[pa.Field], run_id: str = "run") -> tuple[Predictions, int]:
    found = Predictions.open(out, STORAGE) or Predictions.create(out, STORAGE, kept)
    epoch = found.claim(run_id, kept)
    assert epoch is not None
    return found, epoch


def test_kept_columns_are_added_to_a_table_that_lacks_them(tmp_path: Path) -> None:
    out = str(tmp_path)
    found, epoch = claimed(out, [])
    found.commit([write_fragment(out, "a", ["1"], epoch)], "run", epoch)
    found, epoch = claimed(out, [CAPTION])
    assert schema.kept(found.columns()) == [CAPTION]
    found.commit([write_fragment(out, "a", ["2"], epoch, {"caption": "a cat"})], "run", epoch)
    rows = DeltaTable(f"{out}/{PREDICTIONS}").to_pyarrow_table(columns=["image_id", "caption"]).to_pylist()
    assert {row["image_id"]: row["caption"] for row in rows} == {"1": None, "2": "a cat"}


def test_a_run_that_keeps_fewer_columns_leaves_the_others_in_the_table(tmp_path: Path) -> None:
    claimed(str(tmp_path), [CAPTION])
    found, epoch = claimed(str(tmp_path), [])
    found.commit([write_fragment(str(tmp_path), "a", ["1"], epoch)], "run", epoch)
    assert schema.kept(found.columns()) == [CAPTION]


def test_claiming_with_the_same_kept_columns_is_one_commit(tmp_path: Path) -> None:
    found, _ = claimed(str(tmp_path), [CAPTION])
    assert found.version == 1


@pytest.mark.parametrize(
    "type_",
    [
        *(pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string()),
        *(pa.binary(), pa.date32(), pa.decimal128(10, 2), pa.timestamp("us"), pa.timestamp("us", tz="UTC")),
    ],
    ids=str,
)
def test_every_type_that_can_be_kept_is_the_same_for_the_next_run(tmp_path: Path, type_: pa.DataType) -> None:
    kept = [pa.field("extra", type_)]
    claimed(str(tmp_path / "new"), kept)
    claimed(str(tmp_path / "widened"), [])
    for out in ("new", "widened"):
        claimed(str(tmp_path / out), kept)
        found, _ = claimed(str(tmp_path / out), kept)
        assert schema.kept(found.columns()) == kept


def test_a_kept_column_whose_type_changed_is_one_sentence(tmp_path: Path) -> None:
    claimed(str(tmp_path), [CAPTION])
    found = Predictions.open(str(tmp_path), STORAGE)
    assert found is not None
    with pytest.raises(TableError) as caught:
        found.claim("next", [pa.field("caption", pa.int64())])
    sentence = str(caught.value)
    for part in ("'caption'", "int64", "string", str(tmp_path), "choose another output.path"):
        assert part in sentence
    assert "\n" not in sentence


def test_a_run_that_cannot_go_on_does_not_overtake_a_running_one(tmp_path: Path) -> None:
    running, epoch = claimed(str(tmp_path), [CAPTION])
    doomed = Predictions.open(str(tmp_path), STORAGE)
    assert doomed is not None
    with pytest.raises(TableError):
        doomed.claim("doomed", [pa.field("caption", pa.int64())])
    running.commit([write_fragment(str(tmp_path), "a", ["1"], epoch, {"caption": "x"})], "run", epoch)


def test_kept_columns_that_differ_only_in_case_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LakeLensError):
        Predictions.create(str(tmp_path), STORAGE, [CAPTION, pa.field("Caption", pa.string())])


def older(out: str, *lacking: str) -> None:
    """A table as a version without some built-in columns made it, with one row and one kept column."""
    columns = pa.schema([field for field in schema.predictions([CAPTION]) if field.name not in lacking])
    DeltaTable.create(f"{out}/{PREDICTIONS}", schema=columns, partition_by=list(schema.PARTITIONS))
    table = Predictions.existing(out, STORAGE)
    path = fragment_path("a", "failed", 1)
    data = parquet_bytes(prediction_rows(["old"], {"caption": "x"}).drop_columns(list(lacking)))
    STORAGE.write(f"{out}/{PREDICTIONS}/{path}", data)
    table.commit([Fragment(path, "a", "failed", 1, len(data))], "old", 1)


@pytest.mark.parametrize(
    "lacking", [("version",), ("attempts", "run_id"), ("decode_notes",), ("error_code",)], ids=str
)
def test_a_table_of_an_older_version_gets_the_columns_that_it_lacks_when_it_is_claimed(
    tmp_path: Path, lacking: tuple[str, ...]
) -> None:
    out = str(tmp_path)
    older(out, *lacking)
    found, epoch = claimed(out, [CAPTION])
    assert set(found.columns().names) == {*schema.PREDICTIONS.names, "caption"}
    assert schema.kept(found.columns()) == [CAPTION]
    found.commit([write_fragment(out, "a", ["new"], epoch, {"caption": "y"}, version="2")], "run", epoch)
    rows = DeltaTable(f"{out}/{PREDICTIONS}").to_pyarrow_table().sort_by("image_id").to_pylist()
    assert [[row[name] is None for name in lacking if name != "decode_notes"] for row in rows] == [
        [False for name in lacking if name != "decode_notes"],
        [True for name in lacking if name != "decode_notes"],
    ]
    assert [row["caption"] for row in rows] == ["y", "x"]
    version = found.version
    assert Predictions.existing(out, STORAGE).claim("next", [CAPTION]) is not None
    assert Predictions.existing(out, STORAGE).version == version + 1  # nothing is lacking any more


@pytest.mark.parametrize("lacking", ["version", "attempts", "error_code", "message"])
def test_a_table_of_an_older_version_is_planned_and_its_failures_are_told(tmp_path: Path, lacking: str) -> None:
    out = str(tmp_path / "out")
    older(out, lacking)
    manifest = lakes.write_manifest(
        tmp_path / "m.parquet",
        [{"uri": f"/{id_}", "image_id": id_, "version": "2"} for id_ in ("old", "new", "newer")],
    )
    config = ManifestConfig(path=(str(manifest),))

    def planned(failed: bool) -> tuple[int, int]:
        with open_plan(config, STORAGE, Predictions.open(out, STORAGE), Selection(failed=failed)) as found:
            return found.account.total.already_done, found.pending

    assert (planned(False), planned(True)) == ((1, 2), (0, 1))
    assert [one.rows for one in failed_rows.count_failures(out, STORAGE)] == [1]
    found, epoch = claimed(out, [])
    found.commit([write_fragment(out, "a", ["new"], epoch, version="2")], "run", epoch)
    assert (planned(False), planned(True)) == ((2, 1), (0, 2))
    assert failed_rows.export(out, str(tmp_path / "failed.csv"), STORAGE) == 2


def test_a_table_of_an_older_version_can_be_widened(tmp_path: Path) -> None:
    out, rating = str(tmp_path), pa.field("rating", pa.int64())
    older(out, "version")
    found, epoch = claimed(out, [rating])
    rows = prediction_rows(["new"], version="2").append_column(rating, [[3]])
    path, data = fragment_path("a", "failed", epoch), parquet_bytes(rows)
    STORAGE.write(f"{out}/{PREDICTIONS}/{path}", data)
    found.commit([Fragment(path, "a", "failed", 1, len(data))], "run", epoch)
    assert widening.widen(out, STORAGE, {"rating": "double"}) == 2
    again = Predictions.existing(out, STORAGE)
    assert schema.is_uneven(again.columns())
    seen = (
        again.newest().to_pyarrow_table(columns=["image_id", "version", "rating"]).sort_by("image_id").to_pylist()
    )
    assert [tuple(row.values()) for row in seen] == [("new", "2", 3.0), ("old", None, None)]
