"""What benchmarks run on: images, models with random weights, and configs."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers

from pipeline import config
from pipeline.config import PoolConfig, RunConfig, WorkersConfig
from pipeline.demo.lake import make_lake

DEMO_MODEL = Path(__file__).parents[1] / "pipeline" / "demo" / "model"
DRAWN_IMAGES = 250
"""Different images, at most, where they are drawn; they repeat."""
DATASETS = 10
"""Datasets of a manifest of made-up rows."""


def vit_b16(folder: Path, **settings: int) -> str:
    """Save a ViT-B/16 with random weights, changed by `settings` of its `ViTConfig`; return its folder."""
    torch.manual_seed(0)
    network = transformers.ViTConfig(**{"num_labels": 1000, **settings})
    transformers.ViTForImageClassification(network).save_pretrained(folder)
    transformers.ViTImageProcessorPil().save_pretrained(folder)
    return str(folder)


def image_files(folder: Path | None, work: Path, count: int) -> list[Path]:
    """Return `count` readable images of a folder, or drawn ones, repeated if there are fewer."""
    if folder is None:
        manifest = pq.read_table(make_lake(work / "lake", images=min(count, DRAWN_IMAGES))).to_pylist()
        found = [Path(row["uri"]) for row in manifest if row["truth"] is not None]
    else:
        found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [found[i % len(found)].absolute() for i in range(count)]


def settings_for(uris: Sequence[str | Path], model: str, precision: str, work: Path) -> RunConfig:
    """Return a config for these images; its manifest and output are below `work`."""
    rows = [{"uri": str(uri), "image_id": f"{i:06}"} for i, uri in enumerate(uris)]
    manifest = work / f"manifest-{len(rows)}.parquet"
    pq.write_table(pa.Table.from_pylist(rows), manifest)
    return config.parse(
        {
            "manifest": {"path": str(manifest)},
            "model": {"name": model, "precision": precision},
            "output": {"path": str(work / f"output-{len(rows)}")},
        }
    )


def settings_of_rows(folder: Path, rows: int) -> RunConfig:
    """Return a config for `rows` made-up URIs of ten datasets, with one actor a stage and the demo's model."""
    manifest = folder / "manifest.parquet"
    uris = pa.array([f"s3://lake/images/{number:012}.jpg" for number in range(rows)])
    names = pa.array([f"dataset-{DATASETS * number // rows}" for number in range(rows)])
    pq.write_table(pa.table({"uri": uris, "dataset": names}), manifest)
    raw: dict[str, Any] = {
        "manifest": {"path": str(manifest)},
        "model": {"name": str(DEMO_MODEL)},
        "output": {"path": str(folder / "out")},
    }
    one = PoolConfig(max_size=1)
    parsed = config.parse(raw, ["output.commit_interval_s=30"])
    return parsed.model_copy(update={"workers": WorkersConfig(decoders=one, predictors=one)})


def without_output(settings: RunConfig) -> RunConfig:
    """Delete the output of earlier runs."""
    shutil.rmtree(settings.output.path, ignore_errors=True)
    return settings
