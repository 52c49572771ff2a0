"""manifest − committed = pending, and every row counted once."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.config import ManifestConfig, PlanningConfig, RunConfig
from pipeline.errors import BusyError, ConfigError, ManifestError, SpaceError, StorageError
from pipeline.output import maintenance, space, widening
from pipeline.output.handover import Handover, HandoverFile
from pipeline.output.table import Predictions
from pipeline.planning import claim, plan as pending
from pipeline.planning.account import Account, Counts
from pipeline.planning.plan import MISSING, Selection, plan
from pipeline.run import run
from pipeline.storage import temporary_folders
from pipeline.storage.filesystems import Storage
from tests.support import lakes
from tests.support.making import STORAGE, edit_json, write_fragment

Rows = list[dict[str, Any]]


def config(folder: Path, rows: Rows, **settings: Any) -> ManifestConfig:
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ManifestConfig(path=(str(path),), **settings)


def outcome(
    manifest: ManifestConfig,
    out: Path,
    table: Predictions | None = None,
    selection: Selection = MISSING,
) -> tuple[Account, Rows]:
    """The account of a plan, and its pending rows as they are on disk."""
    with plan(manifest, STORAGE, table, selection) as found:
        files = found.write_pending(str(out), STORAGE)
        assert found.pending == found.account.total.left
    found.account.check()
    return found.account, [row for file in files for row in pq.read_table(file).to_pylist()]


def committed(output: Path, ids: dict[str, Sequence[str]]) -> Predictions:
    """A table that holds these ids, by dataset."""
    table = Predictions.create(str(output), STORAGE, [])
    epoch = table.claim("run", [])
    assert epoch is not None
    table.commit([write_fragment(str(output), name, rows, epoch) for name, rows in ids.items()], "run", epoch)
    return table


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
    with plan(config(tmp_path, rows, keep=("stars", "caption")), STORAGE, None) as found:
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
    monkeypatch.setattr(pending, "PENDING_FILE_ROWS", 4096)
    monkeypatch.setattr(pending, "PENDING_GROUP_ROWS", 1024)
    uris = [f"/{i:05}" for i in range(10_000)]
    pq.write_table(pa.table({"uri": uris}), tmp_path / "m.parquet")
    with plan(ManifestConfig(path=(str(tmp_path / "m.parquet"),)), STORAGE, None) as found:
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
    with pytest.raises(ManifestError), plan(ManifestConfig(path=(str(tmp_path / "no.csv"),)), STORAGE, None):
        pass
    assert list(temporary.iterdir()) == []


def test_a_manifest_that_breaks_off_half_way_is_one_sentence(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": [f"/{i}" for i in range(100_000)]}), tmp_path / "m.parquet")
    data = bytearray((tmp_path / "m.parquet").read_bytes())
    data[1000:200_000] = bytes(199_000)
    (tmp_path / "m.parquet").write_bytes(data)
    with (
        pytest.raises(ManifestError, match=r"Cannot read the manifest .*m\.parquet") as caught,
        plan(ManifestConfig(path=(str(tmp_path / "m.parquet"),)), STORAGE, None),
    ):
        pass
    assert "\n" not in str(caught.value)


def assignment(tmp_path: Path) -> RunConfig:
    rows = [{"uri": str(path)} for path in lakes.folder_of_images(tmp_path / "images", 6)]
    manifest_path = lakes.write_manifest(tmp_path / "m.parquet", rows)
    return lakes.settings(manifest_path, lakes.tiny_vit(tmp_path / "model"), tmp_path / "out")


def assigned(config: RunConfig, run_id: str, *selection: Selection, take_over: bool = False) -> claim.Assignment:
    found = claim.assign(config, run_id, *selection, take_over=take_over)
    assert isinstance(found, claim.Assignment)
    return found


def commit_all(found: claim.Assignment) -> None:
    """What a run would commit of its assignment, without Ray."""
    uris = [row["uri"] for file in found.files for row in pq.read_table(file).to_pylist()]
    fragment = write_fragment(found.target.output, "images", uris, found.epoch)
    found.table.commit([fragment], found.run_id, found.epoch)


def test_a_run_that_planned_before_another_one_made_the_table_plans_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = assignment(tmp_path)
    target = claim.target

    def overtaken(config: RunConfig) -> claim.Target:
        found = target(config)
        monkeypatch.setattr(claim, "target", target)
        commit_all(assigned(config, "first"))
        return found

    monkeypatch.setattr(claim, "target", overtaken)
    second = claim.assign(config, "second")
    assert isinstance(second, claim.NothingPending)
    assert second.account.total.already_done == 6


def test_predictions_whose_space_is_lost_are_refused(tmp_path: Path) -> None:
    config = assignment(tmp_path)
    commit_all(assigned(config, "first"))
    (tmp_path / "out" / "space.json").unlink()
    with pytest.raises(SpaceError, match=r"holds predictions but no space\.json, .*\.$"):
        claim.assign(config, "second")


def formats(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The formats that plans are asked for from now on."""
    asked: list[int] = []

    def noted(*given: Any, id_format: int, **options: Any) -> AbstractContextManager[pending.Plan]:
        asked.append(id_format)
        return plan(*given, id_format=id_format, **options)

    monkeypatch.setattr(claim, "plan", noted)
    return asked


