"""The int8 model of an output: made by its first run, kept, used by the next one, refused if it is not good."""

from pathlib import Path

import pytest

from pipeline import calibration, open_space, schema
from pipeline.config import RunConfig
from pipeline.errors import AgreementError, EngineError, ModelError, SpaceError
from pipeline.models import int8
from pipeline.models.comparison import Limits
from pipeline.models.model import resolve
from pipeline.output.layout import Layout
from pipeline.run import run
from pipeline.storage.filesystems import Storage
from pipeline.verify import verify
from tests.support import lakes

pytestmark = pytest.mark.usefixtures("local_cluster")
COUNT = calibration.CALIBRATED + 20


@pytest.fixture(scope="module")
def finished(local_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("int8")
    lakes.folder_of_images(folder / "images", COUNT)
    # Weights of the usual size, where int8 stays well within the limits: a mean cosine of 0.9997 without VNNI.
    model = lakes.tiny_vit(folder / "model", labels=3, spread=0.02)
    settings = lakes.settings(folder / "images", model, folder / "out", "model.precision=int8")
    assert run(settings).account.total.ok == COUNT
    return settings


@pytest.mark.slow
def test_the_first_run_makes_the_model_and_later_ones_use_it(finished: RunConfig) -> None:
    output = finished.output.path
    made = int8.find(Layout(output).int8_model, Storage())
    assert made is not None
    assert (made.images, made.cosine_mean > 0.997, made.top1 >= 0.9) == (calibration.CALIBRATED, True, True)
    lakes.folder_of_images(Path(finished.manifest.path[0]), 5, first=COUNT)
    assert run(finished).account.total.ok == 5
    assert int8.find(Layout(output).int8_model, Storage()) == made
    overall = verify(output, Storage(), sample=20).agreements[-1]
    assert 0.997 < overall.cosine_mean < 0.99999  # it is int8, and verify compares with float32
    image = str(Path(finished.manifest.path[0]) / "00003.png")
    first = open_space(output).search(image, k=1).to_dicts()[0]  # the query goes through int8, too
    assert (first["uri"], first["distance"]) == (image, pytest.approx(0, abs=1e-5))


@pytest.mark.slow
def test_an_int8_output_refuses_a_run_in_fp32(finished: RunConfig) -> None:
    other = finished.model_copy(update={"model": finished.model.model_copy(update={"precision": "fp32"})})
    with pytest.raises(SpaceError, match="holds the embedding space of"):
        run(other)


@pytest.mark.slow
def test_a_damaged_model_is_refused(finished: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKELENS_CACHE", str(tmp_path))
    output = finished.output.path
    assert int8.fetch(Layout(output).int8_model, Storage()).exists()
    monkeypatch.setenv("LAKELENS_CACHE", str(tmp_path / "another node"))
    (graph,) = Path(output).glob("model/*/graph.bin")
    kept = graph.read_bytes()
    try:
        graph.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        with pytest.raises(ModelError, match=r"^The int8 model below .* is damaged"):
            int8.fetch(Layout(output).int8_model, Storage())
    finally:
        graph.write_bytes(kept)


@pytest.mark.slow
def test_a_model_that_is_too_far_from_float32_is_not_stored(
    finished: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "Limits", lambda: Limits(cosine_mean=0.9999999))
    files = tuple(sorted(map(str, Path(finished.output.path).glob("runs/*/pending/*.parquet"))))
    with pytest.raises(AgreementError, match=r"^The int8 model of .* is too far from float32: mean cosine 0\.99"):
        calibration.make_int8._function(finished, str(tmp_path), files)
    assert int8.find(Layout(str(tmp_path)).int8_model, Storage()) is None


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    paths = lakes.folder_of_images(tmp_path / "images", 3)
    rows = [dict.fromkeys(schema.PENDING.names) | {"image_id": path.name, "uri": str(path)} for path in paths]
    lakes.write_manifest(tmp_path / "pending.parquet", rows)
    settings = lakes.settings(tmp_path, lakes.tiny_vit(tmp_path / "model"), tmp_path / "out")
    with pytest.raises(EngineError, match=r"^Precision int8 .* 300 images, .* 3 pending rows only 3 "):
        calibration.make_int8._function(settings, str(tmp_path / "out"), (str(tmp_path / "pending.parquet"),))


def test_rows_are_drawn_from_all_files_and_failed_ones_are_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "WANTED", 6)
    paths = lakes.folder_of_images(tmp_path / "images", 40)
    for path in paths[::2]:
        path.write_bytes(b"no image")
    for part in (0, 1):
        rows = [dict.fromkeys(schema.PENDING.names) | {"image_id": p.name, "uri": str(p)} for p in paths[part::2]]
        lakes.write_manifest(tmp_path / f"{part}.parquet", rows)
    files = tuple(str(tmp_path / f"{part}.parquet") for part in (0, 1))
    drawn = calibration.drawn(files, Storage())
    assert sorted(drawn["image_id"].to_pylist()) == sorted(path.name for path in paths)
    assert drawn == calibration.drawn(files, Storage())
    settings = lakes.settings(tmp_path, lakes.tiny_vit(tmp_path / "model"), tmp_path / "out")
    steps = resolve(settings.model, Storage()).preprocessing
    images = calibration.decoded_images(settings, drawn, steps)
    assert images.shape == (6, steps.height, steps.width, 3)


def test_a_missing_or_invalid_description_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model holds no int8 model\.$"):
        int8.fetch(Layout(str(tmp_path)).int8_model, Storage())
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "int8.json").write_text("{}")
    with pytest.raises(ModelError, match=r"int8\.json does not describe an int8 model"):
        int8.find(Layout(str(tmp_path)).int8_model, Storage())


def test_only_int8_is_quantised() -> None:
    assert [int8.recipe(one) is None for one in ("auto", "bf16", "fp32", "int8")] == [True, True, True, False]
