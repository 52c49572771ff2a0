"""manifest − committed = pending, and every row counted once."""

import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.config import ManifestConfig, PlanningConfig
from pipeline.errors import ManifestError, StorageError
from pipeline.planning import difference, plan as plan_module
from pipeline.planning.account import Counts
from pipeline.planning.plan import open_plan
from pipeline.planning.selection import Selection
from pipeline.storage import temporary_folders
from tests.support import lakes
from tests.support.making import STORAGE, write_fragment
from tests.support.plans import committed, config, outcome


def test_without_a_table_every_valid_row_is_pending(tmp_path: Path) -> None:
    rows = [{"uri": f"/{i}.jpg", "dataset": d} for i, d in enumerate("aba")]
    account, pending = outcome(config(tmp_path, rows), tmp_path / "pending")
    assert account.datasets == {"a": Counts(input=2, left=2), "b": Counts(input=1, left=1)}
    assert len(pending) == 3


def test_of_rows_with_one_image_id_the_first_wins(tmp_path: Path) -> None:
    rows = [
        {"uri": "/x", "image_id": "1", "dataset": "late"},
        {"uri": "/y", "image_id": "2", "dataset": "a"},
        {"uri": "/z", "image_id": "1", "dataset": "a"},
        {"uri": "/z", "image_id": "1", "dataset": "a"},
    ]
    account, pending = outcome(config(tmp_path, rows), tmp_path / "pending")
    assert account.datasets == {"a": Counts(input=3, left=1, duplicates=2), "late": Counts(input=1, left=1)}
    assert {row["uri"] for row in pending} == {"/x", "/y"}


def test_an_invalid_row_does_not_win_over_a_later_valid_one(tmp_path: Path) -> None:
    rows = [{"uri": "/x", "image_id": "1", "offset": 5}, {"uri": "/y", "image_id": "1"}]
    account, pending = outcome(config(tmp_path, rows), tmp_path / "pending")
    assert account.total == Counts(input=2, invalid=1, left=1)
    assert [row["uri"] for row in pending] == ["/y"]


def test_invalid_rows_are_counted_and_not_pending(tmp_path: Path) -> None:
    rows = [
        {"uri": None},
        {"uri": ""},
        {"uri": "/a", "offset": 0, "length": -1},
        {"uri": "/b", "dataset": ""},
        {"uri": "/c"},
    ]
    account, pending = outcome(config(tmp_path, rows), tmp_path / "pending")
    assert account.total == Counts(input=5, invalid=4, left=1)
    assert [row["uri"] for row in pending] == ["/c"]


def test_rows_without_a_uri_are_invalid_not_duplicates_of_each_other(tmp_path: Path) -> None:
    account, _ = outcome(config(tmp_path, [{"uri": None, "x": 1}, {"uri": None, "x": 2}]), tmp_path / "pending")
    assert account.total == Counts(input=2, invalid=2)