def test_an_output_keeps_the_format_that_it_was_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, asked = assignment(tmp_path), formats(monkeypatch)
    assert claim.target(config).format == 2
    first = assigned(config, "first", Selection(limit=1))
    first.heartbeat.stop()
    edit_json(tmp_path / "out" / "space.json", format=...)
    assert claim.target(config).format == 1
    second = assigned(config, "second")
    second.heartbeat.stop()
    assert asked == [2, 1]
    assert "format" not in json.loads((tmp_path / "out" / "space.json").read_text())


def test_a_run_that_planned_in_another_format_than_the_one_that_made_the_output_plans_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, asked, claim = assignment(tmp_path), formats(monkeypatch), space.claim

    def older(output: str, description: dict[str, Any], storage: Storage) -> space.Space:
        """A run of an older version makes the output just before."""
        monkeypatch.setattr(space, "claim", claim)
        storage.write_json(f"{output}/space.json", description)
        return claim(output, description, storage)

    monkeypatch.setattr(space, "claim", older)
    found = assigned(config, "run")
    assert (asked, found.target.format, found.epoch, found.pending) == ([2, 1], 1, 1, 6)
    found.heartbeat.stop()


def test_a_kept_value_that_does_not_fit_is_found_before_anything_is_claimed(tmp_path: Path) -> None:
    config = assignment(tmp_path)
    uris = [str(path) for path in sorted((tmp_path / "images").iterdir())]
    kept = config.model_copy(update={"manifest": config.manifest.model_copy(update={"keep": ("rating",)})})
    pq.write_table(pa.table({"uri": uris[:3], "rating": [1, 2, 3]}), tmp_path / "m.parquet")
    first = assigned(kept, "first")
    first.heartbeat.stop()
    before = sorted((tmp_path / "out").rglob("*"))
    pq.write_table(pa.table({"uri": uris, "rating": [4.0, 4.5] * 3}), tmp_path / "m.parquet")
    with pytest.raises(
        ManifestError, match=r"4\.5 .*; widen the column with lakelens compact .* --widen rating=double$"
    ):
        claim.assign(kept, "second")
    assert sorted((tmp_path / "out").rglob("*")) == before
    assert widening.widen(first.target.output, STORAGE, {"rating": "double"}) == 0
    third = assigned(kept, "third")
    assert [field.type for field in third.table.kept_columns()] == [pa.float64()]
    third.heartbeat.stop()


def test_a_run_that_adds_columns_to_an_output_says_which(tmp_path: Path) -> None:
    config, said = assignment(tmp_path), list[str]()
    assigned(config, "first").heartbeat.stop()
    uris = [str(path) for path in sorted((tmp_path / "images").iterdir())]
    pq.write_table(pa.table({"uri": uris, "rating": [1] * 6}), tmp_path / "m.parquet")
    kept = config.model_copy(update={"manifest": config.manifest.model_copy(update={"keep": ("rating",)})})
    for run_id, sentences in [("second", 1), ("third", 0)]:
        said.clear()
        found = claim.assign(kept, run_id, say=said.append)
        assert isinstance(found, claim.Assignment)
        found.heartbeat.stop()
        assert len([line for line in said if "rating" in line and str(tmp_path / "out") in line]) == sentences


