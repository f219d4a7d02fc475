"""How a worker hears that it is to end."""

import os
import signal
import threading

import pytest

from lesion.retraining.worker import _set_on_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.timeout(30)
def test_a_signal_is_heard_in_the_middle_of_the_events_own_code(number: signal.Signals) -> None:
    """The main thread waits for the event most of the time, and holds its lock at the beginning and end of that."""
    stop, before = threading.Event(), signal.getsignal(number)
    with _set_on_signals(stop):
        with stop._cond:  # type: ignore[attr-defined]  # its lock, which has no public name
            os.kill(os.getpid(), number)
            assert not stop.is_set()
        assert stop.wait(10)
    assert signal.getsignal(number) is before


def test_without_a_signal_nothing_is_set_and_no_thread_is_left() -> None:
    stop, before = threading.Event(), threading.active_count()
    with _set_on_signals(stop):
        assert threading.active_count() == before + 1
    for thread in threading.enumerate():
        if thread.name == "signals":
            thread.join(10)
    assert threading.active_count() == before
    assert not stop.is_set()