def test_an_empty_manifest_has_nothing_pending(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri\n")
    account, pending = outcome(ManifestConfig(path=(str(tmp_path / "m.csv"),)), tmp_path / "pending")
    assert (account.total, pending) == (Counts(), [])


def test_committed_rows_are_already_done_whatever_their_dataset_was(tmp_path: Path) -> None:
    rows = [{"uri": f"/{i}", "image_id": str(i), "dataset": "ab"[i % 2]} for i in range(6)]
    table = committed(tmp_path / "out", {"a": ["0", "2"], "moved": ["3"], "gone": ["99"]})
    account, pending = outcome(config(tmp_path, rows), tmp_path / "pending", table)
    assert account.datasets == {
        "a": Counts(input=3, already_done=2, left=1),
        "b": Counts(input=3, already_done=1, left=2),
    }
    assert [row["image_id"] for row in pending] == ["4", "1", "5"]


def test_a_duplicate_of_a_committed_row_is_a_duplicate(tmp_path: Path) -> None:
    rows = [{"uri": "/0", "image_id": "0"}, {"uri": "/1", "image_id": "0"}]
    table = committed(tmp_path / "out", {"images": ["0"]})
    account, _ = outcome(config(tmp_path, rows), tmp_path / "pending", table)
    assert account.total == Counts(input=2, already_done=1, duplicates=1)


def test_files_that_were_written_but_never_committed_do_not_count(tmp_path: Path) -> None:
    table = committed(tmp_path / "out", {"images": ["0"]})
    write_fragment(str(tmp_path / "out"), "images", ["1"], 1)
    rows = [{"uri": "/", "image_id": id_} for id_ in "01"]
    account, pending = outcome(config(tmp_path, rows), tmp_path / "pending", table)
    assert account.total.already_done == 1
    assert [row["image_id"] for row in pending] == ["1"]


@pytest.mark.parametrize("folder", ["my lake", "100%", "grün", "a[b]c", "a+b&c#d"])
def test_a_table_below_an_unusual_folder_is_read(tmp_path: Path, folder: str) -> None:
    table = committed(tmp_path / folder / "out", {"images": ["0"]})
    account, _ = outcome(config(tmp_path, [{"uri": "/", "image_id": "0"}]), tmp_path / "pending", table)
    assert account.total == Counts(input=1, already_done=1)


def test_pending_files_have_the_pending_columns_and_then_the_kept_ones(tmp_path: Path) -> None:
    rows = [{"uri": "/a", "caption": "x", "stars": 4, "offset": 2, "length": 3, "version": 1}]
    with open_plan(config(tmp_path, rows, keep=("stars", "caption")), STORAGE, None) as found:
        (file,) = found.write_pending(str(tmp_path / "pending"), STORAGE)
    kept = [pa.field("stars", pa.string()), pa.field("caption", pa.string())]
    assert found.kept == kept
    assert pq.read_schema(file).equals(pa.schema([*schema.PENDING, *kept]))
    assert pq.read_table(file).to_pylist() == [
        {
            **{
                "image_id": "/a#bytes=2-4",
                "uri": "/a",
                "dataset": "images",
                "version": "1",
                "offset": 2,
                "length": 3,
            },
            **dict.fromkeys((schema.CARRIED_IN, schema.ROW, schema.TRIES, schema.REPLACES)),
            **{"stars": "4", "caption": "x"},
        }
    ]


@pytest.mark.parametrize("column", ["status", "ordinal", "problem", "first_ordinal", "input", "state", 'q"q'])
def test_a_kept_column_may_be_called_like_something_in_the_plan(tmp_path: Path, column: str) -> None:
    manifest = config(tmp_path, [{"uri": "/a", column: "kept"}], keep=(column,))
    account, pending = outcome(manifest, tmp_path / "pending")
    assert account.total == Counts(input=1, left=1)
    assert pending[0][column] == "kept"


def test_pending_rows_are_ordered_by_dataset_and_then_as_in_the_manifest(tmp_path: Path) -> None:
    rows = [{"uri": f"/{i}", "dataset": "cab"[i % 3]} for i in (5, 3, 8, 1, 0, 2)]
    _, pending = outcome(config(tmp_path, rows), tmp_path / "pending")
    assert [(row["dataset"], row["uri"]) for row in pending] == [
        *[("a", "/1")],
        *[("b", f"/{i}") for i in (5, 8, 2)],
        *[("c", f"/{i}") for i in (3, 0)],
    ]


def test_a_large_plan_is_cut_into_files_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "PENDING_FILE_ROWS", 4096)
    monkeypatch.setattr(plan_module, "PENDING_GROUP_ROWS", 1024)
    uris = [f"/{i:05}" for i in range(10_000)]
    pq.write_table(pa.table({"uri": uris}), tmp_path / "m.parquet")
    with open_plan(ManifestConfig(path=(str(tmp_path / "m.parquet"),)), STORAGE, None) as found:
        files = found.write_pending(str(tmp_path / "pending"), STORAGE)
    assert files == sorted(files)
    assert len(files) >= 3
    assert [uri for file in files for uri in pq.read_table(file).column("uri").to_pylist()] == uris
    assert max(pq.ParquetFile(file).metadata.row_group(0).num_rows for file in files) <= 1024


def test_a_plan_leaves_no_scratch_behind_even_if_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(temporary_folders.tempfile, "tempdir", str(temporary))
    outcome(config(tmp_path, [{"uri": "/a"}]), tmp_path / "pending")
    with pytest.raises(ManifestError), open_plan(ManifestConfig(path=(str(tmp_path / "no.csv"),)), STORAGE, None):
        pass
    assert list(temporary.iterdir()) == []


