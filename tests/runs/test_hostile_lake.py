"""A lake with broken, crashing, hanging and greedy files: every row accounted for, its neighbours untouched."""

from pathlib import Path

import pytest
import ray

from pipeline.run import run
from tests.support import lakes

pytestmark = [pytest.mark.slow, pytest.mark.ray]
HOSTILE = {
    **{f"crash{i}.jpg": (f"HOSTILE kill {11 if i % 2 else 6}", "decode_crashed") for i in range(6)},
    **{f"exit{i}.png": ("HOSTILE exit 0", "decode_crashed") for i in range(2)},
    **{f"hang{i}.jpg": ("HOSTILE loop" if i else "HOSTILE sleep", "decode_timeout") for i in range(2)},
    **{"greedy.jpg": ("HOSTILE eat 8", "out_of_memory"), "text.jpg": ("no image", "unsupported_format")},
}


def test_a_lake_of_hostile_files_is_accounted_for_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "PYTHONPATH", str(Path(__file__).parents[1] / "support" / "hostile")
    )  # Ray's workers hand it on
    good = lakes.folder_of_images(tmp_path / "lake", 120)
    for name, (text, _) in HOSTILE.items():
        (tmp_path / "lake" / name).write_text(text)
    model = lakes.tiny_vit(tmp_path / "model")
    overrides = ("workers.decoders={max_size: 2}", "decode.timeout_s=1", "decode.max_pixels=1000000")
    local = {"address": "local", "num_cpus": 2, "include_dashboard": False}
    with ray.init(**local, log_to_driver=False, logging_level="ERROR"):
        whole = run(lakes.settings(tmp_path / "lake", model, tmp_path / "out", *overrides)).account.total
        for name in HOSTILE:
            (tmp_path / "lake" / name).unlink()
        run(lakes.settings(tmp_path / "lake", model, tmp_path / "clean", *overrides))
    assert (whole.input, whole.ok, whole.failed, whole.left) == (120 + len(HOSTILE), 120, len(HOSTILE), 0)
    rows = {Path(row["uri"]).name: row for row in lakes.predictions(tmp_path / "out")}
    found = {name: row["error_code"] for name, row in rows.items() if row["outcome"] == "failed"}
    assert found == {name: code for name, (_, code) in HOSTILE.items()}
    clean = {Path(row["uri"]).name: row for row in lakes.predictions(tmp_path / "clean")}
    assert {path.name for path in good} == set(clean)
    for name, row in clean.items():
        assert rows[name]["embedding"] == pytest.approx(row["embedding"], abs=1e-3)
        assert rows[name]["label"] == row["label"]
