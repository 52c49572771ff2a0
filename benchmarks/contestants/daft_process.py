"""Daft's feed, run in an environment of its own: paths as JSON on stdin, images/s as JSON on stdout."""

import json
import sys
import time

import daft

WARM_UP = 32
"""Images after which Daft has started."""


def main() -> None:
    size, paths = int(sys.argv[1]), json.load(sys.stdin)
    rate(paths[:WARM_UP], size)
    print(json.dumps({"images_per_s": rate(paths, size)}))


def rate(paths: list[str], size: int) -> float:
    """Measure images/s: download, decode to RGB and resize, as Daft's documentation does."""
    frame = daft.from_pydict({"path": paths})
    decoded = frame["path"].download().decode_image(mode="RGB")
    frame = frame.with_column("image", decoded.resize(size, size))
    started_s = time.perf_counter()
    rows = sum(len(part) for part in frame.select("image").iter_partitions())
    return rows / (time.perf_counter() - started_s)


if __name__ == "__main__":
    main()
