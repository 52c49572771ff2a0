"""The families of image encoders that LakeLens supports, one record each.

To support another family, add its record.

This module imports no model code: `engines` builds what a record describes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Setting:
    """A value of config.json: its path, as in `vision_config.hidden_size`, and the default of transformers."""

    path: str
    default: Any = None

    def of(self, config: Mapping[str, Any]) -> Any:
        """Return the value in a config, or the default. Raises: KeyError if there is neither."""
        value: Any = config
        for key in self.path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None and self.default is None:
            raise KeyError(self.path)
        return self.default if value is None else value


@dataclass(frozen=True)
class TextTower:
    """The text encoder of a family whose images and texts share one embedding space.

    auto_class: the class of transformers that builds it.
    output: the field of its output that is the embedding.
    max_length: tokens of a text at most; longer texts are cut.
    pads_to_max: whether every text is padded to `max_length`, as it was in training.
    weights: the start of the names of its weights.
    scale, bias: the names of the weights that turn a cosine into a logit; "" if there is none.
    """

    auto_class: str
    output: str
    max_length: Setting
    pads_to_max: bool
    weights: str
    scale: str = "logit_scale"
    bias: str = ""


@dataclass(frozen=True)
class Layers:
    """The layers of a family's transformer.

    path: the list of layers in the encoder. token_wise: the modules of a layer that compute each token by itself,
    and that are worth leaving out for tokens that nothing reads. Both are names of transformers.
    """

    path: str
    token_wise: tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """What all models of some Hugging Face model types have in common.

    model_types: the values of `model_type` in config.json. processor: the image processor that transformers
    takes if the model's settings name none; a key of `processor.DEFAULTS`. encoder: the class of transformers
    that builds the image encoder without a head. poolings: how an embedding can be made; the first is `auto`.
    `cls` is the first token of the last hidden state, `mean` the mean of its patches, and `pooled` the field
    `pooled_output` of the encoder's output. has_heads: whether models of the family may have a classification
    head. dim: the dimension of the embedding; of a list of dimensions, by layer, the last one. image_size: the
    only size of images that the encoder takes; None if it takes others. layers: the layers of a transformer whose
    embedding can be its first token; None for other encoders. head_tokens: how many of the first tokens a head
    reads; None if it also reads patches. linear_head: the pooling whose embedding is all that a head reads,
    through one linear layer; "" if a head reads more. required: the ends of the names of weights of the image
    encoder that a folder of the family may lack. unused: the start of the names of weights that no embedding
    needs: transformers may make them up. text: the text encoder, if the family has one.
    """

    model_types: tuple[str, ...]
    processor: str = "ViT"
    encoder: str = "AutoModel"
    poolings: tuple[str, ...] = ("cls", "mean")
    pooled_output: str = "pooler_output"
    has_heads: bool = True
    dim: Setting = Setting("hidden_size")
    image_size: Setting | None = Setting("image_size", 224)
    layers: Layers | None = None
    head_tokens: int | None = None
    linear_head: str = ""
    required: tuple[str, ...] = ()
    unused: tuple[str, ...] = ("pooler.",)
    text: TextTower | None = None

    def tokens_read(self, pooling: str, *, head: bool) -> int | None:
        """Return how many of the last layer's first tokens are read; None if patches are read, too."""
        if self.layers is None or pooling == "mean":
            return None
        return self.head_tokens if head else 1


CLIP_TEXT = TextTower(
    auto_class="CLIPTextModelWithProjection",
    output="text_embeds",
    max_length=Setting("text_config.max_position_embeddings", 77),
    pads_to_max=False,  # padding comes after the end token, whose output is the embedding, and is not attended to
    weights="text_model.",
)
SIGLIP_TEXT = TextTower(
    auto_class="SiglipTextModel",
    output="pooler_output",
    max_length=Setting("text_config.max_position_embeddings", 64),
    pads_to_max=True,
    weights="text_model.",
    bias="logit_bias",
)

_VIT = Layers("layers", ("attention.q_proj", "attention.o_proj", "mlp"))
_DINO = replace(_VIT, path="encoder.layer")
_DATA2VEC = Layers(
    "encoder.layer", ("attention.attention.query", "attention.output.dense", "intermediate", "output")
)
_CLIP = Layers("encoder.layers", ("self_attn.q_proj", "self_attn.out_proj", "mlp"))

_CLIP_VISION = Family(
    ("clip_vision_model",),
    processor="CLIP",
    encoder="CLIPVisionModelWithProjection",
    poolings=("pooled",),
    pooled_output="image_embeds",
    has_heads=False,
    dim=Setting("projection_dim", 512),
    layers=_CLIP,
    required=("embeddings.patch_embedding.weight", "visual_projection.weight"),
    unused=(),
)
_SIGLIP_VISION = Family(
    ("siglip_vision_model",),
    processor="Siglip",
    encoder="SiglipVisionModel",
    poolings=("pooled", "mean"),
    has_heads=False,
    dim=Setting("hidden_size", 768),
    required=("embeddings.patch_embedding.weight", "head.probe"),
    unused=(),
)

FAMILIES = (
    Family(("vit", "vit_msn"), layers=_VIT, head_tokens=1, linear_head="cls"),
    # DeiT's head reads CLS and the distillation token.
    Family(("deit",), processor="DeiT", layers=_VIT, head_tokens=2, linear_head="cls"),
    Family(("dinov2", "dinov2_with_registers"), processor="Bit", image_size=None, layers=_DINO),
    Family(
        ("dinov3_vit",),
        processor="DINOv3ViT",
        has_heads=False,
        image_size=None,
        layers=replace(_VIT, path="layer"),
        unused=(),
    ),
    Family(("beit",), processor="Beit", layers=_VIT),
    Family(("data2vec-vision",), processor="Beit", layers=_DATA2VEC),
    Family(
        ("convnext", "convnextv2"),
        processor="ConvNext",
        poolings=("pooled",),
        dim=Setting("hidden_sizes"),
        image_size=None,
        linear_head="pooled",
        unused=(),
    ),
    Family(("swin", "swinv2"), poolings=("pooled",), linear_head="pooled", unused=()),
    _CLIP_VISION,
    replace(
        _CLIP_VISION,
        model_types=("clip",),
        image_size=Setting("vision_config.image_size", 224),
        text=CLIP_TEXT,
    ),
    _SIGLIP_VISION,
    replace(
        _SIGLIP_VISION,
        model_types=("siglip",),
        dim=Setting("vision_config.hidden_size", 768),
        image_size=Setting("vision_config.image_size", 224),
        text=SIGLIP_TEXT,
    ),
)
FAMILY_OF = {model_type: family for family in FAMILIES for model_type in family.model_types}
"""The family of each supported model type."""
