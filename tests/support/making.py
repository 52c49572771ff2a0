"""Small real things for the tests: images, manifests, models, tables."""

import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline import schema
from pipeline.config import DecodeConfig
from pipeline.images.options import DecodeOptions
from pipeline.output.fragment import Fragment
from pipeline.output.fragment_files import by_id, write_file
from pipeline.output.layout import fragment_path
from pipeline.storage.filesystems import Storage

STORAGE = Storage()


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with some texture: every corner is different, so that no turn or flip goes unseen."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray(np.clip(pixels + rng.integers(-12, 13, pixels.shape), 0, 255).astype(np.uint8))


def encoded(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def decode_options(**settings: Any) -> DecodeOptions:
    """Limits and policies of decoding: the defaults of a config, and what is given."""
    return DecodeOptions.from_config(DecodeConfig(**settings))


def save_images(folder: Path, names: Sequence[str]) -> None:
    """One small PNG for each relative name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(Image.new("RGB", (2, 2))))


def tiny_model(folder: Path, *, preprocessor: Mapping[str, Any] | None = None, **config: Any) -> Path:
    """A real ViT with random weights, as `save_pretrained` writes it, for 32x32 images."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    settings = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    settings |= {"image_size": 32, "patch_size": 8, "num_labels": 3}
    ViTForImageClassification(ViTConfig(**{**settings, **config})).save_pretrained(folder)
    steps = preprocessor or {"image_processor_type": "ViTImageProcessor", "size": 32}
    (folder / "preprocessor_config.json").write_text(json.dumps(steps))
    return folder


def edit_json(path: Path, **values: Any) -> None:
    """Change keys of a JSON file; `...` removes one."""
    document = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not ...}))


def prediction_rows(
    ids: Sequence[str], kept: Mapping[str, Any] | None = None, code: str = "corrupt", version: str | None = None
) -> pa.Table:
    """Rows of a fragment: failed ones, because those need no labels."""
    columns = schema.fragment(schema.predictions([pa.field(name, pa.string()) for name in kept or {}]))
    error = {"stage": "decode", "error_code": code, "message": "the file is damaged", "attempts": 1}
    always = {
        "uri": "u",
        "version": version,
        **error,
        "run_id": "r",
        "finished_at": datetime(2024, 1, 1, tzinfo=UTC),
        **(kept or {}),
    }
    return pa.Table.from_pylist([{schema.IMAGE_ID: id_, **always} for id_ in ids], schema=columns)


def write_fragment(
    output: str,
    dataset: str,
    ids: Sequence[str],
    epoch: int,
    kept: Mapping[str, Any] | None = None,
    code: str = "corrupt",
    version: str | None = None,
) -> Fragment:
    """A real Parquet file below the table, not committed yet."""
    rows = prediction_rows(ids, kept, code, version)
    path = fragment_path(dataset, schema.FAILED, epoch)
    return write_file(rows, by_id(rows), path, output=output, storage=STORAGE)
