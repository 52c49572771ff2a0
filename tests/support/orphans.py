"""Programs that tests start end with the process that has started them, even if that is killed."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def none_left(number: signal.Signals = signal.SIGKILL) -> None:
    """For `subprocess.Popen(preexec_fn=...)`: it gets this signal then. Linux only; elsewhere it does nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
