"""Ctrl-C as a request to stop."""

import signal
import threading

import pytest

from pipeline.face.interrupts import STOPPING, stop_on_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_for_a_stop_and_the_second_one_ends_it(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    said: list[str] = []
    with stop_on_interrupt(said.append) as stop:
        signal.raise_signal(number)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
    assert said == [STOPPING]


def test_outside_the_main_thread_signals_keep_their_meaning() -> None:
    before, found = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with stop_on_interrupt(print) as stop:
            found.append((stop.is_set(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, before)]
