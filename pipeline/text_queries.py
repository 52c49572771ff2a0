"""Texts as queries to an output whose model has a text encoder."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline import run_configs
from pipeline.engines import loading
from pipeline.errors import SpaceError
from pipeline.models import int8
from pipeline.models.model import resolve
from pipeline.output.layout import Layout
from pipeline.output.space import SpaceDescription
from pipeline.storage.filesystems import Storage


class TextQueries:
    """Encodes texts into the embedding space of one output."""

    def __init__(self, output: str, description: SpaceDescription, run_id: str, storage: Storage) -> None:
        """Load the text encoder of the model that the run `run_id` used.

        Raises: SpaceError if the output's model has no text encoder, or is another one than is found now;
        TableError, ConfigError, ModelError, StorageError.
        """
        if description.text is None:
            raise SpaceError(
                f"The model {description.model} of {output} has no text encoder, so texts cannot query it."
            )
        settings = run_configs.read(output, storage, run_id)
        model = resolve(settings.model, Storage(settings.storage))
        now = model.space(settings.embedding, settings.decode, int8.recipe(settings.model.precision))
        kept = description.text.get("sha256")
        if now["fingerprint"] != description.fingerprint or model.text is None or model.text.sha256 != kept:
            raise SpaceError(
                f"The text encoder of {model.name} is not the one that {Layout(output).space} describes. Restore "
                "the model's weights and tokenizer."
            )
        self._encoder, self._normalize = loading.load_text_encoder(model), settings.embedding.normalize

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return float32 (N, D): one embedding for each text, normalised as the output's images are."""
        found: NDArray[np.float32] = self._encoder.encode(texts, normalize=self._normalize)
        return found
