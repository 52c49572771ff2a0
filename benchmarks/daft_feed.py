"""Daft's feed path, run in an environment of its own: paths as JSON on stdin, images/s as JSON on stdout."""

import json
import sys
import time

import daft


def main() -> None:
    size, paths = int(sys.argv[1]), json.load(sys.stdin)
    rate(paths[:32], size)  # it has started
    print(json.dumps({"images_per_s": rate(paths, size)}))


def rate(paths: list[str], size: int) -> float:
    """Images/s: download, decode to RGB, resize, as Daft's documentation does it."""
    frame = daft.from_pydict({"path": paths})
    decoded = frame["path"].download().decode_image(mode="RGB")
    frame = frame.with_column("image", decoded.resize(size, size))
    started = time.perf_counter()
    rows = sum(len(part) for part in frame.select("image").iter_partitions())
    return rows / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
