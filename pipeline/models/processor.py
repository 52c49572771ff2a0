"""A model's image processor config, read as `Preprocessing`.

It computes no pixels: decoding resizes and crops, the engines scale.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.errors import ModelError
from pipeline.preprocessing import Preprocessing

OWN = "preprocessor_config.json"
"""The file of an image processor."""
SHARED = "processor_config.json"
"""The file of a processor for several kinds of input, which may hold the image processor's settings."""
NESTED = "image_processor"
"""Their key in there."""
RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's filters, by the number that preprocessor configs use."""

_HALF = (0.5, 0.5, 0.5)
_DEFAULTS: dict[str, dict[str, Any]] = {
    # What each Hugging Face processor does when its config leaves a key out.
    "ViT": {"size": 224, "resample": 2, "image_mean": _HALF, "image_std": _HALF},
    "DeiT": {
        **{"size": 256, "resample": 3, "image_mean": _HALF, "image_std": _HALF},
        **{"do_center_crop": True, "crop_size": 224},
    },
    "Beit": {
        **{"size": 224, "resample": 3, "image_mean": _HALF, "image_std": _HALF},
        **{"do_center_crop": False, "crop_size": 224},
    },
    "Bit": {
        **{"size": {"shortest_edge": 224}, "resample": 3, "do_center_crop": True, "crop_size": 224},
        **{
            "image_mean": (0.48145466, 0.4578275, 0.40821073),
            "image_std": (0.26862954, 0.26130258, 0.27577711),
        },
    },
}


_BY_TYPE = {
    **dict.fromkeys(("beit", "data2vec-vision"), "Beit"),
    **dict.fromkeys(("dinov2", "dinov2_with_registers"), "Bit"),
    "deit": "DeiT",
}
"""The processors that transformers takes for model types, where a config names none; ViT's for all others."""


def read_preprocessing(
    raw: Mapping[str, Any], name: str, file: str = OWN, model_type: str = "vit"
) -> Preprocessing:
    """Read an image processor's settings, with its defaults for what they leave out; `file` is for messages.

    Settings that do not name their processor are those of the one that transformers takes for the model's type.

    Raises: ModelError for a processor that LakeLens does not reproduce, or values that make no sense.
    """
    try:
        return _read(raw, name, model_type)
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(f"The model {name} has a {file} that makes no sense: {error!r}.") from error


def _read(raw: Mapping[str, Any], name: str, model_type: str) -> Preprocessing:
    usual = f"{_BY_TYPE.get(model_type, 'ViT')}ImageProcessor"
    kind = str(raw.get("image_processor_type") or raw.get("feature_extractor_type") or usual)
    family = kind.removesuffix("Fast").removesuffix("Pil").removesuffix("ImageProcessor")
    family = family.removesuffix("FeatureExtractor")
    if family not in _DEFAULTS:
        raise ModelError(
            f"The model {name} asks for the processor {kind}, which LakeLens does not reproduce; "
            f"it knows {', '.join(f'{known}ImageProcessor' for known in _DEFAULTS)}."
        )
    values = {**_DEFAULTS[family], **{key: value for key, value in raw.items() if value is not None}}
    if values.get("do_pad"):
        raise ModelError(f"The model {name} pads its images, which LakeLens does not reproduce.")
    if not values.get("do_resize", True):
        raise ModelError(f"The model {name} does not resize its images; LakeLens needs one input size.")
    size = values["size"]
    if family == "Bit" and isinstance(size, int):
        size = {"shortest_edge": size}
    resize, shortest_edge = _size(size, name)
    crop = _size(values["crop_size"], name)[0] if values.get("do_center_crop") else None
    height, width = crop or resize or (0, 0)
    if not height or not width:
        raise ModelError(f"The model {name} has no fixed input size; LakeLens needs one.")
    scale, bias = _affine(values)
    return Preprocessing(
        resize=resize,
        shortest_edge=shortest_edge,
        crop=crop,
        resample=RESAMPLING[int(values["resample"])],
        scale=scale,
        bias=bias,
        height=height,
        width=width,
    )


def _size(size: Any, name: str) -> tuple[tuple[int, int] | None, int | None]:
    """(height, width) or the shortest edge, from any of the forms that configs have."""
    if isinstance(size, int):
        return (size, size), None
    if isinstance(size, list | tuple) and len(size) == 2:
        return (int(size[0]), int(size[1])), None
    if isinstance(size, Mapping) and {"height", "width"} <= size.keys():
        return (int(size["height"]), int(size["width"])), None
    if isinstance(size, Mapping) and size.keys() == {"shortest_edge"}:
        return None, int(size["shortest_edge"])
    raise ModelError(f"The model {name} has an image size that LakeLens does not reproduce: {size}.")


def _affine(values: Mapping[str, Any]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Rescale and normalise as one multiplication and one addition a channel."""
    factor = float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 1.0
    normalise = values.get("do_normalize", True)
    mean = [float(v) for v in values["image_mean"]] if normalise else [0.0] * 3
    std = [float(v) for v in values["image_std"]] if normalise else [1.0] * 3
    red, green, blue = ((factor / s, -m / s) for m, s in zip(mean, std, strict=True))
    return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])
