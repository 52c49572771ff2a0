"""The configs of the demo, with the places of its lake, its outputs and its models."""

import json
from importlib.resources import files
from pathlib import Path

from pipeline import config
from pipeline.config import RunConfig


def settings_of(name: str, manifest: Path, output: Path, model: str) -> RunConfig:
    """Load one of the demo's configs, with these places and a model of the demo."""
    overrides = {"manifest.path": manifest, "output.path": output, "model.name": files("pipeline.demo") / model}
    changes = [f"{key}={json.dumps(str(value))}" for key, value in overrides.items()]
    return config.load(str(files("configs") / name), changes)
