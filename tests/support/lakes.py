"""Small real things for the end-to-end tests: a tiny ViT, a folder of images, a manifest, a config."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from pipeline import config
from pipeline.config import RunConfig
from pipeline.models.families import FAMILY_OF

SIZE = 32
SMALL: dict[str, Any] = {
    **{"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96},
    **{"image_size": SIZE, "patch_size": 8, "initializer_range": 0.2},
}
"""A small ViT of any type."""


def tiny_vit(folder: Path, *, seed: int = 0, labels: int = 7, resample: int = 2, spread: float = 0.2) -> Path:
    """A ViT with random weights, of that standard deviation, for 32x32 images, saved as a Hugging Face folder."""
    torch.manual_seed(seed)
    names = {i: f"label-{i}" for i in range(labels)}
    settings = ViTConfig(**SMALL | {"initializer_range": spread}, id2label=names)
    ViTForImageClassification(settings).eval().save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}, resample=resample).save_pretrained(folder)
    return folder


def tiny_encoder(folder: Path, model_type: str, *, head: bool = False, text: dict[str, Any] | None = None) -> Path:
    """An image encoder of any supported type that takes 32x32 images; all of its weights are random."""
    torch.manual_seed(1)
    values = _settings_of(model_type, text or {}) | ({"num_labels": 9} if head else {})
    settings = AutoConfig.for_model(model_type, **values)
    if head and model_type == "deit":  # it has two classifiers; the config says which
        settings.architectures = ["DeiTForImageClassificationWithTeacher"]
    if head:
        network = AutoModelForImageClassification.from_config(settings)
    elif model_type in ("clip_vision_model", "siglip_vision_model"):
        network = getattr(transformers, FAMILY_OF[model_type].encoder)(settings)
    else:
        network = AutoModel.from_config(settings)
    for parameter in network.parameters():  # layer scales and tokens start at values that hide mistakes
        torch.nn.init.normal_(parameter, std=0.2)
    network.eval().save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


def _settings_of(model_type: str, text: dict[str, Any]) -> dict[str, Any]:
    """The smallest config of a model type."""
    if model_type.startswith("convnext"):
        return {"hidden_sizes": [8, 16, 24, 48], "depths": [1, 1, 1, 1], "patch_size": 2}
    if model_type.startswith("swin"):
        size = {"image_size": SIZE, "patch_size": 4, "window_size": 2, "embed_dim": 24}
        return {**size, "depths": [1, 1], "num_heads": [2, 2]}
    if model_type in ("clip", "siglip"):
        sizes = {"vocab_size": 99, "max_position_embeddings": 16, "projection_size": SMALL["hidden_size"]}
        tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        towers = {"vision_config": dict(SMALL), "text_config": SMALL | sizes | tokens | text}
        return towers | ({"projection_dim": 24} if model_type == "clip" else {})
    return SMALL | ({"num_register_tokens": 4} if model_type == "dinov3_vit" else {})


def image(seed: int, *, mode: str = "RGB") -> Image.Image:
    """A smooth random picture of 40-120 pixels a side."""
    rng = np.random.default_rng(seed)
    width, height = (int(side) for side in rng.integers(40, 120, 2))
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def folder_of_images(folder: Path, count: int, *, first: int = 0) -> list[Path]:
    """JPEG, PNG and grayscale files, `count` of them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(first, first + count):
        suffix = ".png" if number % 3 == 0 else ".jpg"
        path = folder / f"{number:05}{suffix}"
        image(number, mode="L" if number % 5 == 0 else "RGB").save(path, quality=90)
        paths.append(path)
    return paths


def write_manifest(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as a Parquet manifest."""
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def many_rows(folder: Path, rows: int, *overrides: str) -> tuple[RunConfig, list[str]]:
    """A run's config over so many rows that share four small images, and their ids, in order."""
    images, ids = folder_of_images(folder / "images", 4), [f"{number:06}" for number in range(rows)]
    table = pa.table({"uri": [str(images[number % 4]) for number in range(rows)], "image_id": ids})
    pq.write_table(table, folder / "manifest.parquet")
    where = (folder / "manifest.parquet", tiny_vit(folder / "model"), folder / "out")
    return settings(*where, "workers.decoders=auto", *overrides), ids


def settings(manifest: Path | str, model: Path | str, output: Path | str, *overrides: str) -> RunConfig:
    """A run's config, with fp32 so that results can be compared closely, one decoder, since each takes a core for
    seconds to start, and on CPUs, since the cluster that tests share has a logical GPU.
    """
    raw = {
        "manifest": {"path": str(manifest)},
        "model": {"name": str(model), "precision": "fp32"},
        "output": {"path": str(output)},
        "workers": {"decoders": {"max_size": 1}, "device": "cpu"},
    }
    return config.parse(raw, overrides)


def predictions(output: Path | str, columns: str = "*", **options: Any) -> list[dict[str, Any]]:
    """All rows of an output by a plain Hive glob, ordered by image_id."""
    files = f"{output}/predictions/*/*/*.parquet"
    return (
        duckdb.sql(
            f"SELECT {columns} FROM read_parquet('{files}', hive_partitioning = true, "
            "hive_types = {'dataset': VARCHAR}) ORDER BY image_id"
        )
        .to_arrow_table()
        .to_pylist()
    )
