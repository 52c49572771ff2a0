"""Show the progress of a run in a notebook, or as lines on stderr. It does not know what the run does."""

import sys
import time
from collections.abc import Callable

from pipeline.face.progress_text import ProgressText
from pipeline.planning.account import Progress

INTERVAL_S = 10.0
"""Seconds between two lines on stderr."""
NOTEBOOK_INTERVAL_S = 0.5
"""Seconds between two updates of the line in a notebook: each is a message to the browser."""


class ProgressLine:
    """Shows the latest progress: in a notebook as one line that changes, elsewhere as lines on stderr."""

    def __init__(self) -> None:
        notebook = _notebook_line()
        self._show = notebook or _on_stderr
        self._interval_s = NOTEBOOK_INTERVAL_S if notebook else INTERVAL_S
        self._text, self._next_s = ProgressText(), 0.0

    def __call__(self, progress: Progress) -> None:
        """Show it, unless something was shown a moment ago. The last one is always shown."""
        last = progress.predicted >= progress.pending and progress.account.total.left == 0
        if time.monotonic() >= self._next_s or last:
            self._next_s = time.monotonic() + self._interval_s
            self._show(self._text.describe(progress))


def _on_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _notebook_line() -> Callable[[str], None] | None:
    """Return a function that sets the text of one line of a Jupyter notebook; None outside notebooks."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import display  # a notebook has it

    line = display({"text/plain": "starting"}, raw=True, display_id=True)  # type: ignore[no-untyped-call]
    return lambda text: line.update({"text/plain": text}, raw=True)
