"""The YAML contract: keys, defaults, overrides, and one clear sentence for every mistake."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from pipeline.config import ManifestConfig, PoolConfig, RunConfig, load, parse
from pipeline.errors import ConfigError

LEAST = {"manifest": {"path": "m.csv"}, "output": {"path": "out"}}

DEFAULTS = {
    "manifest": {
        "path": ["m.csv"],
        "columns": {key: key for key in ("image_id", "uri", "dataset", "version", "offset", "length", "bytes")},
        "keep": [],
        "dataset": "images",
    },
    "model": {
        "name": "google/vit-base-patch16-224",
        "revision": "main",
        "engine": "auto",
        "precision": "auto",
        "compile": False,
    },
    "labels": {"top_k": 5},
    "embedding": {"pooling": "auto", "normalize": True},
    "decode": {
        **{"fast": False, "max_pixels": 100_000_000, "max_side": 65_535, "max_bytes": 50_000_000},
        **{"timeout_s": 30.0, "truncated": "error"},
    },
    "batching": {"max_batch_size": 512},
    "workers": {
        **{"decoders": "auto", "predictors": "auto", "device": "auto"},
        **{"gpus_per_predictor": 1.0, "wait_s": 600.0},
    },
    "output": {"path": "out", "rows_per_file": 32768, "commit_interval_s": 30.0},
    "storage": {"endpoint_url": None, "region": None, "anonymous": False, "user_agent": None},
}

CONTRACT = """
manifest:
  {path: "s3://lake/manifests/*.parquet", columns: {uri: url, dataset: source}, keep: [caption], dataset: photos}
