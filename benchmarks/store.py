"""The images of a benchmark in an S3 server of this machine: SeaweedFS, which shares its cores."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from tests.support import seaweed

BUCKET = "benchmark"


@contextmanager
def on_s3(images: Sequence[Path], folder: Path) -> Iterator[list[str]]:
    """The URIs of images that an S3 server has; the environment leads to it for as long as the context lasts."""
    folder.mkdir()
    names = {path: f"{number:05}{path.suffix}" for number, path in enumerate(dict.fromkeys(images))}
    with seaweed.running(folder) as server:
        fs = server.filesystem()
        fs.mkdir(BUCKET)
        for path, name in names.items():
            fs.put_file(str(path), f"{BUCKET}/{name}")
        with patch.dict(os.environ, server.environment):
            yield [f"s3://{BUCKET}/{names[path]}" for path in images]
