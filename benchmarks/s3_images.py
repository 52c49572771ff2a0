"""Images on an S3 server, SeaweedFS, which runs on this machine and shares its cores."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from tests.support import seaweed

BUCKET = "benchmark"


@contextmanager
def served(images: Sequence[Path], folder: Path) -> Iterator[list[str]]:
    """Start a server with the images, to which the environment points inside the context. Yield their URIs."""
    folder.mkdir()
    names = {path: f"{number:05}{path.suffix}" for number, path in enumerate(dict.fromkeys(images))}
    with seaweed.running(folder) as server:
        fs = server.filesystem()
        fs.mkdir(BUCKET)
        for path, name in names.items():
            fs.put_file(str(path), f"{BUCKET}/{name}")
        with patch.dict(os.environ, server.environment):
            yield [f"s3://{BUCKET}/{names[path]}" for path in images]
