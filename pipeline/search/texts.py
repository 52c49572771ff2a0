"""Texts as queries: texts -> vectors in the space of an output whose model has a text encoder."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.engines import loading
from pipeline.errors import SpaceError
from pipeline.models.families import FAMILIES
from pipeline.output.layout import Layout
from pipeline.output.space import SpaceDescription
from pipeline.space_model import open_model
from pipeline.storage.filesystems import Storage


class TextQueries:
    """Encodes texts into the embedding space of one output."""

    def __init__(
        self,
        output: str,
        description: SpaceDescription,
        run_id: str,
        storage: Storage,
        model: str | None = None,
    ) -> None:
        """Load the text encoder of the model that the run `run_id` used.

        `model` is where it is now; by default where the run found it. Raises: SpaceError if the output's model has
        no text encoder, or is another one than is found now; TableError, ConfigError, ModelError, StorageError.
        """
        if description.text is None:
            kinds = [kind for family in FAMILIES if family.text for kind in family.model_types]
            raise SpaceError(
                f"The model {description.model} of {output} has no text encoder, so texts cannot query it. "
                f"Models of the types {' and '.join(kinds)} have one."
            )
        made = open_model(output, storage, run_id, model)
        if made.model.text is None or made.model.text.sha256 != description.text.get("sha256"):
            raise SpaceError(
                f"The text encoder of {made.model.name} is not the one that {Layout(output).space} describes. "
                "Restore the model's weights and tokenizer."
            )
        self._encoder = loading.load_text_encoder(made.model)
        self._normalize = made.config.embedding.normalize

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return float32 (N, D): one embedding for each text, normalised as the output's images are."""
        found: NDArray[np.float32] = self._encoder.encode(texts, normalize=self._normalize)
        return found
