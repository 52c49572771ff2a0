"""The Ray callables, called without Ray: blocks in, blocks out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from transformers import AutoImageProcessor, AutoModelForImageClassification

from pipeline import schema
from pipeline.cluster.workers import Decoder, Predictor
from pipeline.config import RunConfig
from pipeline.engines import loading
from pipeline.engines.base import Engine, Scored
from pipeline.errors import EngineError, ModelError, OutOfMemory
from pipeline.models.model import Model, resolve
from pipeline.output.fragment_files import write_fragments
from pipeline.storage.filesystems import Storage
from tests.support import lakes


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    model = lakes.tiny_vit(tmp_path_factory.mktemp("model"))
    return lakes.settings("unused", model, "unused", "model.engine=torch")


@pytest.fixture(scope="module")
def model(settings: RunConfig) -> Model:
    return resolve(settings.model, Storage())


def pending(paths: list[Path]) -> pa.Table:
    rows = [{"image_id": path.name, "uri": str(path), "dataset": "d"} for path in paths]
    return pa.Table.from_pylist(rows, schema=schema.PENDING)


def predictor(
    settings: RunConfig, model: Model, load_engine: Callable[..., Engine] = loading.load_engine
) -> Predictor:
    return Predictor(settings, model.weights_sha256, "torch", 1, 1.0, 512, "run", "out", load_engine)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 65])
def test_a_decoder_gives_every_row_back_in_order(
    count: int, settings: RunConfig, model: Model, tmp_path: Path
) -> None:
    paths = lakes.folder_of_images(tmp_path, count)
    for path in paths[3::7]:
        path.write_text("no image")
    decoded = Decoder(settings, model.preprocessing, "run")(pending(paths))
    assert decoded.column("image_id").to_pylist() == [path.name for path in paths]
    codes = decoded.column("error_code").to_pylist()
    assert codes == ["unsupported_format" if i % 7 == 3 else None for i in range(count)]
    assert decoded.column_names == [*schema.PENDING.names, *schema.DECODED.names, schema.PIXELS]


def test_weights_that_lack_a_layer_are_refused(settings: RunConfig, tmp_path: Path) -> None:
    network = AutoModelForImageClassification.from_pretrained(settings.model.name)
    lost = next(name for name in network.state_dict() if name.endswith("layernorm_after.weight"))
    kept = {name: weight for name, weight in network.state_dict().items() if name != lost}
    network.save_pretrained(tmp_path, state_dict=kept)
    AutoImageProcessor.from_pretrained(settings.model.name, backend="pil").save_pretrained(tmp_path)
    lacking = settings.model_copy(update={"model": settings.model.model_copy(update={"name": str(tmp_path)})})
    with pytest.raises(ModelError, match=f"lack {lost}"):
        predictor(lacking, resolve(lacking.model, Storage()))(pending([]))


class Small(Engine):
    """An engine with room for a few images, and none for those whose first pixel is `hopeless`."""

    device, precision = "small", "fp32"

    def __init__(self, engine: Engine, room: int, hopeless: int | None, batches: list[int]) -> None:
        """It notes the sizes of its batches in `batches`."""
        self._engine, self._room, self._hopeless, self._batches = engine, room, hopeless, batches

    def start(self, pixels: NDArray[np.uint8]) -> Callable[[], Scored]:
        self._batches.append(len(pixels))
        if len(pixels) > self._room or self._hopeless in pixels[:, 0, 0, 0]:
            raise OutOfMemory
        return self._engine.start(pixels)


def small_engine(
    *, room: int, hopeless: int | None = None, batches: list[int] | None = None
) -> Callable[..., Engine]:
    """Take the place of `loading.load_engine`, with a `Small` engine around the real one."""
    return lambda *model, **options: Small(
        loading.load_engine(*model, **options), room, hopeless, [] if batches is None else batches
    )


def without_times(table: pa.Table) -> list[dict[str, Any]]:
    return table.drop_columns(["finished_at", "embedding", "score", "labels", "embedding_norm"]).to_pylist()


def test_a_batch_that_does_not_fit_is_halved_and_no_row_is_lost(
    settings: RunConfig, model: Model, tmp_path: Path
) -> None:
    decoded = Decoder(settings, model.preprocessing, "run")(pending(lakes.folder_of_images(tmp_path, 21)))
    expected = predictor(settings, model)(decoded)
    batches: list[int] = []
    found = predictor(settings, model, small_engine(room=3, batches=batches))(decoded)
    assert without_times(found) == without_times(expected)
    embeddings = [np.array(table.column("embedding").to_pylist()) for table in (found, expected)]
    assert np.allclose(*embeddings, atol=1e-3)
    assert batches[:2] == [8, 4]
    assert max(batches[2:]) <= 3


def test_an_image_that_never_fits_becomes_a_failed_row_and_its_neighbours_do_not(
    settings: RunConfig, model: Model, tmp_path: Path
) -> None:
    decoded = Decoder(settings, model.preprocessing, "run")(pending(lakes.folder_of_images(tmp_path, 9)))
    pixels = np.frombuffer(decoded.column(schema.PIXELS).chunk(0).buffers()[2], np.uint8).reshape(9, -1)
    firsts = pixels[:, 0].tolist()
    hopeless = next(value for value in firsts if firsts.count(value) == 1)
    rows = predictor(settings, model, small_engine(room=8, hopeless=hopeless))(decoded).to_pylist()
    failed = [(row["stage"], row["error_code"]) for row in rows if row["outcome"] == "failed"]
    assert failed == [("predict", "out_of_memory")]
    assert rows[firsts.index(hopeless)]["outcome"] == "failed"


def test_the_first_call_of_a_predictor_raises_the_error_of_its_start(settings: RunConfig, model: Model) -> None:
    other = Predictor(settings, "another hash", "torch", 1, 1.0, 512, "run", "out")
    with pytest.raises(ModelError, match="has other weights on this node"):
        other(pending([]))
    wrong = settings.model_copy(update={"model": settings.model.model_copy(update={"precision": "fp16"})})
    with pytest.raises(EngineError, match="no fp16 on CPUs"):
        Predictor(wrong, model.weights_sha256, "torch", 1, 1.0, 512, "run", "out")(pending([]))


def test_a_fragment_is_written_for_each_dataset_and_outcome(
    settings: RunConfig, model: Model, tmp_path: Path
) -> None:
    paths = lakes.folder_of_images(tmp_path / "images", 6)
    paths[0].write_text("no image")
    rows = pending(paths).set_column(2, schema.PENDING.field("dataset"), pa.array(["a/b", "c"] * 3))
    scored = predictor(settings, model)(Decoder(settings, model.preprocessing, "run")(rows))
    results = write_fragments(
        scored.slice(0, 2), scored.slice(2), output=str(tmp_path), storage=Storage(), epoch=7
    )
    found = {(one.fragment.dataset, one.fragment.outcome): one for one in results}
    assert {key: one.fragment.rows for key, one in found.items()} == {
        ("a/b", "failed"): 1,
        ("a/b", "ok"): 2,
        ("c", "ok"): 3,
    }
    assert found["a/b", "failed"].examples == (f"{paths[0]}: unsupported_format",)
    for one in (result.fragment for result in results):
        path = tmp_path / "predictions" / one.path
        assert path.name.startswith("7-")
        assert (pq.read_metadata(path).num_rows, path.stat().st_size) == (one.rows, one.size)


def test_a_fragment_names_the_files_that_hold_older_rows_of_its_ids(
    settings: RunConfig, model: Model, tmp_path: Path
) -> None:
    rows = pending(lakes.folder_of_images(tmp_path / "images", 4))
    replaces = pa.array(["dataset=d/outcome=failed/2", None, "dataset=d/outcome=failed/1", None], pa.string())
    rows = rows.set_column(rows.column_names.index(schema.REPLACES), schema.REPLACES, replaces)
    scored = predictor(settings, model)(Decoder(settings, model.preprocessing, "run")(rows))
    (one,) = write_fragments(scored, output=str(tmp_path), storage=Storage(), epoch=7)
    assert one.replaces == ("dataset=d/outcome=failed/1", "dataset=d/outcome=failed/2")
    assert schema.REPLACES not in pq.read_schema(tmp_path / "predictions" / one.fragment.path).names
