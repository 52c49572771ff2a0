"""A sample of an output, computed again; and what is said of outputs that are not what their model gives."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.verify import main
from pipeline.errors import AgreementError, SpaceError, TableError
from pipeline.labels import head as heads, own_head
from pipeline.labels.relabelling import relabel
from pipeline.output.reader import PredictionsReader
from pipeline.run import run
from pipeline.space_model import last_run, open_model
from pipeline.storage.filesystems import Storage
from pipeline.verify import verify
from tests.support import lakes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_cluster")]
COUNT = 40


@pytest.fixture(scope="module")
def finished(local_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of two datasets, one of them small and of images that its manifest carries, and its output."""
    folder = tmp_path_factory.mktemp("verify")
    paths = lakes.folder_of_images(folder / "images", COUNT)
    model = lakes.tiny_vit(folder / "model")
    rows = [
        {"image_id": f"{n:03}", "uri": str(path), "dataset": "small" if n < 5 else "large", "bytes": None}
        for n, path in enumerate(paths)
    ]
    for row in rows[:3]:
        row |= {"bytes": Path(str(row["uri"])).read_bytes(), "uri": f"carried-{row['image_id']}"}
    schema = pa.schema({"image_id": pa.string(), "uri": pa.string(), "dataset": pa.string(), "bytes": pa.binary()})
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "manifest.parquet")
    assert run(lakes.settings(folder / "manifest.parquet", model, folder / "out")).account.total.ok == COUNT
    return folder


@pytest.fixture
def lake(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lake as the run left it, whatever the tests before did to it."""
    kept = finished.with_name("kept")
    if not kept.exists():
        shutil.copytree(finished, kept)
    shutil.rmtree(finished)
    shutil.copytree(kept, finished)
    return finished


def test_an_output_agrees_with_plain_transformers(lake: Path) -> None:
    verdict = verify(str(lake / "out"), Storage(), sample=1000)
    assert [(one.dataset, one.images) for one in verdict.agreements] == [("large", 35), ("small", 5), (None, 40)]
    assert min(one.cosine_min for one in verdict.agreements) > 0.99999
    assert [one.top1 for one in verdict.agreements] == [1.0] * 3
    assert (verdict.changed, verdict.gone) == (0, 0)


def test_labels_of_a_head_agree_with_a_fresh_forward_pass_and_wrong_ones_are_found_out(lake: Path) -> None:
    out, head = str(lake / "out"), str(lake / "heads" / "own")
    run_id = last_run(PredictionsReader.open(out, Storage()))
    assert run_id is not None
    made = own_head.make(open_model(out, Storage(), run_id), out)
    heads.save(made, head, Storage())
    relabel(out, head, Storage())
    verdict = verify(out, Storage(), sample=1000, head=head)
    assert [(one.dataset, one.top1) for one in verdict.agreements] == [("large", 1.0), ("small", 1.0), (None, 1.0)]
    heads.save(replace(made, bias=made.bias + np.arange(len(made.bias), dtype=np.float32)), head, Storage())
    assert (verify(out, Storage(), sample=1000, head=head).agreements[-1].top1 or 0) < 0.9
    with pytest.raises(TableError, match="has no labels of a head 'other'; it has own"):
        verify(out, Storage(), sample=10, head=head, name="other")


def test_a_sample_has_as_many_of_each_dataset_and_another_seed_draws_others(lake: Path) -> None:
    first, again, other = (verify(str(lake / "out"), Storage(), sample=8, seed=seed) for seed in (0, 0, 1))
    assert [one.images for one in first.agreements] == [4, 4, 8]
    assert first == again
    assert first != other


def test_images_that_changed_or_are_gone_are_counted_apart(lake: Path) -> None:
    images = sorted((lake / "images").iterdir())
    lakes.image(999).save(images[10], quality=90) if images[10].suffix == ".jpg" else images[10].unlink()
    images[20].unlink()
    images[21].write_bytes(b"no image any more")
    verdict = verify(str(lake / "out"), Storage(), sample=1000)
    assert verdict.changed + verdict.gone == 3
    assert verdict.gone >= 2
    assert verdict.agreements[-1].images == COUNT - 3
    shutil.rmtree(lake / "images")
    assert verify(str(lake / "out"), Storage(), sample=1000).agreements[-1].images == 3  # the carried ones


def test_vectors_of_other_images_are_found_out(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(str(lake / "out"), sample=30)
    assert "large" in capsys.readouterr().out
    for path in (lake / "out" / "predictions").glob("dataset=large/outcome=ok/*.parquet"):
        table = pq.read_table(path, partitioning=None)
        turned = pa.chunked_array(
            [np.roll(table["embedding"].combine_chunks(), 1).tolist()], table["embedding"].type
        )
        pq.write_table(table.set_column(table.column_names.index("embedding"), "embedding", turned), path)
    with pytest.raises(AgreementError, match=r"out .* in large, mean cosine 0\.\d+ < 0\.997\.$"):
        main(str(lake / "out"), sample=30)


def test_another_model_in_the_place_of_the_first_is_refused(lake: Path) -> None:
    lakes.tiny_vit(lake / "model", seed=7)
    with pytest.raises(SpaceError, match=r"model .* did not make .*out.* fingerprint"):
        verify(str(lake / "out"), Storage(), sample=5)


def test_an_output_without_labelled_rows_or_configs_is_one_sentence(lake: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"^There are no predictions at "):
        verify(str(tmp_path), Storage(), sample=5)
    for path in (lake / "out" / "runs").glob("*/config.yaml"):
        path.unlink()
    with pytest.raises(TableError, match=r"config\.yaml is gone"):
        verify(str(lake / "out"), Storage(), sample=5)


def test_rows_of_data_uris_are_not_drawn_but_counted(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def write_out(dataset: str) -> None:
        for path in (lake / "out" / "predictions").glob(f"dataset={dataset}/outcome=ok/*.parquet"):
            table = pq.read_table(path, partitioning=None)
            uris = pa.array([f"data:image/png;sha256={'0' * 64}"] * table.num_rows, pa.string())
            pq.write_table(table.set_column(table.column_names.index("uri"), "uri", uris), path)

    write_out("small")
    main(str(lake / "out"), sample=1000)
    assert "5 rows come from data: URIs and were not sampled" in capsys.readouterr().out
    verdict = verify(str(lake / "out"), Storage(), sample=1000)
    assert [one.dataset for one in verdict.agreements] == ["large", None]
    assert verdict.written_out == 5
    write_out("large")
    with pytest.raises(TableError, match=r"40 labelled rows .*out.* data: URIs"):
        verify(str(lake / "out"), Storage(), sample=5)
