"""The Python API: what programs and notebooks call. `pipeline/__init__` gives its names.

It does not know how anything is done; each function calls the module that does it.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline import config as configs, run as runs
from pipeline.config import RunConfig
from pipeline.face.interrupts import stop_on_interrupt
from pipeline.face.notebook import ProgressLine
from pipeline.planning.account import Progress
from pipeline.planning.selection import NEW_AND_CHANGED, Selection
from pipeline.summary import Summary


def load_config(source: str | Path | Mapping[str, Any], overrides: Iterable[str] = ()) -> RunConfig:
    """Read a config from a YAML file, or from a mapping that has the shape of one.

    `overrides` are `key.subkey=value` texts, as `--set` takes them. Raises: ConfigError, which names the key.
    """
    if isinstance(source, Mapping):
        return configs.parse(source, overrides)
    return configs.load(source, overrides)


def run_config(
    config: RunConfig,
    *,
    selection: Selection = NEW_AND_CHANGED,
    take_over: bool = False,
    address: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Label and embed the images that `selection` means; by default those that the output does not hold yet.

    It runs on the Ray cluster that this process has joined. Otherwise it joins the one at `address` or
    RAY_ADDRESS; without these it starts one on this machine. It shows the progress in a notebook or on stderr,
    unless `on_progress` takes it.

    Interrupt it once (Ctrl-C, or a notebook's stop button): it commits what is predicted and returns a summary
    whose `stopped` is true. Interrupt it twice: it raises KeyboardInterrupt. With `take_over` it stops another
    run that works on the output.

    Raises: LakeLensError, one subclass for each reason why a run cannot start or go on.
    """
    with stop_on_interrupt(_note) as stop:
        return runs.run(
            config,
            selection=selection,
            take_over=take_over,
            address=address,
            stop=stop,
            on_progress=on_progress or ProgressLine(),
            say=_note,
        )


def _note(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
