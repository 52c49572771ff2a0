"""An OpenVINO graph -> one that computes in int8, by NNCF, from images that show its activations' ranges."""

import logging
import os
from pathlib import Path

os.environ.setdefault("NNCF_CI", "1")  # else it reports its use to its makers

import nncf
import numpy as np
import openvino
from nncf.quantization.range_estimator import RangeEstimatorParametersSet
from numpy.typing import NDArray

SMOOTH = 0.5
"""How much of the activations' range is moved into the weights: SmoothQuant's alpha, and its authors' value. A
trained ViT-S/14 came closest to float32 with it (mean cosine 0.9984; 0.9979 with 0.7, 0.9954 with NNCF's 0.95)."""

nncf.set_log_level(logging.ERROR)


def quantize(graph: Path, images: NDArray[np.uint8], target: Path) -> None:
    """Write `target`/graph.xml and .bin; `images` uint8 (B, H, W, 3) are all used, one by one.

    NNCF's recipe for transformers: symmetric int8 weights, asymmetric int8 activations, attention's softmax and
    normalisations left as they are. Activations have the widest range that an image shows: they live by their
    outliers, and with the images' mean range, NNCF's own choice, the mean cosine was 0.9971. Weights keep to half
    of their range: CPUs without VNNI add pairs of products in 16 bits, which overflow else, and one model is for
    all machines that work on a space.
    """
    recipe = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.ENABLE,
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=SMOOTH),
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
    )
    calibration = nncf.Dataset([image[None] for image in images])
    quantised = nncf.quantize(
        openvino.Core().read_model(graph),
        calibration,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(images),
        advanced_parameters=recipe,
    )
    openvino.save_model(quantised, target / "graph.xml", compress_to_fp16=False)
