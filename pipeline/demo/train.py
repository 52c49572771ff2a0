"""Train the demo's small vision transformer: `python -m pipeline.demo.train [--out DIR]`.

The result is a Hugging Face folder of three files. Training and evaluation pictures go through the file formats of
the lake. Their generators have seeds of their own, so that no lake holds any of these pictures.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from transformers import ViTConfig, ViTForImageClassification, logging as transformers_logging

from pipeline.demo.lake import CLASSES, KIND_CYCLE, encoded_picture

SIDE = 224
TRAINING_STREAM = 0x7EAC_0002
HELD_OUT_STREAM = 0x4E1D_0003
TRAINING_PICTURES = 16_000
HELD_OUT_PICTURES = 2_400
BATCH = 64
WARM_UP_STEPS = 300
PEAK_RATE = 1e-3
MODEL_FOLDER = Path(__file__).parent / "model"

PREPROCESSING: dict[str, Any] = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "ViTImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "resample": int(Image.Resampling.BILINEAR),
    "rescale_factor": 1 / 255,
    "size": {"height": SIDE, "width": SIDE},
}

Pixels = NDArray[np.uint8]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pictures:
    """Decoded and resized pictures, uint8 (B, SIDE, SIDE, 3), and their class numbers, int64 (B,)."""

    pixels: torch.Tensor
    classes: torch.Tensor


def resized(data: bytes) -> Pixels:
    """Decode an image file as the model sees it: upright, on white, uint8 (SIDE, SIDE, 3)."""
    with Image.open(io.BytesIO(data)) as stored:
        picture = ImageOps.exif_transpose(stored)
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _picture(task: tuple[int, int, int]) -> Pixels:
    """Draw, encode and decode a picture, given its stream, seed and number."""
    stream, seed, number = task
    rng = np.random.default_rng([stream, seed, number])
    kind = KIND_CYCLE[number % len(KIND_CYCLE)]
    return resized(encoded_picture(CLASSES[number % len(CLASSES)], kind, rng))


def drawn_pictures(stream: int, seed: int, count: int) -> Pictures:
    """Draw `count` pictures with one process for each core. The classes take turns."""
    pixels = np.empty((count, SIDE, SIDE, 3), dtype=np.uint8)
    tasks = ((stream, seed, number) for number in range(count))
    with multiprocessing.get_context("spawn").Pool() as workers:
        for number, picture in enumerate(workers.imap(_picture, tasks)):
            pixels[number] = picture
    return Pictures(torch.from_numpy(pixels), torch.arange(count) % len(CLASSES))


def model_input(pixels: torch.Tensor) -> torch.Tensor:
    """Rescale and normalise uint8 (B, SIDE, SIDE, 3) to float32 (B, 3, SIDE, SIDE) in -1..1."""
    return pixels.permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.5).contiguous()


def _augmented(values: torch.Tensor) -> torch.Tensor:
    """Augment the batch with changes that keep the class: other colours, mirrored, gray, slightly cropped."""
    if torch.rand(()) < 0.5:
        values = -values
    values = values[:, torch.randperm(3)]
    values = torch.where(torch.rand(len(values), 1, 1, 1) < 0.5, values.flip(3), values)
    values = torch.where(torch.rand(len(values), 1, 1, 1) < 0.1, values.mean(1, keepdim=True), values)
    side = int(torch.randint(200, SIDE + 1, ()))
    left, top = (int(torch.randint(0, SIDE - side + 1, ())) for _ in range(2))
    cropped = values[:, :, top : top + side, left : left + side]
    return torch.nn.functional.interpolate(cropped, SIDE, mode="bilinear", align_corners=False)


def small_model() -> ViTForImageClassification:
    """Build an untrained transformer of about 0.7 million parameters, with 64 patches for each picture."""
    config = ViTConfig(
        image_size=SIDE,
        patch_size=28,
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=384,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(CLASSES)),
        label2id={label: number for number, label in enumerate(CLASSES)},
    )
    return ViTForImageClassification(config)


def rate_share(step: int, steps: int) -> float:
    """Return a step's learning rate as a share of its peak: a linear warm-up, then half a cosine down to zero."""
    warm_up = min(WARM_UP_STEPS, steps // 2)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / (steps - warm_up))


def fit(model: ViTForImageClassification, pictures: Pictures, steps: int) -> None:
    """Train the model in place on random batches of the pictures."""
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_share(step, steps))
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.05)
    for step in range(steps):
        chosen = torch.randint(0, len(pictures.classes), (BATCH,))
        values = _augmented(model_input(pictures.pixels[chosen]))
        loss = loss_of(model(pixel_values=values).logits, pictures.classes[chosen])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 250 == 0:
            log.info("step %d of %d, loss %.3f", step, steps, loss.item())


def accuracy(model: ViTForImageClassification, pictures: Pictures) -> float:
    """Return the share of pictures, 0 to 1, whose highest score is that of their class."""
    model.eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(pictures.classes), BATCH):
            scores = model(pixel_values=model_input(pictures.pixels[start : start + BATCH])).logits
            right += int((scores.argmax(1) == pictures.classes[start : start + BATCH]).sum())
    return right / len(pictures.classes)


def save(model: ViTForImageClassification, folder: Path) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json."""
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING, indent=2) + "\n")


def main() -> None:
    """Train, save, and print the accuracy on held-out pictures."""
    parser = argparse.ArgumentParser(description="Train the demo's vision transformer.")
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER, help="folder for the trained model")
    parser.add_argument("--steps", type=int, default=6000, help=f"training steps of {BATCH} pictures")
    parser.add_argument("--seed", type=int, default=0, help="seed of the pictures and of the training")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    pictures = drawn_pictures(TRAINING_STREAM, arguments.seed, TRAINING_PICTURES)
    model = small_model()
    fit(model, pictures, arguments.steps)
    save(model, arguments.out)
    held_out = drawn_pictures(HELD_OUT_STREAM, arguments.seed, HELD_OUT_PICTURES)
    share = accuracy(model, held_out)
    print(f"held-out accuracy: {share:.2%} of {HELD_OUT_PICTURES} pictures")


if __name__ == "__main__":
    main()
