"""The configs of earlier runs, which say where the images and the model of an output are."""

from pipeline import config
from pipeline.config import RunConfig
from pipeline.errors import TableError
from pipeline.output.layout import Layout
from pipeline.storage.filesystems import Storage


def read(output: str, storage: Storage, run_id: str) -> RunConfig:
    """Read the config of a run. Raises: TableError if it is gone; StorageError, ConfigError."""
    uri = Layout(output).run(run_id).config
    text = storage.read(uri)
    if text is None:
        raise TableError(f"{uri} is gone. It says where the images and the model of {output} are; restore it.")
    return config.parse_text(text.decode(), source=uri)
