"""The families of models that LakeLens supports, one record each. To support another family, add its record here.

This module imports no model code: `engines` builds what a record describes.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """What all models of some Hugging Face model types have in common.

    The embedding is made of the last hidden state, whose first token is CLS and whose last tokens are the patches:
    CLS itself, or the mean of the patches.

    model_types: the values of `model_type` in config.json.
    processor: the image processor that transformers takes if the model's settings name none; a key of
        `processor.DEFAULTS`.
    auto_class: the class of transformers that builds the model with its head.
    dim_key: the key of config.json that holds the dimension of the embedding.
    takes_any_size: whether the model fits its position embeddings to the size of its input.
    head_tokens: how many of the first tokens the head reads; None if it also reads patches.
    """

    model_types: tuple[str, ...]
    processor: str = "ViT"
    auto_class: str = "AutoModelForImageClassification"
    dim_key: str = "hidden_size"
    takes_any_size: bool = False
    head_tokens: int | None = None


FAMILIES = (
    Family(("vit", "vit_msn"), head_tokens=1),
    Family(("deit",), processor="DeiT", head_tokens=2),  # CLS and the distillation token
    Family(("dinov2", "dinov2_with_registers"), processor="Bit", takes_any_size=True),
    Family(("beit", "data2vec-vision"), processor="Beit"),
)
FAMILY_OF = {model_type: family for family in FAMILIES for model_type in family.model_types}
"""The family of each supported model type."""