model:    {name: google/vit-base-patch16-224, revision: main, engine: auto, precision: auto}
labels:   {top_k: 5}
embedding: {pooling: cls, normalize: true}
decode:   {fast: false, max_pixels: 100000000, max_bytes: 50000000, truncated: error}
batching: {max_batch_size: 512}
workers:  {decoders: auto, predictors: {min_size: 1, max_size: 8, initial_size: 8}}
output:   {path: "s3://lake/derived/{space}", rows_per_file: 32768, commit_interval_s: 30}
storage:  {endpoint_url: null, region: null, anonymous: false, user_agent: null}
"""


def refusal(raw: object, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(raw, overrides)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith((".", "?"))
    return sentence


def test_a_manifest_and_an_output_are_enough_and_the_rest_has_the_documented_defaults() -> None:
    sections = parse(LEAST).model_dump(mode="json")
    assert {name: sections[name] for name in DEFAULTS} == DEFAULTS


def test_every_key_of_the_contract_is_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(CONTRACT)
    config = load(path)
    assert config.manifest.path == ("s3://lake/manifests/*.parquet",)
    assert (config.manifest.columns.uri, config.manifest.columns.dataset) == ("url", "source")
    assert config.manifest.keep == ("caption",)
    assert config.workers.predictors == PoolConfig(min_size=1, max_size=8, initial_size=8)
    assert config.output.commit_interval_s == 30.0


def test_several_manifests_are_a_list() -> None:
    assert parse(LEAST, ["manifest.path=[a.csv, b.parquet]"]).manifest.path == ("a.csv", "b.parquet")


def test_what_to_yaml_writes_load_reads_back(tmp_path: Path) -> None:
    config = parse(yaml.safe_load(CONTRACT), ["manifest.dataset=Grüße", "output.commit_interval_s=0.5"])
    path = tmp_path / "again.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert load(path) == config
    assert "Grüße" in config.to_yaml()


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("labels.top_k=3", "labels", "top_k", 3),
        ("embedding.normalize=false", "embedding", "normalize", False),
        ("output.commit_interval_s=2.5", "output", "commit_interval_s", 2.5),
        ("storage.region=null", "storage", "region", None),
        ("storage.region='5'", "storage", "region", "5"),
        ("model.name=a=b", "model", "name", "a=b"),
        ("manifest.keep=[a, b]", "manifest", "keep", ("a", "b")),
        ("manifest.keep=caption", "manifest", "keep", ("caption",)),
        ("workers.decoders.max_size=4", "workers", "decoders", PoolConfig(max_size=4)),
        ("workers.decoders={max_size: 4}", "workers", "decoders", PoolConfig(max_size=4)),
    ],
)
def test_an_override_is_yaml_at_a_dotted_key(override: str, section: str, key: str, value: object) -> None:
    assert getattr(getattr(parse(LEAST, [override]), section), key) == value


def test_the_last_override_wins() -> None:
    assert parse(LEAST, ["labels.top_k=3", "labels={top_k: 7}", "labels.top_k=9"]).labels.top_k == 9


def test_overrides_leave_the_mapping_that_was_given_as_it_was() -> None:
    raw = {"manifest": {"path": "m.csv", "columns": {"uri": "url"}}, "output": {"path": "out"}}
    config = parse(raw, ["manifest.columns.uri=link", "output.path=there"])
    assert (config.manifest.columns.uri, config.output.path) == ("link", "there")
    assert raw == {"manifest": {"path": "m.csv", "columns": {"uri": "url"}}, "output": {"path": "out"}}


@pytest.mark.parametrize("override", ["labels.top_k", "=3", ""])
def test_an_override_of_another_form_is_refused(override: str) -> None:
    assert "must look like key.subkey=value" in refusal(LEAST, override)


def test_an_override_that_is_no_yaml_names_its_key() -> None:
    assert "--set manifest.keep" in refusal(LEAST, "manifest.keep=[a")


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("labels.topk=3", "labels.topk is not a key; did you mean labels.top_k?"),
        ("modell.name=x", "modell is not a key; did you mean model?"),
        ("manifest.columns.url=x", "manifest.columns.url is not a key; did you mean manifest.columns.uri?"),
        (
            "workers.decoders={max_size: 1, min_siz: 1}",
            "workers.decoders.min_siz is not a key; did you mean workers.decoders.min_size?",
        ),
    ],
)
def test_a_typo_in_a_key_names_the_nearest_valid_key(override: str, meant: str) -> None:
    assert refusal(LEAST, override).endswith(meant)


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("top_k=3", "did you mean labels.top_k?"),
        ("model.pooling=cls", "did you mean embedding.pooling?"),
        ("output.max_batch_size=3", "did you mean batching.max_batch_size?"),
    ],
)
def test_a_key_in_the_wrong_section_names_its_right_section(override: str, meant: str) -> None:
    assert refusal(LEAST, override).endswith(meant)


def test_a_key_like_no_other_lists_the_valid_ones() -> None:
    assert refusal(LEAST, "labels.zzzzzz=1").endswith("valid keys here: top_k.")


@pytest.mark.parametrize(
    "override",
    [
        "labels.top_k=0",
        "labels.top_k='5'",
        "labels.top_k=2.0",
        "embedding.pooling=max",
        "embedding.normalize=1",
        "decode.truncated=ignore",
        "decode.max_pixels=0",
        "batching.max_batch_size=0",
        "output.path=",
        "output.path=''",
        "output.rows_per_file=0",
        "output.commit_interval_s=0",
        "output.commit_interval_s=.inf",
        "manifest.path=[]",
        "manifest.path=[1]",
        "manifest.path=''",
        "model.engine=jax",
        "workers.decoders=many",
        "workers.decoders=4",
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_and_its_key_is_named(override: str) -> None:
    assert override.partition("=")[0] in refusal(LEAST, override)


@pytest.mark.parametrize("missing", ["manifest", "output"])
def test_a_missing_section_is_named(missing: str) -> None:
    raw = {key: value for key, value in LEAST.items() if key != missing}
    assert refusal(raw) == f"the config: the key {missing} is missing."


@pytest.mark.parametrize("raw", [None, [], "manifest", 3])
def test_something_that_is_no_mapping_is_refused(raw: object) -> None:
    assert "must be a YAML mapping" in refusal(raw)


@pytest.mark.parametrize("column", ["label", "embedding", "uri", "offset", "pixels", "outcome", "run_id"])
def test_a_kept_column_cannot_have_the_name_of_an_output_column(column: str) -> None:
    assert repr(column) in refusal(LEAST, f"manifest.keep=[{column}]")


@pytest.mark.parametrize("column", ["Label", "URI"])
def test_a_kept_column_cannot_differ_from_an_output_column_only_in_case(column: str) -> None:
    assert repr(column) in refusal(LEAST, f"manifest.keep=[{column}]")


def test_a_column_cannot_be_kept_twice() -> None:
    assert "named twice" in refusal(LEAST, "manifest.keep=[a, b, a]")


@pytest.mark.parametrize(
    "pool",
    [
        "{min_size: 3, max_size: 2}",
        "{max_size: 2, initial_size: 3}",
        "{min_size: 2, max_size: 4, initial_size: 1}",
    ],
)
def test_the_bounds_of_a_pool_are_ordered(pool: str) -> None:
    assert "needs min_size <= initial_size <= max_size" in refusal(LEAST, f"workers.predictors={pool}")


@pytest.mark.parametrize("pool", ["{}", "{min_size: 0, max_size: 1}", "{max_size: 0}"])
def test_a_pool_needs_a_largest_size_and_at_least_one_actor(pool: str) -> None:
    assert "workers.predictors." in refusal(LEAST, f"workers.predictors={pool}")


@pytest.mark.parametrize("url", ["https://key:s3cret@host:9000", "http://s3cret@host", "http://:s3cret@host"])
def test_a_secret_in_the_endpoint_is_refused_and_not_repeated(url: str) -> None:
    sentence = refusal(LEAST, f"storage.endpoint_url='{url}'")
    assert "endpoint_url" in sentence
    assert "s3cret" not in sentence


def test_an_endpoint_without_a_secret_is_taken() -> None:
    config = parse(LEAST, ["storage.endpoint_url='http://127.0.0.1:8333'"])
    assert config.storage.endpoint_url == "http://127.0.0.1:8333"


def test_a_config_cannot_be_changed() -> None:
    config = parse(LEAST)
    with pytest.raises(ValidationError):
        config.labels.top_k = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        config.output = config.output  # type: ignore[misc]


def test_a_single_path_and_a_list_of_one_are_the_same() -> None:
    assert ManifestConfig(path=("a",)) == parse(LEAST, ["manifest.path=[a]"]).manifest
    assert isinstance(parse(LEAST), RunConfig)


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("manifest.path=*.parquet", "manifest", "path", ("*.parquet",)),
        ("manifest.path=[a.csv, b.csv]", "manifest", "path", ("a.csv", "b.csv")),
        ("manifest.dataset=007", "manifest", "dataset", "007"),
        ("manifest.dataset=2024-01-01", "manifest", "dataset", "2024-01-01"),
        ("output.path={space}", "output", "path", "{space}"),
        ("output.path=s3://b/it's: here", "output", "path", "s3://b/it's: here"),
        ("model.revision='1'", "model", "revision", "1"),
    ],
)
def test_text_in_an_override_stands_for_itself(override: str, section: str, key: str, value: object) -> None:
    assert getattr(getattr(parse(LEAST, [override]), section), key) == value


@pytest.mark.parametrize("key", ["manifest.path", "model.name", "output.path"])
def test_a_secret_in_any_url_is_refused_and_not_repeated(key: str) -> None:
    sentence = refusal(LEAST, f"{key}=https://me:s3cret@host/x")
    assert key in sentence
    assert "s3cret" not in sentence
