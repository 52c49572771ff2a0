"""Texts -> embeddings in the space of a model's image embeddings, by its text encoder in PyTorch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from pipeline.engines.pretrained import load_text_encoder
from pipeline.errors import ModelError, first_line
from pipeline.models.families import TextTower
from pipeline.models.model import Model

BATCH = 64
"""Texts that are computed at once."""


class TextEncoder:
    """The text encoder of a model and its tokenizer, in float32 on the CPU."""

    def __init__(self, model: Model) -> None:
        """Load both. Raises: ModelError if the model has no text encoder, or its files do not fit."""
        self._network = load_text_encoder(model)
        assert model.family.text is not None
        assert model.text is not None
        self._family: TextTower = model.family.text
        self._max_length = model.text.max_length
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                model.folder, trust_remote_code=False, local_files_only=True
            )
        except ImportError as error:
            raise ModelError(
                f"The tokenizer of {model.name} needs a package that is not installed; install it with "
                "`pip install 'lakelens[text]'`."
            ) from error
        except (OSError, ValueError) as error:
            raise ModelError(f"The tokenizer of {model.name} cannot be loaded: {first_line(error)}.") from error

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def encode(self, texts: Sequence[str], *, normalize: bool = True) -> NDArray[np.float32]:
        """Return float32 (N, D), one embedding for each text, scaled to length 1 if `normalize`.

        Texts are padded and cut as in the training of the model's family.
        """
        batches = [self._encode(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]
        vectors = np.concatenate(batches) if batches else np.empty((0, self._dim), np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if normalize else vectors

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        padding = "max_length" if self._family.pads_to_max else True
        tokens = self._tokenizer(
            list(texts), padding=padding, truncation=True, max_length=self._max_length, return_tensors="pt"
        )
        mask = {} if self._family.pads_to_max else {"attention_mask": tokens["attention_mask"]}
        found: NDArray[np.float32] = self._network(tokens["input_ids"], **mask)[self._family.output].numpy()
        return found

    @property
    def _dim(self) -> int:
        config = self._network.config
        return int(getattr(config, "projection_dim", None) or config.hidden_size)
