"""What decoding may hold at once is bounded by the pixels of the original, whatever their mode."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.images.decode import PEAK_BYTES_PER_PIXEL

SIDE = 4000
MEASURE = """
import sys
from pathlib import Path
from pipeline.images.decode import decode
from pipeline.models.processor import read_preprocessing
from tests.support.making import decode_options

def peak():  # VmHWM, in kB
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

steps = read_preprocessing({"image_processor_type": "ViTImageProcessor", "size": 224}, "m")
small, large = (Path(path).read_bytes() for path in sys.argv[1:])
decode(small, steps, decode_options())
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
before = peak()
decode(large, steps, decode_options())
print(peak() - before)
"""
FILES = {
    **{
        "RGB": "jpeg",
        "L": "png",
        "RGBA": "png",
        "LA": "png",
        "P": "png",
        "1": "png",
        "CMYK": "jpeg",
        "LAB": "tiff",
    },
    **{"I;16": "png", "F": "tiff", "I": "tiff"},
}


def image(mode: str, side: int) -> Image.Image:
    rows = np.linspace(0, 200, side).astype(np.uint8)
    plain = Image.fromarray(np.broadcast_to(rows, (side, side)).copy())
    if mode in ("I;16", "I", "F"):
        return Image.fromarray(np.asarray(plain).astype({"I;16": "<u2", "I": "<i4", "F": "<f4"}[mode]))
    if mode == "LAB":
        return Image.merge("LAB", [plain] * 3)
    if mode in ("RGBA", "LA"):
        plain = plain.convert(mode)
        plain.putalpha(99)
    return plain.convert(mode)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a peak")
@pytest.mark.parametrize("mode", FILES)
def test_the_peak_of_every_mode_is_below_the_stated_bound(mode: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{side}.{FILES[mode]}" for side in (64, SIDE)]
    for path, side in zip(paths, (64, SIDE), strict=True):
        options = {"transparency": 3} if mode == "P" else {}
        image(mode, side).save(path, compress_level=1, **options)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, paths)], capture_output=True, text=True, check=True
    )
    per_pixel = int(done.stdout) * 1024 / SIDE**2
    print(f"{mode}: {per_pixel:.1f} bytes a pixel")
    assert 1 < per_pixel < PEAK_BYTES_PER_PIXEL
