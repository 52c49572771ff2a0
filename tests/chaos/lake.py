"""The lake of the chaos rounds: good and bad images in oddly named datasets, and a manifest in parts.

The good images lie in one folder for all rounds, the bad ones in each round's own, where they can be mended.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from tests.support import lakes

DATASETS = ("007", "2024-01-01", "street 50%/a=b", "é & ü")
GOOD, BAD, MENDED = 380, 20, 15
PARTS = (240, 150, 10)
"""Rows of each manifest part, duplicates and invalid rows aside; the last is kept back."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A prefix in a store, and how it is opened: without a proxy."""

    fs: Any
    root: str
    scheme: str = ""

    def uri(self, relative: str = "") -> str:
        """What a config or a manifest calls it."""
        return f"{self.scheme}{self.root}/{relative}".rstrip("/")

    def put(self, relative: str, data: bytes) -> None:
        path = f"{self.root}/{relative}"
        self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.fs.pipe_file(path, data)

    def upload(self, folder: Path, relative: str) -> None:
        """A whole folder."""
        self.fs.put(f"{folder}/", f"{self.root}/{relative}/", recursive=True)

    def download(self, relative: str, folder: Path) -> None:
        """A whole folder."""
        self.fs.get(f"{self.root}/{relative}/", f"{folder}/", recursive=True)

    def remove(self) -> None:
        self.fs.rm(self.root, recursive=True)


class Lake:
    """The images, on local disk; the manifest's rows; the model."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, Place(LocalFileSystem(), str(folder))
        self.model = lakes.tiny_vit(folder / "model")
        good = lakes.folder_of_images(folder / "images", GOOD)
        spare = lakes.folder_of_images(folder / "spare", MENDED, first=GOOD)
        kinds = [b"not an image", b"", good[1].read_bytes()[:-300], random.Random(0).randbytes(500), None]
        self.bad = {f"bad/{number:02}": kinds[number % len(kinds)] for number in range(BAD)}
        self.mended = {id_: path.read_bytes() for id_, path in zip(self.bad, spare, strict=False)}
        self._ids = [*(f"images/{path.name}" for path in good), *self.bad]
        random.Random(1).shuffle(self._ids)

    def parts(self, shared: str, own: str) -> list[list[Row]]:
        """The manifest's parts, for images below two URIs; duplicates and invalid rows are in the first two."""
        rows = [
            {
                "image_id": id_,
                "uri": f"{own if id_ in self.bad else shared}/{id_}",
                "dataset": DATASETS[number % len(DATASETS)],
                "caption": f"caption {number}",
            }
            for number, id_ in enumerate(self._ids)
        ]
        first, second, last = rows[: PARTS[0]], rows[PARTS[0] : -PARTS[2]], rows[-PARTS[2] :]
        first += [{**row, "caption": "again"} for row in first[:4]] + [{**rows[0], "image_id": "x", "uri": None}]
        second += [{**row, "caption": "again"} for row in second[:3]] + [
            {**rows[0], "image_id": "y", "dataset": ""}
        ]
        return [first, second, last]

    def break_images(self, place: Place) -> None:
        """Put the bad images there; one in five is missing."""
        for id_, data in self.bad.items():
            if data is not None:
                place.put(id_, data)

    def mend_images(self, place: Place) -> None:
        """Put good ones in the place of most of them."""
        for id_, data in self.mended.items():
            place.put(id_, data)


def write_part(place: Place, number: int, rows: list[Row]) -> None:
    """One more file of the manifest."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    place.put(f"manifest/{number}.parquet", sink.getvalue().to_pybytes())
