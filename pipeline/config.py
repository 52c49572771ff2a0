"""YAML -> one frozen, validated `RunConfig`.

Unknown keys fail and name the nearest valid one; names carry their units. The descriptions become docs/config.md
(`python -m docs.config_page`). It reads no data and no environment: credentials have no key here.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from pipeline import column_names, suggestions, yaml_files
from pipeline.errors import ConfigError

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _as_strings(value: object) -> object:
    """One string or a list of them, as a tuple."""
    values = (value,) if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(v, str) and v for v in values):
        raise ValueError("must be a string or a list of strings")
    return tuple(values)


class ManifestColumns(_Section):
    """Names of the manifest's columns."""

    image_id: str | None = Field(default=column_names.IMAGE_ID, description="Column of the key.")
    uri: str | None = Field(default=column_names.URI, description="Column of the image's path or URI.")
    dataset: str | None = Field(default=column_names.DATASET, description="Column of the dataset name.")
    version: str | None = Field(
        default=column_names.VERSION,
        description="Column of an etag or a modification time. If it changes, the image is processed again.",
    )
    offset: str | None = Field(default=column_names.OFFSET, description="Column of a byte range's first byte.")
    length: str | None = Field(default=column_names.LENGTH, description="Column of a byte range's length.")
    bytes: str | None = Field(
        default=column_names.BYTES, description="Column of the image itself (binary, Parquet)."
    )


class ManifestConfig(_Section):
    """The images to process. In `manifest.columns`, null switches a column off."""

    path: Annotated[tuple[str, ...], BeforeValidator(_as_strings)] = Field(
        min_length=1, description="A manifest file, a glob, a folder of images, or a list of them."
    )
    columns: ManifestColumns = Field(
        default=ManifestColumns(),
        description="Names of the manifest's columns. Null switches a column off.",
    )
    keep: Annotated[tuple[str, ...], BeforeValidator(_as_strings)] = Field(
        default=(), description="Manifest columns to carry into the output."
    )
    dataset: str = Field(default="images", min_length=1, description="Dataset of rows without a dataset.")

    @model_validator(mode="after")
    def _kept_columns_have_room(self) -> Self:
        taken = [name for name in self.keep if name.casefold() in column_names.RESERVED]
        if taken:
            raise ValueError(f"keep: {taken[0]!r} is a column of the output; rename it in the manifest")
        # SQL and Delta do not tell names apart by their case.
        if len({name.casefold() for name in self.keep}) != len(self.keep):
            raise ValueError("keep: a column is named twice")
        return self


class ModelConfig(_Section):
    """The model, and how it is computed."""

    name: str = Field(
        default="google/vit-base-patch16-224",
        description="A Hugging Face id, a local folder, or a folder on any fsspec store.",
    )
    revision: str = Field(
        default="main", description="Branch, tag or commit on the hub. A cached commit needs no request."
    )
    engine: Literal["auto", "openvino", "torch", "xla"] = Field(
        default="auto", description="`auto` is xla on TPUs, torch on GPUs and openvino on CPUs."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        default="auto", description="`auto` is bf16 if the device supports it, fp16 on older GPUs, otherwise fp32."
    )
    compile: bool = Field(
        default=False,
        description="torch.compile: minutes of start-up, then faster. Needs engine torch and a C++ compiler.",
    )


class LabelsConfig(_Section):
    """The labels of an image."""

    top_k: int = Field(default=5, ge=1, description="Number of labels kept for each image, best first.")


class HeadConfig(_Section):
    """A list of heads, whose labels each run brings up to date at its end: see [labels](labels.md)."""

    path: str = Field(min_length=1, description="Folder of the head, on any store.")
    name: str | None = Field(default=None, description="Name of its labels. Default: the name of the folder.")


class EmbeddingConfig(_Section):
    """The embedding of an image."""

    pooling: Literal["auto", "cls", "mean", "pooled"] = Field(
        default="auto",
        description="`cls`: the CLS vector of the last hidden state. `mean`: the mean of its patch vectors. "
        "`pooled`: the encoder's own output. `auto`: the model's usual search vector, see docs/models.md.",
    )
    normalize: bool = Field(
        default=True, description="Scale vectors to length 1; `embedding_norm` keeps the original length."
    )


class FetchConfig(_Section):
    """How images are read from stores."""

    patience_s: float = Field(
        default=60.0,
        ge=0,
        allow_inf_nan=False,
        description="Give up on a throttling store if it serves no request for this many seconds.",
    )


class DecodeConfig(_Section):
    """Decoding, and limits for image files."""

    fast: bool = Field(default=False, description="Decode large JPEGs smaller: faster, but another space.")
    max_pixels: int = Field(default=100_000_000, ge=1, description="Maximum pixels; a larger image fails.")
    max_side: int = Field(default=65_535, ge=1, description="Longest side in pixels; a larger image fails.")
    max_bytes: int = Field(default=50_000_000, ge=1, description="Maximum size of a file; a larger one fails.")
    timeout_s: Seconds = Field(default=30.0, description="Maximum seconds for one image; a slower one fails.")
    truncated: Literal["error", "pad"] = Field(
        default="error", description="`error`: a file that ends early fails. `pad`: its missing pixels are filled."
    )


class BatchingConfig(_Section):
    """Limits of the adaptive batch size. A block is the rows that an actor gets at once."""

    max_batch_size: int = Field(
        default=512,
        ge=1,
        description="Maximum images in a forward pass. A block, 8 to 512 rows, is another upper limit.",
    )


