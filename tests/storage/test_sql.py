"""DuckDB reads from stores only the bytes that it asks for."""

import duckdb
import fsspec

from pipeline.storage import sql
from pipeline.storage.filesystems import Storage


def test_duckdb_gets_a_client_of_s3_that_does_not_read_ahead() -> None:
    with duckdb.connect() as connection:
        registered = []

        class Connection:
            list_filesystems = staticmethod(connection.list_filesystems)
            register_filesystem = staticmethod(registered.append)

        storage = Storage()
        sql.register_stores(Connection(), ["s3://bucket/a", "/local"], storage)  # type: ignore[arg-type]
    (fs,) = registered
    assert isinstance(fs, fsspec.AbstractFileSystem)
    assert fs.default_cache_type == "none"
    others = storage.filesystem("s3://bucket/a")[0]
    assert others.default_cache_type != "none"  # other code may read piece by piece
