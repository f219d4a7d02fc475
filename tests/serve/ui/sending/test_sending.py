"""The thread that sends what users dropped: one at a time, again after refusals that pass, and never for ever."""

import threading
import time
from collections.abc import Callable

import pytest

from lesion.client import ClientError, ResponseError, ServerTimeoutError, ServerUnavailableError
from serve.ui import sending as module
from serve.ui.sending import Sending
from tests.support.servers.serving import eventually


class Parts:
    """Sends the numbers up to a total, and fails where it is told to."""

    def __init__(self, total: int, *failures: tuple[int, ClientError]) -> None:
        self.total, self.failures = total, [*failures]  # before which part, in this order
        self.sent: list[int] = []
        self.begun: list[float] = []
        self.running = 0

    def __call__(self, report: Callable[[], None]) -> None:
        self.begun.append(time.monotonic())
        self.running += 1
        assert self.running == 1
        try:
            while len(self.sent) < self.total:
                if self.failures and self.failures[0][0] == len(self.sent):
                    raise self.failures.pop(0)[1]
                time.sleep(0.01)
                self.sent.append(len(self.sent))
                report()
        finally:
            self.running -= 1


def ended(sending: Sending) -> None:
    eventually(lambda: not sending.active, 20)


BUSY = ResponseError("It is busy.", status=503, retry_after=0.3)


@pytest.mark.parametrize(
    "error",
    [BUSY, ResponseError("Too many.", status=429), ServerUnavailableError("Gone."), ServerTimeoutError("Slow.")],
)
def test_what_is_left_is_sent_after_a_refusal_that_passes(error: ClientError) -> None:
    parts = Parts(5, (2, error))
    sending = Sending(parts)
    sending.start()
    eventually(lambda: sending.pause is not None)
    pause = sending.pause
    assert pause is not None
    assert (pause.error, sending.active, parts.sent) == (error, True, [0, 1])
    sending.start()  # while it waits, a second thread would send twice
    ended(sending)
    assert (sending.finished, sending.error) == (True, None)
    assert parts.sent == [0, 1, 2, 3, 4]
    assert len(parts.begun) == 2


def test_the_pause_is_what_the_server_wants_and_longer_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(1, *[(0, ResponseError("It is busy.", status=503, retry_after=1.2))] * 2)
    sending = Sending(parts)
    sending.start()
    ended(sending)
    pauses = [after - before for before, after in zip(parts.begun, parts.begun[1:], strict=False)]
    assert pauses == [pytest.approx(1.2, abs=0.3), pytest.approx(2.0, abs=0.3)]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500])
def test_an_error_that_does_not_pass_ends_it_and_the_rest_can_be_sent(status: int) -> None:
    error = ResponseError("No.", status=status)
    parts = Parts(3, (1, error))
    sending = Sending(parts)
    sending.start()
    ended(sending)
    assert (sending.finished, sending.error, parts.sent, len(parts.begun)) == (False, error, [0], 1)
    sending.start()
    ended(sending)
    assert (sending.finished, sending.error, parts.sent) == (True, None, [0, 1, 2])


def test_it_is_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    for retry_after, tries in ((module._LONGEST_WAIT_S + 1, 1), (0.0, 3)):
        monkeypatch.setattr(module, "_PATIENCE_S", 4.0 if tries > 1 else 900.0)  # 1 + 2 seconds, and no 4 more
        parts = Parts(1, *[(0, ResponseError("Spent.", status=429, retry_after=retry_after))] * 5)
        sending = Sending(parts)
        sending.start()
        ended(sending)
        assert (sending.finished, len(parts.begun), sending.error is not None) == (False, tries, True)


def test_a_stop_ends_it_at_the_next_part_and_a_pause_at_once() -> None:
    parts = Parts(1000)
    sending = Sending(parts)
    sending.start()
    eventually(lambda: len(parts.sent) > 3)
    sending.stop()
    ended(sending)
    sent = len(parts.sent)
    assert (sending.finished, sending.error) == (False, None)
    assert 3 < sent < 1000
    time.sleep(0.1)
    assert len(parts.sent) == sent
    paused = Sending(Parts(1, (0, ResponseError("Later.", status=503, retry_after=200))))
    paused.start()
    eventually(lambda: paused.pause is not None)
    paused.stop()
    eventually(lambda: not paused.active, 1)


def assert_set(gate: threading.Event) -> None:
    assert gate.wait(10)


def test_a_run_that_waits_sees_the_end_at_once() -> None:
    gate = threading.Event()
    sending = Sending(lambda _: assert_set(gate))
    sending.start()
    threading.Timer(0.2, gate.set).start()
    start = time.monotonic()
    while sending.active:
        sending.wait(5)
    assert time.monotonic() - start < 2


def test_signing_out_stops_whatever_the_session_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    later = ResponseError("Later.", status=503, retry_after=200)
    state = {name: Sending(Parts(1, (0, later))) for name in ("upload-sending", "predict-sending")}
    for each in state.values():
        each.start()
    monkeypatch.setattr("streamlit.session_state", state | {"user": "ann"})
    module.stop_all()
    for each in state.values():
        ended(each)
        assert not each.finished
