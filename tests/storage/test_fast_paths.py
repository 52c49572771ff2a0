"""Stores with a client that is faster than fsspec."""

import pytest

from pipeline.config import StorageConfig
from pipeline.storage.fast_paths import FastPaths


@pytest.mark.parametrize(
    ("uri", "fast"),
    [("s3://lake/a", True), ("S3A://lake/a", True), ("gs://lake/a", False), ("/a", False), ("data:,a", False)],
)
def test_a_store_has_a_fast_path_by_its_scheme(uri: str, fast: bool) -> None:
    assert (FastPaths(StorageConfig()).of(uri) is not None) is fast


def test_schemes_of_one_client_share_what_it_knows_of_buckets() -> None:
    paths = FastPaths(StorageConfig())
    assert paths.of("s3://lake/a") is paths.of("s3a://lake/a")
