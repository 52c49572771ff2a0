"""A whole run on a CUDA device; and `make gpu` on the CPU, so that it will not fail for a typo."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from pipeline.config import WorkersConfig
from pipeline.run import run
from pipeline.storage.filesystems import Storage
from pipeline.verify import verify
from tests.support import lakes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_cluster")]


def test_everything_that_make_gpu_measures_can_be_measured_on_a_cpu(tmp_path: Path) -> None:
    found = gpu.measure("cpu", tmp_path, tmp_path / "gpu.json")
    assert json.loads((tmp_path / "gpu.json").read_text()) == json.loads(json.dumps(found))
    assert not [name for name, part in found.items() if "error" in part]
    assert [row["batch"] for row in found["engine"]] == [4, 8]
    assert all(row["images_per_s"] > 0 for row in found["engine"])
    memory = found["memory"]
    assert (memory["rows"], memory["of"]) == (8, 8)
    assert memory["refused_batches"]
    assert memory["difference"] < 1e-4
    assert found["job"]["ok"] == found["job"]["images"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_a_gpu_holds_what_transformers_compute(tmp_path: Path) -> None:
    lakes.folder_of_images(tmp_path / "lake", 100)
    settings = lakes.settings(
        str(tmp_path / "lake"), str(lakes.tiny_vit(tmp_path / "model")), str(tmp_path / "out")
    )
    summary = run(settings.model_copy(update={"workers": WorkersConfig(device="gpu")}))
    assert (summary.device, summary.account.total.ok) == ("GPU", 100)
    assert verify(str(tmp_path / "out"), Storage(), sample=100).agreements[-1].cosine_mean > 0.999