def test_a_damaged_heartbeat_stops_a_run_with_its_name(tmp_path: Path) -> None:
    config = assignment(tmp_path)
    first = assigned(config, "first")
    first.heartbeat.stop()
    sign = tmp_path / "out" / "runs" / "first" / "heartbeat.json"
    sign.write_text("{")
    with pytest.raises(StorageError, match=rf"^{sign} is damaged: .*delete it"):
        claim.assign(config, "second")


@pytest.fixture
def failed(tmp_path: Path) -> Predictions:
    """A table of failed rows: a and c corrupt, b and "d d" timed out; "elsewhere" is not in the manifest."""
    table = committed(tmp_path / "out", {"x/y": ["a", "c", "elsewhere"]})
    fragments = [write_fragment(str(tmp_path / "out"), "x/y", ["b", "d d"], 1, code="timeout")]
    table.commit(fragments, "run", 1)
    return table


FAILED_LAKE = [{"uri": "/", "image_id": id_, "dataset": "x/y"} for id_ in ("a", "b", "c", "d d", "new", "a")]


@pytest.mark.parametrize(
    ("codes", "chosen"),
    [((), ["a", "b", "c", "d d"]), (("timeout",), ["b", "d d"]), (("timeout", "empty"), ["b", "d d"])],
)
def test_failed_rows_are_pending_again_and_say_which_file_holds_them(
    tmp_path: Path, failed: Predictions, codes: tuple[str, ...], chosen: list[str]
) -> None:
    selection = Selection(failed=True, codes=codes)
    account, pending = outcome(config(tmp_path, FAILED_LAKE), tmp_path / "pending", failed, selection)
    done = 4 - len(chosen)
    expected = Counts(input=6, already_done=done, not_selected=1, duplicates=1, left=len(chosen))
    assert account.total == expected
    assert sorted(row["image_id"] for row in pending) == chosen
    for row in pending:
        old = pq.read_table(tmp_path / "out" / "predictions" / row[schema.REPLACES], partitioning=None)
        assert row["image_id"] in old.column("image_id").to_pylist()
        assert row[schema.TRIES] == 1


def test_no_failed_row_of_a_code_leaves_nothing_to_do(tmp_path: Path, failed: Predictions) -> None:
    selection = Selection(failed=True, codes=("not_found",))
    account, pending = outcome(config(tmp_path, FAILED_LAKE), tmp_path / "pending", failed, selection)
    assert (account.total.already_done, account.total.not_selected, pending) == (4, 1, [])


def test_without_a_table_no_row_has_failed(tmp_path: Path) -> None:
    account, _ = outcome(config(tmp_path, FAILED_LAKE), tmp_path / "pending", None, Selection(failed=True))
    assert account.total == Counts(input=6, duplicates=1, not_selected=5)


VERSIONED = [{"uri": "/", "image_id": id_, "version": version} for id_, version in ("a1", "b2", "c3", "d4")]


@pytest.fixture
def versioned(tmp_path: Path) -> Predictions:
    """A table with a and c of version 1, b of version 2, d of no known version."""
    table = Predictions.create(str(tmp_path / "out"), STORAGE, [])
    assert table.claim("run", []) == 1
    fragments = [
        write_fragment(str(tmp_path / "out"), "images", ids, 1, version=version)
        for ids, version in ((["a", "c"], "1"), (["b"], "2"), (["d"], None))
    ]
    table.commit(fragments, "run", 1)
    return table


def test_a_row_whose_version_has_changed_is_pending_again_and_names_the_file_of_its_old_row(
    tmp_path: Path, versioned: Predictions
) -> None:
    account, rows = outcome(config(tmp_path, VERSIONED), tmp_path / "pending", versioned)
    assert account.total == Counts(input=4, already_done=3, left=1)
    (row,) = rows
    old = pq.read_table(tmp_path / "out" / "predictions" / row[schema.REPLACES], partitioning=None)
    assert (row["image_id"], old.column("image_id").to_pylist()) == ("c", ["a", "c"])
    assert row[schema.TRIES] is None  # another object: its attempts are counted anew


