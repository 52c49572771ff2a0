"""Pixels of opaque 8-bit images equal Hugging Face's own processor, within one level of 255."""

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from transformers import AutoImageProcessor

from pipeline.images.decode import decode
from pipeline.images.rgb import to_rgb
from pipeline.models.processor import read_preprocessing
from tests.support.making import decode_options, encoded, photo
from tests.support.odd import everything

PROCESSORS: dict[str, dict[str, Any]] = {
    "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}},
    "vit-old": {"feature_extractor_type": "ViTFeatureExtractor", "size": 64, "resample": 3},
    "vit-oblong": {"image_processor_type": "ViTImageProcessor", "size": {"height": 48, "width": 80}},
    "vit-lanczos": {"image_processor_type": "ViTImageProcessor", "size": 48, "resample": 1},
    "vit-nearest": {"image_processor_type": "ViTImageProcessor", "size": 48, "resample": 0},
    "deit": {"image_processor_type": "DeiTImageProcessor", "size": 256, "crop_size": 224},
    "deit-odd": {"image_processor_type": "DeiTImageProcessor", "size": 75, "crop_size": 64},
    "beit": {"image_processor_type": "BeitImageProcessor", "size": 64, "do_center_crop": False},
    "dinov2": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 64}, "crop_size": 56},
    "bit-odd": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 67}, "crop_size": 56},
    "crop-larger": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 40}, "crop_size": 64},
    "crop-larger-odd": {
        **{"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 41}},
        "crop_size": {"height": 64, "width": 57},
    },
    "clip": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 64}, "crop_size": 64},
    "clip-old": {"feature_extractor_type": "CLIPFeatureExtractor", "size": 48, "crop_size": 48},
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 64, "width": 64}},
    "convnext": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 64}},
    "convnext-crop": {"image_processor_type": "ConvNextImageProcessor", "size": 57, "crop_pct": 0.95},
    "convnext-whole": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
}
SIZES = [(300, 200), (200, 300), (97, 101), (64, 64), (33, 150), (7, 5), (1, 1), (1, 90), (900, 4), (640, 400)]


def saved(raw: dict[str, Any], folder: Path) -> Any:
    """Hugging Face's Pillow processor with these settings."""
    (folder / "preprocessor_config.json").write_text(json.dumps(raw))
    return AutoImageProcessor.from_pretrained(folder, backend="pil")


def hugging_face(image: Image.Image, raw: dict[str, Any], folder: Path, **options: Any) -> NDArray[Any]:
    """What Hugging Face's Pillow processor makes of an image, (height, width, 3)."""
    return processed(saved(raw, folder), image, **options)


def processed(processor: Any, image: Image.Image, **options: Any) -> NDArray[Any]:
    return np.moveaxis(np.asarray(processor(images=image, **options)["pixel_values"][0]), 0, -1)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", PROCESSORS)
