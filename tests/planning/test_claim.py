"""Claims: a plan becomes a run's own, and nobody else's."""

import json
import threading
from contextlib import AbstractContextManager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.config import RunConfig
from pipeline.errors import BusyError, ManifestError, SpaceError, StorageError
from pipeline.output import compaction, space, widening
from pipeline.output.handover import Handover, HandoverFile
from pipeline.planning import claim, plan as plan_module
from pipeline.planning.plan import open_plan
from pipeline.planning.selection import Selection
from pipeline.run import run
from pipeline.storage.filesystems import Storage
from tests.support import lakes
from tests.support.making import STORAGE, edit_json, write_fragment


def assignment(tmp_path: Path) -> RunConfig:
    rows = [{"uri": str(path)} for path in lakes.folder_of_images(tmp_path / "images", 6)]
    manifest_path = lakes.write_manifest(tmp_path / "m.parquet", rows)
    return lakes.settings(manifest_path, lakes.tiny_vit(tmp_path / "model"), tmp_path / "out")


def assigned(config: RunConfig, run_id: str, *selection: Selection, take_over: bool = False) -> claim.Assignment:
    found = claim.plan_and_claim(config, run_id, *selection, take_over=take_over)
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
    target = claim.resolve_target

    def overtaken(config: RunConfig) -> claim.Target:
        found = target(config)
        monkeypatch.setattr(claim, "resolve_target", target)
        commit_all(assigned(config, "first"))
        return found

    monkeypatch.setattr(claim, "resolve_target", overtaken)
    second = claim.plan_and_claim(config, "second")
    assert isinstance(second, claim.NothingPending)
    assert second.account.total.already_done == 6


def test_predictions_whose_space_is_lost_are_refused(tmp_path: Path) -> None:
    config = assignment(tmp_path)
    commit_all(assigned(config, "first"))
    (tmp_path / "out" / "space.json").unlink()
    with pytest.raises(SpaceError, match=r"holds predictions but no space\.json, .*\.$"):
        claim.plan_and_claim(config, "second")


def formats(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The formats that plans are asked for from now on."""
    asked: list[int] = []

    def noted(*given: Any, id_format: int, **options: Any) -> AbstractContextManager[plan_module.Plan]:
        asked.append(id_format)
        return open_plan(*given, id_format=id_format, **options)

    monkeypatch.setattr(claim, "open_plan", noted)
    return asked


def test_an_output_keeps_the_format_that_it_was_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, asked = assignment(tmp_path), formats(monkeypatch)
    assert claim.resolve_target(config).format == 2
    first = assigned(config, "first", Selection(limit=1))
    first.heartbeat.stop()
    edit_json(tmp_path / "out" / "space.json", format=...)
    assert claim.resolve_target(config).format == 1
    second = assigned(config, "second")
    second.heartbeat.stop()
    assert asked == [2, 1]
    assert "format" not in json.loads((tmp_path / "out" / "space.json").read_text())


def test_a_run_that_planned_in_another_format_than_the_one_that_made_the_output_plans_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, asked, claim = assignment(tmp_path), formats(monkeypatch), space.claim

    def older(output: str, description: dict[str, Any], storage: Storage) -> space.SpaceDescription:
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
    with pytest.raises(ManifestError, match=r"4\.5 .* lakelens compact .* --widen rating=double$"):
        claim.plan_and_claim(kept, "second")
    assert sorted((tmp_path / "out").rglob("*")) == before
    assert widening.widen(first.target.output, STORAGE, {"rating": "double"}) == 0
    third = assigned(kept, "third")
    assert [field.type for field in schema.kept(third.table.columns())] == [pa.float64()]
    third.heartbeat.stop()


def test_a_run_that_adds_columns_to_an_output_says_which(tmp_path: Path) -> None:
    config, said = assignment(tmp_path), list[str]()
    assigned(config, "first").heartbeat.stop()
    uris = [str(path) for path in sorted((tmp_path / "images").iterdir())]
    pq.write_table(pa.table({"uri": uris, "rating": [1] * 6}), tmp_path / "m.parquet")
    kept = config.model_copy(update={"manifest": config.manifest.model_copy(update={"keep": ("rating",)})})
    for run_id, sentences in [("second", 1), ("third", 0)]:
        said.clear()
        found = claim.plan_and_claim(kept, run_id, say=said.append)
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
        claim.plan_and_claim(config, "second")


def test_a_live_run_is_not_taken_over_without_a_word(tmp_path: Path) -> None:
    config = assignment(tmp_path)
    first = assigned(config, "first")
    with pytest.raises(BusyError, match=r"^The run first \(.*\) is writing .* --take-over\.$"):
        claim.plan_and_claim(config, "second")
    second = assigned(config, "second", take_over=True)
    assert (first.epoch, second.epoch, second.pending) == (1, 2, 6)
    first.heartbeat.stop()
    with pytest.raises(BusyError, match=r"^The run second "):
        claim.plan_and_claim(config, "third")
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
    assert isinstance(claim.plan_and_claim(config, "second"), claim.NothingPending)
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
    target = claim.resolve_target

    def overtaken(config: RunConfig) -> claim.Target:
        found = target(config)
        monkeypatch.setattr(claim, "resolve_target", target)
        list(compaction.compact(found.output, STORAGE))
        return found

    monkeypatch.setattr(claim, "resolve_target", overtaken)
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


def test_the_config_of_a_run_folder_holds_no_signature(tmp_path: Path) -> None:
    config = assignment(tmp_path)
    serve = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/m.parquet"
        manifest = config.manifest.model_copy(update={"path": (f"{url}?X-Amz-Signature=SECRET",)})
        found = assigned(config.model_copy(update={"manifest": manifest}), "run")
        found.heartbeat.stop()
        server.shutdown()
    written = (tmp_path / "out" / "runs" / "run" / "config.yaml").read_text()
    assert url in written
    assert "SECRET" not in written