def test_a_manifest_without_versions_changes_nothing(tmp_path: Path, versioned: Predictions) -> None:
    rows = [{"uri": "/", "image_id": id_} for id_ in "abcd"]
    account, _ = outcome(config(tmp_path, rows), tmp_path / "pending", versioned)
    assert account.total == Counts(input=4, already_done=4)


CHOICE = [
    {"uri": f"/{i}", "image_id": str(i), "dataset": "ab"[i % 2], "year": 2000 + i, "text": f"t{i}"}
    for i in range(8)
]


@pytest.mark.parametrize("format_", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        (Selection(datasets=("b",)), ["1", "3", "5", "7"]),
        (Selection(datasets=("a", "nowhere")), ["2", "4", "6"]),
        (Selection(where="year::INT > 2004 AND text <> 't6'"), ["5", "7"]),
        (Selection(where="year::INT > 2004 -- late", datasets=("a",)), ["6"]),
        (Selection(where="nullif(year::INT, 2003) IS NULL"), ["3"]),
        (Selection(where="uri LIKE '%7' OR NULL"), ["7"]),
    ],
)
def test_only_selected_rows_are_pending_and_the_others_are_counted(
    tmp_path: Path, format_: str, selection: Selection, chosen: list[str]
) -> None:
    table = committed(tmp_path / "out", {"a": ["0"]})
    path = tmp_path / f"m.{format_}"
    rows = pa.Table.from_pylist(CHOICE)
    if format_ == "parquet":
        pq.write_table(rows, path)
    elif format_ == "csv":
        rows.to_pandas().to_csv(path, index=False)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in CHOICE))
    account, found = outcome(ManifestConfig(path=(str(path),)), tmp_path / "pending", table, selection)
    assert sorted(row["image_id"] for row in found) == chosen
    assert account.total == Counts(input=8, already_done=1, left=len(chosen), not_selected=7 - len(chosen))