def test_size_filter_and_crop_are_those_of_hugging_face(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    image = photo(*size)
    ours = decode(encoded(image), read_preprocessing(PROCESSORS[name], name), decode_options())
    theirs = hugging_face(image, PROCESSORS[name], tmp_path, do_rescale=False, do_normalize=False)
    assert ours.pixels.dtype == np.uint8
    assert ours.pixels.shape == theirs.shape
    assert np.abs(ours.pixels.astype(int) - theirs.astype(int)).max() <= 1
    assert (ours.width, ours.height, ours.notes) == (*size, ())


@pytest.fixture(scope="module")
def odd_files() -> list[tuple[str, bytes, Image.Image]]:
    """The files of the corpus that Pillow opens, with the upright RGB image that a person sees."""
    found = []
    for odd in everything():
        with suppress(OSError, SyntaxError, ValueError):
            if odd.code is None:
                upright = ImageOps.exif_transpose(Image.open(io.BytesIO(odd.data)))
                found.append((odd.name, odd.data, to_rgb(upright, [])))
    return found


@pytest.mark.filterwarnings("ignore")  # Pillow says what is odd about them
@pytest.mark.parametrize("name", ["vit-oblong", "deit-odd", "beit", "dinov2", "clip", "siglip", "convnext"])
def test_odd_files_are_resized_and_cropped_as_hugging_face_does_it(
    tmp_path: Path, name: str, odd_files: list[tuple[str, bytes, Image.Image]]
) -> None:
    steps, processor = read_preprocessing(PROCESSORS[name], name), saved(PROCESSORS[name], tmp_path)
    wrong = []
    for file, data, image in odd_files:
        if min(image.size) * 1000 > max(image.size):  # a thinner one is refused where it would grow too large
            ours = decode(data, steps, decode_options()).pixels.astype(int)
            theirs = processed(processor, image, do_rescale=False, do_normalize=False)
            wrong += [file] if np.abs(ours - theirs).max() > 1 else []
    assert len(odd_files) > 140
    assert wrong == []


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_dinov3_is_resized_as_torchvision_does_it(size: tuple[int, int]) -> None:
    """Its own processor needs torchvision, whose antialiased resize is this function of PyTorch."""
    image = photo(*size)
    steps = read_preprocessing({"image_processor_type": "DINOv3ViTImageProcessorFast", "size": 64}, "dinov3")
    ours = decode(encoded(image), steps, decode_options()).pixels
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    theirs = torch.nn.functional.interpolate(values, (64, 64), mode="bilinear", antialias=True)[0] * 255
    assert np.abs(ours.astype(float) - theirs.permute(1, 2, 0).numpy()).max() <= 1


@pytest.mark.parametrize("name", PROCESSORS)
def test_scale_and_bias_make_the_input_of_hugging_face(tmp_path: Path, name: str) -> None:
    image = photo(120, 90)
    steps = read_preprocessing(PROCESSORS[name], name)
    ours = decode(encoded(image), steps, decode_options()).pixels * np.array(steps.scale) + np.array(steps.bias)
    theirs = hugging_face(image, PROCESSORS[name], tmp_path)
    assert (np.abs(ours - theirs) <= np.array(steps.scale) * 1.001).all()


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("JPEG", {"quality": 90}),
        ("JPEG", {"quality": 30, "progressive": True, "subsampling": 2}),
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("JPEG2000", {}),
        ("PPM", {}),
        ("TGA", {}),
    ],
)
def test_every_format_gives_the_pixels_that_pillow_and_hugging_face_see(
    tmp_path: Path, format_: str, options: dict[str, Any]
) -> None:
    data = encoded(photo(150, 100), format_, **options)
    ours = decode(data, read_preprocessing(PROCESSORS["dinov2"], "m"), decode_options())
    opened = Image.open(io.BytesIO(data)).convert("RGB")
    theirs = hugging_face(opened, PROCESSORS["dinov2"], tmp_path, do_rescale=False, do_normalize=False)
    assert np.abs(ours.pixels.astype(int) - theirs.astype(int)).max() <= 1
    assert ours.notes == ()


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "RGBA"])
def test_opaque_images_of_any_mode_are_those_of_hugging_face(tmp_path: Path, mode: str) -> None:
    image = photo(90, 60).convert(mode)
    data = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    ours = decode(data, read_preprocessing(PROCESSORS["vit-old"], "m"), decode_options())
    theirs = hugging_face(
        image.convert("RGB"), PROCESSORS["vit-old"], tmp_path, do_rescale=False, do_normalize=False
    )
    assert np.abs(ours.pixels.astype(int) - theirs.astype(int)).max() <= 1


@pytest.mark.parametrize("size", [(1600, 1200), (1200, 1600), (2000, 600)], ids=str)
@pytest.mark.parametrize("name", ["vit", "dinov2", "deit"])
def test_fast_decoding_is_close_and_noted(name: str, size: tuple[int, int]) -> None:
    data = encoded(photo(*size), "JPEG", quality=95)
    steps = read_preprocessing(PROCESSORS[name], name)
    exact, fast = (decode(data, steps, decode_options(fast=fast)) for fast in (False, True))
    assert exact.notes == ()
    assert fast.notes == ("dct_scaled",)
    assert np.abs(exact.pixels.astype(int) - fast.pixels.astype(int)).mean() < 3


@pytest.mark.parametrize("fast", [False, True])
def test_the_size_is_that_of_the_original_however_it_was_decoded(fast: bool) -> None:
    data = encoded(photo(1600, 1200), "JPEG")
    found = decode(data, read_preprocessing(PROCESSORS["vit-old"], "m"), decode_options(fast=fast))
    assert (found.width, found.height) == (1600, 1200)


@pytest.mark.parametrize(("format_", "size"), [("PNG", (1600, 1200)), ("JPEG", (100, 80))])
def test_fast_decoding_changes_nothing_where_there_is_nothing_to_scale(
    format_: str, size: tuple[int, int]
) -> None:
    data = encoded(photo(*size), format_)
    steps = read_preprocessing(PROCESSORS["vit-old"], "m")
    exact, fast = (decode(data, steps, decode_options(fast=fast)) for fast in (False, True))
    assert fast.notes == exact.notes == ()
    np.testing.assert_array_equal(fast.pixels, exact.pixels)
