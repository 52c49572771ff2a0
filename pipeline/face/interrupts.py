"""Turn Ctrl-C and SIGTERM into a request to stop. It does not know what is stopped."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOPPING = "stopping: the run commits what is predicted (interrupt again to give that up)"


@contextmanager
def stop_on_interrupt(say: Callable[[str], None]) -> Iterator[threading.Event]:
    """Give an event that the first SIGINT or SIGTERM sets, and tell the person. The second one interrupts at once.

    Outside the main thread, where Python allows no handlers, signals keep their meaning.
    """
    stop = threading.Event()

    def ask(number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        say(STOPPING)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