@pytest.mark.parametrize("where", ["nowhere = 1", "year >", "max(year) = 1", "("])
def test_a_condition_that_does_not_fit_is_one_sentence(tmp_path: Path, where: str) -> None:
    with (
        pytest.raises(ConfigError, match=r"^--where .* does not fit the manifest .*m.*: .*\.$") as caught,
        plan(config(tmp_path, CHOICE), STORAGE, None, Selection(where=where)),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_limit_leaves_the_rest(tmp_path: Path) -> None:
    with plan(config(tmp_path, CHOICE), STORAGE, None, Selection(limit=3)) as found:
        files = found.write_pending(str(tmp_path / "pending"), STORAGE)
    assert (found.pending, found.account.total) == (3, Counts(input=8, left=8))
    assert [row["image_id"] for file in files for row in pq.read_table(file).to_pylist()] == ["0", "2", "4"]
    with plan(config(tmp_path, CHOICE), STORAGE, None, Selection(limit=30)) as found:
        assert found.pending == 8


def test_a_manifest_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = lakes.write_manifest(tmp_path / "m.parquet", [{"uri": f"/{i}"} for i in range(9)])
    with plan(ManifestConfig(path=(str(path),)), STORAGE, None) as found:
        lakes.write_manifest(path, [{"uri": f"/{i}"} for i in range(5)])
        with pytest.raises(ManifestError, match=r"^The manifest has changed while it was read; run again\.$"):
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
    with plan(manifest, STORAGE, table, limits=PlanningConfig(memory_gb=0.1)) as found:
        files = found.write_pending(str(tmp_path / "pending"), STORAGE)
    assert found.account.total == Counts(input=301_000, already_done=100_000, left=200_000, duplicates=1000)
    pending_uris = [uri for file in files for uri in pq.read_table(file, columns=["uri"])["uri"].to_pylist()]
    assert pending_uris == [uri for i, uri in enumerate(uris) if i % 3]


def test_a_live_run_is_not_taken_over_without_a_word(tmp_path: Path) -> None:
    config = assignment(tmp_path)
    first = assigned(config, "first")
    with pytest.raises(BusyError, match=r"^The run first \(.*\) is writing .* --take-over\.$"):
        claim.assign(config, "second")
    second = assigned(config, "second", take_over=True)
    assert (first.epoch, second.epoch, second.pending) == (1, 2, 6)
    first.heartbeat.stop()
    with pytest.raises(BusyError, match=r"^The run second "):
        claim.assign(config, "third")
    second.heartbeat.stop()
    HandoverFile(second.folder, STORAGE, Handover()).note_rate("torch", 7.5)
    third = assigned(config, "third")
    assert (third.epoch, third.previous.rate_of("torch")) == (3, 7.5)
    third.heartbeat.stop()


def test_a_run_that_finds_nothing_to_do_leaves_no_sign_and_asks_no_one(tmp_path: Path) -> None:
    config = assignment(tmp_path)
    first = assigned(config, "first")
    commit_all(first)
    before = sorted(tmp_path.rglob("*"))
    assert isinstance(claim.assign(config, "second"), claim.NothingPending)
    assert sorted(tmp_path.rglob("*")) == before
    first.heartbeat.stop()


def test_a_plan_whose_committed_files_are_compacted_away_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = assignment(tmp_path)
    first = assigned(config, "first")
    uris = [row["uri"] for file in first.files for row in pq.read_table(file).to_pylist()]
    for uri in uris[:4]:
        first.table.commit([write_fragment(first.target.output, "images", [uri], 1)], "first", 1)
    first.heartbeat.stop()
    target = claim.target

    def overtaken(config: RunConfig) -> claim.Target:
        found = target(config)
        monkeypatch.setattr(claim, "target", target)
        list(maintenance.compact(found.output, STORAGE))
        return found

    monkeypatch.setattr(claim, "target", overtaken)
    second = assigned(config, "second")
    assert (second.account.total.already_done, second.pending) == (4, 2)
    second.heartbeat.stop()


@pytest.mark.parametrize("status", ["running", "ended"])
def test_what_the_run_before_did_not_clear_up_is_cleared_up_by_the_next_one(tmp_path: Path, status: str) -> None:
    config = assignment(tmp_path)
    first = assigned(config, "first")
    commit_all(first)
    orphan = write_fragment(first.target.output, "images", ["of a killed writer"], first.epoch)
    assert run(config).run_id is None  # while it works, nothing is touched
    assert (tmp_path / "out" / "predictions" / orphan.path).exists()
    first.heartbeat.stop()
    sign = tmp_path / "out" / "runs" / "first" / "heartbeat.json"
    sign.write_text(json.dumps({"process": {"pid": 1}, "status": status, "at": "2020-01-01T00:00:00+00:00"}))
    assert run(config).run_id is None
    assert not (tmp_path / "out" / "predictions" / orphan.path).exists()
    versions = len(list((tmp_path / "out" / "predictions" / "_delta_log").glob("*.json")))
    assert run(config).run_id is None
    assert len(list((tmp_path / "out" / "predictions" / "_delta_log").glob("*.json"))) == versions


def test_text_that_is_not_utf_8_in_a_condition_is_null_and_told(tmp_path: Path) -> None:
    captions = pa.array([b"x", b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"uri": ["/a", "/b"], "caption": captions}), tmp_path / "m.parquet")
    (tmp_path / "m.csv").write_bytes(b"uri,caption\n/a,x\n/b,\xff\n")
    for name in ("m.parquet", "m.csv"):
        manifest = ManifestConfig(path=(str(tmp_path / name),))
        with plan(manifest, STORAGE, None, Selection(where="caption = 'x'")) as found:
            assert found.account.total == Counts(input=2, left=1, not_selected=1)
            assert len(found.lines) == 1


@pytest.mark.parametrize("bad", ["uri", "caption", "other"])
def test_text_that_is_not_utf_8_in_parquet_costs_a_value_and_no_plan(tmp_path: Path, bad: str) -> None:
    texts = {name: [b"/a", b"/b", b"/c"] for name in ("uri", "caption", "other")}
    texts[bad][1] = b"/caf\xe9"
    columns = {name: pa.array(values, pa.binary()).view(pa.string()) for name, values in texts.items()}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    manifest = ManifestConfig(path=(str(tmp_path / "m.parquet"),), keep=("caption",))
    with plan(manifest, STORAGE, None) as found:
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
