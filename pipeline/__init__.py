"""LakeLens: label and embed every image of an image lake with a Vision Transformer, on Ray.

The Python API:

    from pipeline import load_config, open_space, plan_config, run_config

    config = load_config("lake.yaml", ["labels.top_k=3"])
    print(plan_config(config).pending)
    summary = run_config(config)
    rows = open_space(summary.output).to_pandas(columns=["image_id", "label", "embedding"])

Every name is imported when it is first used: worker processes import this package, and need none of them.

The library is made of rooms (packages) and single modules. Imports go down this list only:

- `demo`: a generated lake and its model. `face`: the Python API.
- `run`: the data path, from start to finish. `verify`: a sample of the output, computed again. `search`: the
  images nearest to a query. `duplicates`: images that are the same picture. `export`: rows as files for other
  programs. `migration`: a move to another model.
- `labels`: heads, and the labels that they give to stored embeddings.
- `space_model`: the model of an output.
- `calibration`: the int8 model of a space. `run_configs`: the configs of earlier runs. `summary`: what a run did.
- `cluster`: everything on Ray.
- `planning`: manifests, and the rows to process. `engines`: pixels to labels and embeddings.
- `models`: files and settings of models. `output`: everything below `output.path`. `images`: URIs to pixels.
- `storage`: where bytes are, and how they are opened.
- `config`, `yaml_files`, `suggestions`: settings, and what is wrong with them. `preprocessing`: from pixels to a
  model's input. `stage_seconds`: where time goes. `schema`, `columns`, `column_names`: columns. `errors`: every
  error that LakeLens raises.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.errors import LakeLensError
    from pipeline.face.api import load_config, run_config
    from pipeline.face.opened_space import Space, open_space
    from pipeline.planning.preview import PlanPreview, plan_config
    from pipeline.planning.selection import Selection
    from pipeline.summary import Summary

__version__ = "0.1.0"

__all__ = [
    "LakeLensError",
    "PlanPreview",
    "RunConfig",
    "Selection",
    "Space",
    "Summary",
    "load_config",
    "open_space",
    "plan_config",
    "run_config",
]

_MODULES = {
    "LakeLensError": "pipeline.errors",
    "PlanPreview": "pipeline.planning.preview",
    "RunConfig": "pipeline.config",
    "Selection": "pipeline.planning.selection",
    "Space": "pipeline.face.opened_space",
    "Summary": "pipeline.summary",
    "load_config": "pipeline.face.api",
    "open_space": "pipeline.face.opened_space",
    "plan_config": "pipeline.planning.preview",
    "run_config": "pipeline.face.api",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
