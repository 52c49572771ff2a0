"""YAML -> one frozen, validated `RunConfig`.

Unknown keys fail and name the nearest valid one; names carry their units. It reads no data and no
environment: credentials are not configuration and have no key here.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
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

from pipeline import schema, suggestions
from pipeline.errors import ConfigError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _as_strings(value: object) -> object:
    """One string or a list of them, as a tuple."""
    values = (value,) if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(v, str) and v for v in values):
        raise ValueError("must be a string or a list of strings")
    return tuple(values)


class ManifestColumns(_Section):
    """What the manifest calls its columns; null where a column of that name means something else."""

    image_id: str | None = schema.IMAGE_ID
    uri: str | None = schema.URI
    dataset: str | None = schema.DATASET
    version: str | None = schema.VERSION
    offset: str | None = schema.OFFSET
    length: str | None = schema.LENGTH
    bytes: str | None = schema.BYTES


class ManifestConfig(_Section):
    """Where the input rows are: manifest files, globs of them, or folders of images."""

    path: Annotated[tuple[str, ...], BeforeValidator(_as_strings), Field(min_length=1)]
    columns: ManifestColumns = ManifestColumns()
    keep: Annotated[tuple[str, ...], BeforeValidator(_as_strings)] = ()
    dataset: str = Field(default="images", min_length=1)

    @model_validator(mode="after")
    def _kept_columns_have_room(self) -> Self:
        taken = [name for name in self.keep if name.casefold() in schema.RESERVED]
        if taken:
            raise ValueError(f"keep: {taken[0]!r} is a column of the output; rename it in the manifest")
        # SQL and Delta do not tell names apart by their case.
        if len({name.casefold() for name in self.keep}) != len(self.keep):
            raise ValueError("keep: a column is named twice")
        return self


class ModelConfig(_Section):
    """Which image classifier, and how it is computed."""

    name: str = "google/vit-base-patch16-224"
    revision: str = "main"
    engine: Literal["auto", "openvino", "torch", "xla"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    compile: bool = False


class LabelsConfig(_Section):
    """What is kept of the class scores."""

    top_k: int = Field(default=5, ge=1)


class EmbeddingConfig(_Section):
    """Which vector of the last hidden state is the embedding."""

    pooling: Literal["cls", "mean"] = "cls"
    normalize: bool = True


class FetchConfig(_Section):
    """How the bytes of images are fetched. A store that says *slow down* is waited for, until it has served no
    request for `patience_s` seconds."""

    patience_s: float = Field(default=60.0, ge=0, allow_inf_nan=False)


class DecodeConfig(_Section):
    """Limits and policies for image files."""

    fast: bool = False
    max_pixels: int = Field(default=100_000_000, ge=1)
    max_side: int = Field(default=65_535, ge=1)
    max_bytes: int = Field(default=50_000_000, ge=1)
    timeout_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    truncated: Literal["error", "pad"] = "error"


class BatchingConfig(_Section):
    """Bounds of the adaptive batch size."""

    max_batch_size: int = Field(default=512, ge=1)


class PoolConfig(_Section):
    """Bounds of an autoscaling actor pool."""

    min_size: int = Field(default=1, ge=1)
    max_size: int = Field(ge=1)
    initial_size: int | None = Field(default=None, ge=1)

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
    """How many actors decode and predict; `auto` fits them to the cluster. `device` is what predictors compute on,
    `auto` the best that a node has when the run starts. A run in which nothing was finished for `wait_s` seconds,
    while actors wait for a place, ends."""

    decoders: Pool = "auto"
    predictors: Pool = "auto"
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    gpus_per_predictor: float = Field(default=1.0, ge=0.01, le=1)
    wait_s: float = Field(default=600.0, gt=0, allow_inf_nan=False)


class PlanningConfig(_Section):
    """What finding the pending rows may take. Beyond it DuckDB spills to the temporary folder."""

    memory_gb: float = Field(default=1.0, ge=0.1, allow_inf_nan=False)


class FailuresConfig(_Section):
    """When a run that fails wholesale is stopped."""

    max_rate: float = Field(default=0.5, ge=0, le=1)
    min_rows: int = Field(default=1000, ge=1)


class OutputConfig(_Section):
    """Where the predictions go, and how often they become visible."""

    path: str = Field(min_length=1)
    rows_per_file: int = Field(default=32_768, ge=1)
    commit_interval_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)


class StorageConfig(_Section):
    """How object stores are reached. Secrets come from the environment only."""

    endpoint_url: str | None = None
    region: str | None = None
    anonymous: bool = False
    user_agent: str | None = None


class RunConfig(_Section):
    """Everything a run depends on."""

    manifest: ManifestConfig
    model: ModelConfig = ModelConfig()
    labels: LabelsConfig = LabelsConfig()
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
    return parse(read_yaml(path, "the config"), overrides, source=str(path))


def read_yaml(path: str | Path, what: str) -> Any:
    """What a YAML file holds. Raises: ConfigError, which says what the file was to be."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"Cannot read {what} {path}: {reason}.") from error
    return _yaml(text, f"{what} {path}")


def parse_text(text: str, overrides: Iterable[str] = (), *, source: str) -> RunConfig:
    """Validate the text of a YAML file. Raises: ConfigError."""
    return parse(_yaml(text, f"the config {source}"), overrides, source=source)


def parse(raw: object, overrides: Iterable[str] = (), *, source: str = "the config") -> RunConfig:
    """Validate a mapping that has the shape of the YAML file. Raises: ConfigError."""
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{source} must be a YAML mapping with at least `manifest` and `output`.")
    values = dict(raw)
    for override in overrides:
        _apply(values, override)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {suggestions.sentence(error, RunConfig)}") from error


def _yaml(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(f"Cannot parse {source} as YAML{where}: {getattr(error, 'problem', error)}.") from error


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r} must look like key.subkey=value.")
    *parents, last = key.split(".")
    section = values
    for parent in parents:
        inner = section.get(parent)
        section[parent] = dict(inner) if isinstance(inner, Mapping) else {}
        section = section[parent]
    section[last] = _text_or_yaml(text, key) if _takes_text([*parents, last]) else _yaml(text, f"--set {key}")


def _text_or_yaml(text: str, key: str) -> Any:
    """A value for a key that takes strings: `*.parquet`, `{space}` and 007 stand for themselves."""
    if text[:1] not in ("[", '"', "'") and text not in ("null", "~"):
        return text
    return _yaml(text, f"--set {key}")


def _takes_text(path: list[str]) -> bool:
    *parents, name = path
    field = suggestions.fields(RunConfig, parents).get(name)
    return field is not None and (field.annotation is str or str in get_args(field.annotation))
