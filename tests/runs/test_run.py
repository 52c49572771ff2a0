"""The main job on one machine, on local disk: manifest in, one row for each image out."""

import json
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from deltalake import DeltaTable
from PIL import Image
from ray.data import Dataset
from transformers import AutoImageProcessor, AutoModelForImageClassification

from pipeline import schema
from pipeline.cluster.stages import Setup, Stages
from pipeline.errors import EngineError, FailureRateError, SpaceError
from pipeline.planning import claim
from pipeline.planning.account import Progress
from pipeline.planning.plan import open_plan
from pipeline.run import run
from pipeline.storage.filesystems import Storage
from tests.support import lakes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_cluster")]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 good images in two datasets, 5 bad ones, 3 duplicates and 2 invalid rows; returns the manifest."""
    folder = tmp_path_factory.mktemp("lake")
    paths = lakes.folder_of_images(folder / "images", 70)
    (folder / "text.jpg").write_text("not an image")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(paths[1].read_bytes()[:-300])
    (folder / "noise.png").write_bytes(np.random.default_rng(0).bytes(500))
    bad = [folder / name for name in ("text.jpg", "empty.png", "cut.jpg", "noise.png", "missing.jpg")]
    rows = [
        {
            "image_id": path.name,
            "uri": str(path),
            "dataset": "007" if i % 2 else "street 50%/a=b",
            "caption": f"c{i}",
        }
        for i, path in enumerate(paths + bad)
    ]
    rows += [{**row, "caption": "again"} for row in rows[:3]]
    rows += [{**rows[0], "image_id": "no uri", "uri": None}, {**rows[0], "image_id": "x", "dataset": ""}]
    return lakes.write_manifest(folder / "manifest.parquet", rows)


