"""The model that made an output, found by the config of a run and checked by its fingerprint."""

from dataclasses import dataclass

from pipeline import run_configs, schema
from pipeline.config import RunConfig
from pipeline.errors import SpaceError, TableError
from pipeline.models import int8
from pipeline.models.model import Model, resolve
from pipeline.output import space
from pipeline.output.layout import SPACE, epoch_of
from pipeline.output.reader import PredictionsReader
from pipeline.output.space import SpaceDescription
from pipeline.storage.filesystems import Storage


@dataclass(frozen=True)
class SpaceModel:
    """A model that gives the vectors of an output, with the config of a run that used it, and `space.json`."""

    model: Model
    config: RunConfig
    description: SpaceDescription


def open_model(output: str, storage: Storage, run_id: str, place: str | None = None) -> SpaceModel:
    """Resolve the model of a run, and check that it still makes the vectors of the output.

    `place` is the folder, URI or hub id where the model is now; by default where the run found it. Raises:
    TableError if the config of the run is gone; SpaceError if the model is another one now; ConfigError,
    ModelError, StorageError.
    """
    config = run_configs.read(output, storage, run_id)
    if place is not None:
        config = config.model_copy(update={"model": config.model.model_copy(update={"name": place})})
    model = resolve(config.model, Storage(config.storage))
    now = model.space(config.embedding, config.decode, int8.recipe(config.model.precision))["fingerprint"]
    found = space.read(output, storage)
    if found is None or found.fingerprint != now:
        raise SpaceError(
            f"The model {model.name} did not make {output}: its fingerprint is {now}, but {SPACE} has "
            f"{found and found.fingerprint}."
        )
    return SpaceModel(model, config, found)


def last_run(reader: PredictionsReader) -> str:
    """Return the id of the run that wrote the newest file of ok rows. Raises: TableError if there is none."""
    ok = reader.only(outcome=schema.OK)
    if not ok.files:
        raise TableError(f"{reader.output} has no rows with a vector yet.")
    newest = max(range(len(ok.files)), key=lambda at: epoch_of(ok.files[at].path) or 0)
    found: str = ok.part(newest, newest + 1).to_arrow(["run_id"])["run_id"][0].as_py()
    return found
