"""Read the settings of a model's image processor as `Preprocessing`.

This module computes no pixels: decoding resizes and crops, the engines scale.
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
"""The key of the image processor's settings in `SHARED`."""
RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's filters, by the number that preprocessor configs use."""

_HALF = (0.5, 0.5, 0.5)
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_SHORTEST = ("Bit", "CLIP", "ConvNext")
"""Processors for which a size that is one number is that of the shorter side."""
_WHOLE = 384
"""Shorter side from which on ConvNeXt's processor resizes to a square and cuts nothing off, in pixels."""
_CROPPED: dict[str, Any] = {
    "size": {"shortest_edge": 224},
    "resample": 3,
    "image_mean": _CLIP_MEAN,
    "image_std": _CLIP_STD,
    "do_center_crop": True,
    "crop_size": 224,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "ViT": {"size": 224, "resample": 2, "image_mean": _HALF, "image_std": _HALF},
    "DeiT": {
        "size": 256,
        "resample": 3,
        "image_mean": _HALF,
        "image_std": _HALF,
        "do_center_crop": True,
        "crop_size": 224,
    },
    "Beit": {
        "size": 224,
        "resample": 3,
        "image_mean": _HALF,
        "image_std": _HALF,
        "do_center_crop": False,
        "crop_size": 224,
    },
    "Bit": _CROPPED,
    "CLIP": _CROPPED,
    "Siglip": {"size": 224, "resample": 3, "image_mean": _HALF, "image_std": _HALF},
    "DINOv3ViT": {
        "size": 224,
        "resample": 2,
        "image_mean": (0.485, 0.456, 0.406),
        "image_std": (0.229, 0.224, 0.225),
    },
    "ConvNext": {
        "size": {"shortest_edge": 384},
        "resample": 3,
        "image_mean": _HALF,
        "image_std": _HALF,
        "crop_pct": 224 / 256,
    },
}
"""The defaults of transformers for each image processor that LakeLens reproduces, without the suffix
"ImageProcessor"."""


def read_preprocessing(
    raw: Mapping[str, Any], name: str, file: str = OWN, processor: str = "ViT"
) -> Preprocessing:
    """Read an image processor's settings, with the processor's defaults for missing keys.

    `processor` is a key of `DEFAULTS`, for settings that name no processor. Error messages contain the model's
    `name` and the `file`. Raises: ModelError for an unknown processor, and for invalid values.
    """
    try:
        return _read(_with_defaults(raw, name, processor), name)
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(f"The model {name} has invalid values in its {file}: {error!r}.") from error


def _with_defaults(raw: Mapping[str, Any], name: str, processor: str) -> dict[str, Any]:
    """Add the processor's defaults. Raises: ModelError for an unknown processor or step."""
    kind = str(raw.get("image_processor_type") or raw.get("feature_extractor_type") or processor)
    family = kind.removesuffix("Fast").removesuffix("Pil").removesuffix("ImageProcessor")
    family = family.removesuffix("FeatureExtractor")
    if family not in DEFAULTS:
        raise ModelError(
            f"The model {name} uses the processor {kind}, which LakeLens does not reproduce; "
            f"it reproduces {', '.join(f'{known}ImageProcessor' for known in DEFAULTS)}."
        )
    values = {**DEFAULTS[family], **{key: value for key, value in raw.items() if value is not None}}
    if family in _SHORTEST and isinstance(values["size"], int):
        values["size"] = {"shortest_edge": values["size"]}
    if family == "ConvNext":
        values |= _convnext(values["size"]["shortest_edge"], float(values["crop_pct"]))
    if values.get("do_pad"):
        raise ModelError(f"The model {name} pads its images, which LakeLens does not reproduce.")
    if not values.get("do_resize", True):
        raise ModelError(f"The model {name} does not resize its images, but LakeLens needs one input size.")
    return values


def _convnext(edge: int, crop_pct: float) -> dict[str, Any]:
    """Return the size and crop that ConvNeXt's processor computes of its shorter side and its crop ratio."""
    if edge >= _WHOLE:
        return {"size": edge, "do_center_crop": False}
    return {"size": {"shortest_edge": int(edge / crop_pct)}, "do_center_crop": True, "crop_size": edge}


def _read(values: Mapping[str, Any], name: str) -> Preprocessing:
    resize, shortest_edge = _size(values["size"], name)
    crop = _size(values["crop_size"], name)[0] if values.get("do_center_crop") else None
    height, width = crop or resize or (0, 0)
    if not height or not width:
        raise ModelError(f"The model {name} has no fixed input size, but LakeLens needs one.")
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
    """Return (height, width) or the shortest edge, from any form that configs use. Raises: ModelError."""
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
    """Return scale and bias for each channel, which rescale and normalise in one step: value * scale + bias."""
    factor = float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 1.0
    normalise = values.get("do_normalize", True)
    mean = [float(v) for v in values["image_mean"]] if normalise else [0.0] * 3
    std = [float(v) for v in values["image_std"]] if normalise else [1.0] * 3
    red, green, blue = ((factor / s, -m / s) for m, s in zip(mean, std, strict=True))
    return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])
