"""Folders and shards of images, and their listings."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.planning.listing import write_listing
from pipeline.planning.listing_report import Listing
from tests.support.making import STORAGE


def deny(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Folders of that name may not be read, even by root."""
    scandir = os.scandir

    def denied(path: str) -> Any:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)


def listing(folder: Path, out: Path, **options: Any) -> dict[str, dict[str, Any]]:
    """The rows of a listing, by the relative name of the image."""
    found = write_listing(str(folder), str(out), STORAGE, **{"dataset": "images", **options})
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == found.rows
    return {row["uri"].removeprefix(f"{folder}/"): row for row in rows}


def shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            file.addfile(header, io.BytesIO(data))
    return path


def listed(folder: Path, **options: Any) -> tuple[list[str], Listing]:
    """The listed image_ids, without the folder, and what the listing says."""
    out = folder.parent / "listed.parquet"
    found = write_listing(str(folder), str(out), STORAGE, **{"dataset": "images", **options})
    ids = pq.read_table(out).column("image_id").to_pylist()
    return [image_id.removeprefix(f"{folder}/") for image_id in ids], found