def test_a_manifest_that_breaks_off_half_way_is_one_sentence(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": [f"/{i}" for i in range(100_000)]}), tmp_path / "m.parquet")
    data = bytearray((tmp_path / "m.parquet").read_bytes())
    data[1000:200_000] = bytes(199_000)
    (tmp_path / "m.parquet").write_bytes(data)
    with (
        pytest.raises(ManifestError, match=r"Cannot read the manifest .*m\.parquet") as caught,
        open_plan(ManifestConfig(path=(str(tmp_path / "m.parquet"),)), STORAGE, None),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_manifest_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = lakes.write_manifest(tmp_path / "m.parquet", [{"uri": f"/{i}"} for i in range(9)])
    with open_plan(ManifestConfig(path=(str(path),)), STORAGE, None) as found:
        lakes.write_manifest(path, [{"uri": f"/{i}"} for i in range(5)])
        with pytest.raises(ManifestError, match=r"changed .* 9 .* 5 .*; run again"):
            found.write_pending(str(tmp_path / "pending"), STORAGE)


def test_manifests_of_several_formats_keep_their_order(tmp_path: Path) -> None:
    texts = {"1.csv": "uri,image_id\n/csv,x\n", "2.jsonl": json.dumps({"uri": "/jsonl", "image_id": "x"})}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    lakes.write_manifest(tmp_path / "3.parquet", [{"uri": "/parquet", "image_id": "x"}])
    for order in ("123", "321", "213"):
        paths = tuple(str(next(tmp_path.glob(f"{number}.*"))) for number in order)
        account, found = outcome(ManifestConfig(path=paths), tmp_path / order)
        assert account.total == Counts(input=3, duplicates=2, left=1)
        assert found[0]["uri"] == {"1": "/csv", "2": "/jsonl", "3": "/parquet"}[order[0]]


def test_a_plan_in_little_memory_spills_and_is_the_same(tmp_path: Path) -> None:
    uris = [f"s3://lake/{i:07}/{i * 7919 % 1_000_003:07}.jpg" for i in range(300_000)]
    pq.write_table(pa.table({"uri": [*uris, *uris[:1000]]}), tmp_path / "m.parquet")
    manifest = ManifestConfig(path=(str(tmp_path / "m.parquet"),))
    table = committed(tmp_path / "out", {"images": uris[::3]})
    with open_plan(manifest, STORAGE, table, limits=PlanningConfig(memory_gb=0.1)) as found:
        files = found.write_pending(str(tmp_path / "pending"), STORAGE)
    assert found.account.total == Counts(input=301_000, already_done=100_000, left=200_000, duplicates=1000)
    pending_uris = [uri for file in files for uri in pq.read_table(file, columns=["uri"])["uri"].to_pylist()]
    assert pending_uris == [uri for i, uri in enumerate(uris) if i % 3]


def test_text_that_is_not_utf_8_in_a_condition_is_null_and_told(tmp_path: Path) -> None:
    captions = pa.array([b"x", b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"uri": ["/a", "/b"], "caption": captions}), tmp_path / "m.parquet")
    (tmp_path / "m.csv").write_bytes(b"uri,caption\n/a,x\n/b,\xff\n")
    for name in ("m.parquet", "m.csv"):
        manifest = ManifestConfig(path=(str(tmp_path / name),))
        with open_plan(manifest, STORAGE, None, Selection(where="caption = 'x'")) as found:
            assert found.account.total == Counts(input=2, left=1, not_selected=1)
            assert len(found.lines) == 1


@pytest.mark.parametrize("bad", ["uri", "caption", "other"])
def test_text_that_is_not_utf_8_in_parquet_costs_a_value_and_no_plan(tmp_path: Path, bad: str) -> None:
    texts = {name: [b"/a", b"/b", b"/c"] for name in ("uri", "caption", "other")}
    texts[bad][1] = b"/caf\xe9"
    columns = {name: pa.array(values, pa.binary()).view(pa.string()) for name, values in texts.items()}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    manifest = ManifestConfig(path=(str(tmp_path / "m.parquet"),), keep=("caption",))
    with open_plan(manifest, STORAGE, None) as found:
        files = found.write_pending(str(tmp_path / "pending"), STORAGE)
        notes = found.lines
    pending = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert found.account.total == Counts(input=3, left=2 if bad == "uri" else 3, invalid=int(bad == "uri"))
    assert [row["caption"] for row in pending if row["uri"] == "/b"] == {
        "uri": [],
        "caption": [None],
        "other": ["/b"],
    }[bad]
    assert len(notes) == int(bad == "caption")


def test_rows_with_long_values_are_cut_into_files_by_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "PENDING_FILE_BYTES", 1 << 20)
    uris = [f"data:,{i:05}{'x' * 10_000}" for i in range(6000)]
    pq.write_table(pa.table({"uri": uris}), tmp_path / "m.parquet")
    with open_plan(ManifestConfig(path=(str(tmp_path / "m.parquet"),)), STORAGE, None) as found:
        files = found.write_pending(str(tmp_path / "pending"), STORAGE)
    assert len(files) >= 3
    assert [uri for file in files for uri in pq.read_table(file).column("uri").to_pylist()] == uris


def test_a_full_disk_is_not_called_a_lack_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uris = [f"s3://lake/{i:07}/{i * 7919 % 1_000_003:07}.jpg" for i in range(400_000)]
    pq.write_table(pa.table({"uri": uris}), tmp_path / "m.parquet")
    find_fates = difference.find_fates

    def on_a_small_disk(connection: duckdb.DuckDBPyConnection, selection: Selection) -> None:
        connection.execute("SET memory_limit = '30MB'")
        connection.execute("SET max_temp_directory_size = '1MB'")
        find_fates(connection, selection)

    monkeypatch.setattr(difference, "find_fates", on_a_small_disk)
    with (
        pytest.raises(StorageError, match="TMPDIR") as caught,
        open_plan(ManifestConfig(path=(str(tmp_path / "m.parquet"),)), STORAGE, None),
    ):
        pass
    assert "planning.memory_gb" in str(caught.value)


def test_each_reason_for_invalid_rows_says_where_the_first_one_is(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("uri,dataset\n/a,x\n\n,y\n/c,\n,z\n")
    (tmp_path / "2.jsonl").write_text('{"uri": "/d", "dataset": ""}\n{"uri": null}\n')
    paths = (str(tmp_path / "1.csv"), str(tmp_path / "2.jsonl"))
    with open_plan(ManifestConfig(path=paths), STORAGE, None) as found:
        assert found.problems == {"uri is missing": 3, "dataset is empty or a reserved name": 1}
        assert found.first_invalid == {
            "uri is missing": f"row 2 of {paths[0]}",
            "dataset is empty or a reserved name": f"row 1 of {paths[1]}",
        }
