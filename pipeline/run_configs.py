"""The configs of earlier runs, which say where the images and the model of an output are."""

from pipeline import config
from pipeline.config import RunConfig
from pipeline.errors import TableError
from pipeline.output.layout import Layout
from pipeline.storage.filesystems import Storage


def read(output: str, storage: Storage, run_id: str) -> RunConfig:
    """Read the config of a run. What `storage` sets, such as an endpoint, replaces what the run used.

    Raises: TableError if the config is gone; StorageError, ConfigError.
    """
    uri = Layout(output).run(run_id).config
    text = storage.read(uri)
    if text is None:
        raise TableError(f"{uri} is gone. It says where the images and the model of {output} are; restore it.")
    found = config.parse_text(text.decode(), source=uri)
    here = found.storage.model_copy(update=storage.config.model_dump(exclude_defaults=True))
    return found.model_copy(update={"storage": here})
