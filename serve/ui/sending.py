"""Sends what users dropped into the page: in a thread of its own, and again after refusals that pass.

So neither a click elsewhere, nor a busy or unreachable server, loses a file or sends one a second time: one thread
sends what is left, whichever run of the page looks on.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import streamlit as st

from lesion.client import ClientError

_LONGEST_WAIT_S = 300.0  # a server that wants a longer pause is not waited for
_PATIENCE_S = 900.0  # after so long without any success the user decides
_LONGEST_PAUSE_S = 30.0  # between two tries, unless the server wants a longer one

# Sends what is left, and calls its argument after each part that was sent; it may be called again after an error.
Work = Callable[[Callable[[], None]], None]


class _StoppedError(Exception):
    """The user stopped the sending."""


@dataclass(frozen=True)
class Pause:
    """The time before the next try."""

    error: ClientError  # why the last one failed
    until: float  # of time.monotonic


class Sending:
    """Sends until everything is sent, a user stops it, or an error does not pass.

    Args:
        work: What is done.

    Attributes:
        active: Whether it sends or waits for the next try.
        pause: Set while it waits for the next try.
        error: What ended it, if it was no success and no click.
        finished: Whether everything was sent.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._tries = 0  # since the last success
        self._success = time.monotonic()
        self.pause: Pause | None = None
        self.error: ClientError | None = None
        self.finished = False
        self.active = False

    def start(self) -> None:
        """Send what is left, unless that is being done."""
        if self.active:
            return
        self._stop.clear()
        self.error, self.finished, self._tries, self._success = None, False, 0, time.monotonic()
        self.active = True
        threading.Thread(target=self._run, name="sending", daemon=True).start()

    def stop(self) -> None:
        """Send nothing more, once the request that is on its way is answered."""
        self._stop.set()

    def wait(self, seconds: float) -> None:
        """Wait until something is sent, it pauses or ends, at most for so long."""
        with self._changed:
            if self.active and self.pause is None:
                self._changed.wait(seconds)

    def _run(self) -> None:
        try:
            with suppress(_StoppedError):
                while not self._stop.is_set() and not self._try():
                    pass
        finally:
            with self._changed:
                self.active, self.pause = False, None
                self._changed.notify_all()

    def _try(self) -> bool:
        """Send what is left, and return whether this is over; otherwise wait for as long as the server wants."""
        try:
            self._work(self._succeed)
        except ClientError as error:
            pause = max(error.retry_after or 0.0, min(2.0**self._tries, _LONGEST_PAUSE_S))
            late = time.monotonic() + pause > self._success + _PATIENCE_S
            if not error.temporary or late or pause > _LONGEST_WAIT_S:
                self.error = error
                return True
            self._tries += 1
            with self._changed:
                self.pause = Pause(error, time.monotonic() + pause)
                self._changed.notify_all()
            self._stop.wait(pause)
            self.pause = None
            return False
        self.finished = True
        return True

    def _succeed(self) -> None:
        """Note that a part was sent."""
        self._tries, self._success = 0, time.monotonic()
        with self._changed:
            self._changed.notify_all()
        if self._stop.is_set():
            raise _StoppedError


def stop_all() -> None:
    """Stop whatever this session sends."""
    for value in st.session_state.values():
        if isinstance(value, Sending):
            value.stop()