class PoolConfig(_Section):
    """Sizes of `workers.decoders` or of `workers.predictors`."""

    min_size: int = Field(default=1, ge=1, description="Minimum number of actors.")
    max_size: int = Field(ge=1, description="Maximum number of actors.")
    initial_size: int | None = Field(default=None, ge=1, description="Actors at the start. Default: `min_size`.")

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if not self.min_size <= (self.initial_size or self.min_size) <= self.max_size:
            raise ValueError("needs min_size <= initial_size <= max_size")
        return self


Pool = Annotated[
    Annotated[Literal["auto"], Tag("auto")] | Annotated[PoolConfig, Tag("pool")],
    Discriminator(lambda value: "auto" if isinstance(value, str) else "pool"),
]


class WorkersConfig(_Section):
    """Actors: decoders and predictors."""

    decoders: Pool = Field(default="auto", description="Fetch and decode; `auto`: one for each CPU, at least two.")
    predictors: Pool = Field(
        default="auto",
        description="Run the model; `auto`: one for each GPU or TPU chip, otherwise one for each node.",
    )
    device: Literal["auto", "cpu", "gpu", "tpu"] = Field(
        default="auto",
        description="Device of the predictors; `auto` is the best one that any node has when the run starts.",
    )
    gpus_per_predictor: float = Field(
        default=1.0, ge=0.01, le=1, description="With 0.5, two predictors share a GPU."
    )
    wait_s: Seconds = Field(
        default=600.0, description="End a run whose actors wait this long while no row is done."
    )


class PlanningConfig(_Section):
    """The plan: which rows of the manifest to process."""

    memory_gb: float = Field(
        default=1.0,
        ge=0.1,
        allow_inf_nan=False,
        description="Memory limit of planning, in GB. Beyond it, DuckDB spills to the temporary folder.",
    )


class FailuresConfig(_Section):
    """When to stop a run because too many images fail."""

    max_rate: float = Field(default=0.5, ge=0, le=1, description="Maximum share of images that may fail.")
    min_rows: int = Field(default=1000, ge=1, description="Apply `max_rate` after this many images.")


class OutputConfig(_Section):
    """The output."""

    path: str = Field(min_length=1, description="Folder of the output. `{space}` becomes `<model>-<fingerprint>`.")
    rows_per_file: int = Field(default=32_768, ge=1, description="Maximum rows in one Parquet file.")
    commit_interval_s: Seconds = Field(
        default=30.0, description="Seconds between commits. A killed run loses at most this much work."
    )


class StorageConfig(_Section):
    """Access to stores. Credentials come from the environment only."""

    endpoint_url: str | None = Field(default=None, description="S3 endpoint. Default: that of the AWS settings.")
    region: str | None = Field(default=None, description="S3 region. Default: AWS settings, then us-east-1.")
    anonymous: bool = Field(default=False, description="Read public buckets without credentials.")
    user_agent: str | None = Field(default=None, description="HTTP User-Agent. Default: `LakeLens/<version>`.")


class RunConfig(_Section):
    """Everything that a run depends on."""

    manifest: ManifestConfig
    model: ModelConfig = ModelConfig()
    labels: LabelsConfig = LabelsConfig()
    heads: tuple[HeadConfig, ...] = Field(default=(), strict=False)  # YAML has lists
    embedding: EmbeddingConfig = EmbeddingConfig()
    fetch: FetchConfig = FetchConfig()
    decode: DecodeConfig = DecodeConfig()
    batching: BatchingConfig = BatchingConfig()
    workers: WorkersConfig = WorkersConfig()
    planning: PlanningConfig = PlanningConfig()
    failures: FailuresConfig = FailuresConfig()
    output: OutputConfig
    storage: StorageConfig = StorageConfig()

    @model_validator(mode="after")
    def _no_password_in_a_url(self) -> Self:
        """A config is written into every run's folder."""
        urls = [("manifest.path", path) for path in self.manifest.path]
        urls += [("model.name", self.model.name), ("output.path", self.output.path)]
        urls += [("storage.endpoint_url", self.storage.endpoint_url or "")]
        for key, url in urls:
            if url.startswith("http") and urlsplit(url).username is not None:
                raise ValueError(f"{key}: credentials do not belong in a URL; leave them to the environment")
        return self

    def to_yaml(self) -> str:
        """The whole configuration, defaults included, as YAML that `load` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Read a YAML file and apply `key.subkey=value` overrides, in order; values are YAML.

    Raises: ConfigError, with the file and the key, and the nearest valid key for a typo.
    """
    return parse(yaml_files.read_yaml(path, "the config"), overrides, source=str(path))


def parse_text(text: str, overrides: Iterable[str] = (), *, source: str) -> RunConfig:
    """Validate the text of a YAML file. Raises: ConfigError."""
    return parse(yaml_files.parse_yaml(text, f"the config {source}"), overrides, source=source)


def parse(raw: object, overrides: Iterable[str] = (), *, source: str = "the config") -> RunConfig:
    """Validate a mapping that has the shape of the YAML file. Raises: ConfigError."""
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{source} must be a YAML mapping with at least `manifest` and `output`.")
    values = dict(raw)
    for assignment in overrides:
        yaml_files.override(values, assignment, RunConfig)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {suggestions.sentence(error, RunConfig)}") from error
