"""A processor config means what Hugging Face makes of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoImageProcessor

from pipeline.errors import ModelError
from pipeline.models.families import FAMILY_OF
from pipeline.models.processor import RESAMPLING, read_preprocessing
from pipeline.preprocessing import Preprocessing

FAMILIES = ("ViT", "DeiT", "Beit", "Bit")


def hugging_face(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The settings that Hugging Face reads from the same file."""
    (folder / "preprocessor_config.json").write_text(json.dumps(raw))
    settings: dict[str, Any] = AutoImageProcessor.from_pretrained(folder, backend="pil").to_dict()
    return settings


def assert_same(ours: Preprocessing, theirs: dict[str, Any]) -> None:
    size, crop = theirs["size"], theirs.get("crop_size")
    if "shortest_edge" in size:
        assert (ours.resize, ours.shortest_edge) == (None, size["shortest_edge"])
    else:
        assert (ours.resize, ours.shortest_edge) == ((size["height"], size["width"]), None)
    cropped = (crop["height"], crop["width"]) if crop and theirs.get("do_center_crop") else None
    assert ours.crop == cropped
    assert (ours.height, ours.width) == (cropped or ours.resize)
    assert ours.resample == RESAMPLING[int(theirs["resample"])]
    factor = theirs["rescale_factor"] if theirs["do_rescale"] else 1.0
    mean, std = theirs["image_mean"], theirs["image_std"]
    if not theirs["do_normalize"]:
        mean, std = [0.0] * 3, [1.0] * 3
    for level in (0, 1, 128, 255):
        values = [level * scale + bias for scale, bias in zip(ours.scale, ours.bias, strict=True)]
        assert values == pytest.approx([(level * factor - m) / s for m, s in zip(mean, std, strict=True)])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("suffix", ["ImageProcessor", "ImageProcessorFast", "ImageProcessorPil"])
def test_an_empty_config_has_the_defaults_of_hugging_face(tmp_path: Path, family: str, suffix: str) -> None:
    theirs = hugging_face({"image_processor_type": f"{family}ImageProcessor"}, tmp_path)
    assert_same(read_preprocessing({"image_processor_type": family + suffix}, "m"), theirs)


@pytest.mark.parametrize("family", ["ViT", "DeiT", "Beit"])
def test_feature_extractors_are_read_as_image_processors(tmp_path: Path, family: str) -> None:
    raw = {"feature_extractor_type": f"{family}FeatureExtractor", "size": 240, "crop_size": 230}
    assert_same(read_preprocessing(raw, "m"), hugging_face(raw, tmp_path))


def test_without_a_type_it_is_a_vit_processor() -> None:
    assert read_preprocessing({}, "m") == read_preprocessing({"image_processor_type": "ViTImageProcessor"}, "m")


@pytest.mark.parametrize("family", ["ViT", "DeiT", "Beit"])
@pytest.mark.parametrize(
    "settings",
    [
        {"size": 96, "crop_size": 64},
        {"size": {"height": 96, "width": 80}, "crop_size": {"height": 64, "width": 48}},
        {"size": {"shortest_edge": 96}, "crop_size": 64, "do_center_crop": True},
        {"size": [96, 80], "crop_size": [64, 48]},
        {"resample": 0},
        {"resample": 1, "do_normalize": False},
        {"do_rescale": False},
        {"rescale_factor": 0.01, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
        {"do_center_crop": False},
        {"do_center_crop": True, "crop_size": 200},
    ],
    ids=str,
)
def test_every_form_of_a_setting_is_read_as_hugging_face_reads_it(
    tmp_path: Path, family: str, settings: dict[str, Any]
) -> None:
    raw = {"image_processor_type": f"{family}ImageProcessor", **settings}
    assert_same(read_preprocessing(raw, "m"), hugging_face(raw, tmp_path))


@pytest.mark.parametrize("size", [{"shortest_edge": 256}, {"height": 256, "width": 250}, [256, 250]], ids=str)
def test_the_sizes_of_a_bit_processor_are_read_as_hugging_face_reads_them(tmp_path: Path, size: Any) -> None:
    raw = {"image_processor_type": "BitImageProcessor", "size": size, "crop_size": 224}
    assert_same(read_preprocessing(raw, "m"), hugging_face(raw, tmp_path))


def test_one_number_is_the_shortest_edge_of_a_bit_processor(tmp_path: Path) -> None:
    raw = {"image_processor_type": "BitImageProcessor", "size": 256, "crop_size": 224}
    assert_same(read_preprocessing(raw, "m"), hugging_face(raw, tmp_path))


def test_keys_that_are_null_have_their_defaults() -> None:
    raw = {"image_processor_type": "DeiTImageProcessor", "size": None, "resample": None, "image_mean": None}
    assert read_preprocessing(raw, "m") == read_preprocessing({"image_processor_type": "DeiTImageProcessor"}, "m")


def refusal(**raw: Any) -> str:
    with pytest.raises(ModelError) as caught:
        read_preprocessing({"image_processor_type": "ViTImageProcessor", **raw}, "some/model")
    sentence = str(caught.value)
    assert "some/model" in sentence
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("kind", ["SamImageProcessor", "ViTImageProcessorOfMine", "ImageProcessor"])
def test_a_processor_that_is_not_reproduced_is_refused_and_the_known_ones_are_named(kind: str) -> None:
    sentence = refusal(image_processor_type=kind)
    assert kind in sentence
    assert all(f"{family}ImageProcessor" in sentence for family in FAMILIES)


def test_a_model_that_does_not_resize_is_refused() -> None:
    assert "does not resize" in refusal(do_resize=False)


def test_a_model_without_a_fixed_input_size_is_refused() -> None:
    assert "no fixed input size" in refusal(size={"shortest_edge": 224})
    assert "no fixed input size" in refusal(size={"height": 0, "width": 224})


@pytest.mark.parametrize(
    "size", [{"longest_edge": 224}, {"shortest_edge": 1, "longest_edge": 2}, "224", {}, [224], [1, 2, 3]]
)
def test_a_size_of_another_form_is_refused(size: Any) -> None:
    assert "image size that LakeLens does not reproduce" in refusal(size=size)


@pytest.mark.parametrize(
    "settings",
    [
        {"do_center_crop": True},
        {"resample": 9},
        {"resample": "bilinear"},
        {"image_mean": 0.5},
        {"image_mean": [0.5]},
        {"image_std": [0.5, 0.5, 0.0]},
        {"size": {"height": 224, "width": None}},
    ],
    ids=str,
)
def test_an_invalid_setting_is_refused(settings: dict[str, Any]) -> None:
    refusal(**settings)


@pytest.mark.parametrize(
    ("model_type", "resample", "crop"),
    [
        ("vit", "bilinear", None),
        ("deit", "bicubic", (224, 224)),
        ("beit", "bicubic", None),
        ("dinov2", "bicubic", (224, 224)),
    ],
)
def test_settings_without_a_processors_name_are_those_of_the_models_type(
    model_type: str, resample: str, crop: tuple[int, int] | None
) -> None:
    found = read_preprocessing({}, "m", processor=FAMILY_OF[model_type].processor)
    assert (found.resample, found.crop) == (resample, crop)


def test_a_processor_that_pads_is_refused() -> None:
    with pytest.raises(ModelError, match="pads"):
        read_preprocessing({"do_pad": True}, "m")