@pytest.fixture(scope="module")
def finished(lake: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a whole run over the lake."""
    output = tmp_path_factory.mktemp("finished")
    run(lakes.settings(lake, model, output, "manifest.keep=[caption]", "labels.top_k=3"))
    return output


def test_every_image_is_exactly_one_row_and_the_account_balances(finished: Path, lake: Path) -> None:
    rows = lakes.predictions(finished, "image_id, dataset, outcome, error_code, stage, label, embedding, caption")
    failed = {row["image_id"]: (row["stage"], row["error_code"]) for row in rows if row["outcome"] == "failed"}
    assert len(rows) == len({row["image_id"] for row in rows}) == 75
    assert failed == {
        "text.jpg": ("decode", "unsupported_format"),
        "empty.png": ("fetch", "empty"),
        "cut.jpg": ("decode", "truncated"),
        "noise.png": ("decode", "unsupported_format"),
        "missing.jpg": ("fetch", "not_found"),
    }
    assert all((row["label"] is None) == (row["outcome"] == "failed") for row in rows)
    assert all((row["embedding"] is None) == (row["outcome"] == "failed") for row in rows)
    assert {row["dataset"] for row in rows} == {"007", "street 50%/a=b"}
    assert "again" not in {row["caption"] for row in rows}  # the first of the duplicates won

    (summary,) = finished.glob("runs/*/summary.json")
    facts = json.loads(summary.read_text())
    account, seconds = facts["account"], facts["worker_seconds"]
    assert min(seconds["fetch"], seconds["decode"], seconds["predict"]) > 0
    expected = {"input": 80, "already_done": 0, "ok": 70, "failed": 5, "duplicates": 3, "invalid": 2}
    assert account["total"] == {**expected, "not_selected": 0, "left": 0}
    assert account["datasets"][""] == {**dict.fromkeys(account["total"], 0), "input": 1, "invalid": 1}


def test_a_plain_glob_and_the_delta_log_name_the_same_files(finished: Path) -> None:
    on_disk = {str(path) for path in finished.glob("predictions/*/*/*.parquet")}
    assert on_disk == set(DeltaTable(str(finished / "predictions")).file_uris())


def test_the_files_have_the_documented_schema(finished: Path) -> None:
    for path in finished.glob("predictions/*/*/*.parquet"):
        found = pq.read_schema(path)
        assert found.names == [*schema.fragment(schema.PREDICTIONS).names, "caption"]
        for field in schema.fragment(schema.PREDICTIONS):
            assert found.field(field.name).type == field.type


def test_a_second_run_commits_nothing(finished: Path, lake: Path, model: Path) -> None:
    before = sorted(finished.rglob("*"))
    summary = run(lakes.settings(lake, model, finished, "manifest.keep=[caption]"))
    assert summary.run_id is None
    assert summary.account.total.already_done == 75
    assert sorted(finished.rglob("*")) == before


def test_a_grown_manifest_processes_only_the_new_rows(model: Path, tmp_path: Path) -> None:
    first, second = (
        lakes.folder_of_images(tmp_path / "a", 20),
        lakes.folder_of_images(tmp_path / "b", 15, first=20),
    )
    output = tmp_path / "out"
    manifest = lakes.write_manifest(tmp_path / "m.parquet", [{"uri": str(path)} for path in first])
    run(lakes.settings(manifest, model, output))
    lakes.write_manifest(tmp_path / "m.parquet", [{"uri": str(path)} for path in second + first])
    total = run(lakes.settings(manifest, model, output)).account.total
    assert (total.input, total.already_done, total.ok) == (35, 20, 15)
    rows = lakes.predictions(output, "uri, run_id")
    assert sorted(row["uri"] for row in rows) == sorted(map(str, first + second))
    assert len({row["run_id"] for row in rows}) == 2


@pytest.mark.parametrize(("engine", "pooling"), [("openvino", "cls"), ("torch", "mean")])
def test_labels_and_embeddings_are_those_of_transformers_and_every_space_has_its_folder(
    engine: str, pooling: str, tmp_path: Path
) -> None:
    model = lakes.tiny_vit(tmp_path / "model", resample=3)  # bicubic: its pixels are Pillow's to the last bit
    paths = lakes.folder_of_images(tmp_path / "images", 12)
    overrides = (f"model.engine={engine}", f"embedding.pooling={pooling}", "labels.top_k=4")
    where = (tmp_path / "images", model, tmp_path / "out" / "{space}")
    run(lakes.settings(*where, *overrides))
    (space,) = (tmp_path / "out").iterdir()
    assert claim.resolve_target(lakes.settings(*where, *overrides)).output == str(space)
    other = claim.resolve_target(
        lakes.settings(*where, f"embedding.pooling={'mean' if pooling == 'cls' else 'cls'}")
    )
    assert Path(other.output).parent == space.parent
    assert (other.output != str(space), other.table) == (True, None)
    rows = {row["uri"]: row for row in lakes.predictions(space)}

    processor = AutoImageProcessor.from_pretrained(model, backend="pil")
    network = AutoModelForImageClassification.from_pretrained(model).eval()
    for path in paths:
        inputs = processor(Image.open(path).convert("RGB"), return_tensors="pt")
        with torch.inference_mode():
            hidden = network.vit(**inputs).last_hidden_state[0]
            scores = network(**inputs).logits[0].softmax(0)
        vector = (hidden[0] if pooling == "cls" else hidden[1:].mean(0)).numpy()
        row = rows[str(path)]
        raw = np.array(row["embedding"]) * row["embedding_norm"]
        assert np.allclose(raw, vector, atol=2e-3 * np.abs(vector).max())
        assert np.isclose(np.linalg.norm(row["embedding"]), 1, atol=1e-3)
        best = scores.argsort(descending=True)[:4].tolist()
        assert [label["index"] for label in row["labels"]] == best
        assert [label["label"] for label in row["labels"]] == [f"label-{i}" for i in best]
        assert np.allclose([label["score"] for label in row["labels"]], scores[best], atol=1e-4)
        assert (row["label"], row["score"]) == (row["labels"][0]["label"], row["labels"][0]["score"])


def test_an_output_of_another_space_is_refused_and_both_are_named(
    finished: Path, lake: Path, tmp_path: Path
) -> None:
    other = lakes.tiny_vit(tmp_path / "other-vit", seed=1)
    with pytest.raises(SpaceError) as refused:
        run(lakes.settings(lake, other, finished))
    held = json.loads((finished / "space.json").read_text())
    assert held["fingerprint"] in str(refused.value)
    assert held["model"] in str(refused.value)
    assert str(other) in str(refused.value)


def test_a_stopped_run_leaves_rows_and_the_next_one_finishes_them(model: Path, tmp_path: Path) -> None:
    (path,) = lakes.folder_of_images(tmp_path, 1)
    rows = [{"uri": str(path), "image_id": f"{i:05}"} for i in range(20_000)]
    settings = lakes.settings(lakes.write_manifest(tmp_path / "all.parquet", rows), model, tmp_path / "out")
    stop = threading.Event()

    def stop_after_the_first_commit(progress: Progress) -> None:
        if progress.account.total.ok:
            stop.set()

    first = run(settings, stop=stop, on_progress=stop_after_the_first_commit)
    assert first.stopped
    done = first.account.total.ok
    assert 0 < done < 20_000
    assert first.account.total.left == 20_000 - done
    assert len(lakes.predictions(tmp_path / "out", "image_id")) == done

    lakes.write_manifest(tmp_path / "all.parquet", rows[: done + 50])
    second = run(settings).account.total
    assert (second.input, second.already_done + second.ok, second.left) == (done + 50, done + 50, 0)
    ids = [row["image_id"] for row in lakes.predictions(tmp_path / "out", "image_id")]
    assert len(ids) == len(set(ids)) >= done + 50


def test_commits_come_while_the_run_goes_on_and_at_once_for_the_first_block(model: Path, tmp_path: Path) -> None:
    lakes.folder_of_images(tmp_path / "images", 200)
    committed: list[int] = []
    run(
        lakes.settings(tmp_path / "images", model, tmp_path / "out", "output.rows_per_file=50"),
        on_progress=lambda progress: committed.append(progress.account.total.ok),
    )
    assert committed[-1] == 200
    assert 0 < min(count for count in committed if count) < 200
    assert DeltaTable(str(tmp_path / "out" / "predictions")).version() >= 3


def test_a_run_that_fails_wholesale_is_stopped_and_commits_nothing(model: Path, tmp_path: Path) -> None:
    rows = [{"uri": f"/nowhere/{i}.jpg"} for i in range(500)]
    manifest = lakes.write_manifest(tmp_path / "m.parquet", rows)
    settings = lakes.settings(
        manifest, model, tmp_path / "out", "failures.min_rows=100", "output.rows_per_file=32"
    )
    with pytest.raises(
        FailureRateError, match=r"max_rate = 0\.5\. .* Examples: /nowhere/\d+\.jpg: not_found, /nowhere/"
    ):
        run(settings)
    assert list((tmp_path / "out" / "predictions").glob("*/*/*.parquet")) == []
    with open_plan(settings.manifest, Storage(), claim.resolve_target(settings).table) as found:
        assert found.pending == 500


def test_a_run_whose_stages_cannot_be_built_clears_up_and_ends_its_commit_thread(
    model: Path, tmp_path: Path
) -> None:
    lakes.folder_of_images(tmp_path / "images", 1)

    def broken(images: Dataset, setup: Setup) -> Dataset:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(lakes.settings(tmp_path / "images", model, tmp_path / "out"), stages=Stages(scored=broken))
    (handover,) = tmp_path.glob("out/runs/*/handover.json")
    assert json.loads(handover.read_text())["cleared_up"]
    assert "commit" not in {thread.name for thread in threading.enumerate()}


def test_few_failures_at_the_start_are_committed_once_they_are_few_in_all(model: Path, tmp_path: Path) -> None:
    good = lakes.folder_of_images(tmp_path / "images", 80)
    uris = [f"/nowhere/{i}.jpg" for i in range(40)] + [str(path) for path in good]
    manifest = lakes.write_manifest(tmp_path / "m.parquet", [{"uri": uri} for uri in uris])
    settings = lakes.settings(
        manifest, model, tmp_path / "out", "failures.min_rows=100", "output.rows_per_file=32"
    )
    total = run(settings).account.total
    assert (total.ok, total.failed) == (80, 40)


def test_an_engine_that_cannot_run_is_one_sentence(model: Path, tmp_path: Path) -> None:
    lakes.folder_of_images(tmp_path / "images", 2)
    overrides = ("model.engine=torch", "model.precision=fp16")
    settings = lakes.settings(tmp_path / "images", model, tmp_path / "out", *overrides)
    with pytest.raises(EngineError, match=r"^The engine torch has no fp16 on CPUs; .*\.$"):
        run(settings)
