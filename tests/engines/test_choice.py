"""The engine of a run: what the config names, or the best one for the cluster."""

import pytest

from pipeline.config import ModelConfig
from pipeline.engines import choice
from pipeline.errors import EngineError


def test_auto_is_torch_on_gpus_and_openvino_on_cpus() -> None:
    assert choice.choose(ModelConfig(), gpus=True) == "torch"
    assert choice.choose(ModelConfig(), gpus=False) == "openvino"
    assert choice.choose(ModelConfig(engine="torch"), gpus=False) == "torch"
    assert choice.choose(ModelConfig(precision="int8"), gpus=True) == "openvino"
    assert choice.choose(ModelConfig(), gpus=False, tpus=True) == "xla"


@pytest.mark.parametrize(
    ("config", "key"),
    [(ModelConfig(compile=True), "model.compile"), (ModelConfig(engine="torch", precision="int8"), "int8")],
)
def test_options_that_exclude_each_other_are_refused_with_both_named(config: ModelConfig, key: str) -> None:
    engine = "openvino" if config.engine == "auto" else config.engine
    with pytest.raises(EngineError, match=key) as caught:
        choice.choose(config, gpus=False)
    assert f"this run uses {engine}" in str(caught.value)
