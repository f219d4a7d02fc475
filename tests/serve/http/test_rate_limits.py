"""The limit per minute, by a clock that nobody sets."""

import time

import pytest

from lesion.database.tables import ApiKey
from serve.http.problems import TooManyRequestsError
from serve.http.rate_limits import MovingWindow, UsageMeter


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


def test_a_window_moves(clock: Clock) -> None:
    window = MovingWindow()
    assert [window.admit("a", 2), window.admit("b", 1)] == [0.0, 0.0]
    clock.now += 10
    assert window.admit("a", 2) == 0.0
    clock.now += 15
    assert (window.admit("a", 2), window.admit("b", 1)) == (35.0, 35.0)  # a refused one does not count
    assert window.admit("a", 1) == 45.0  # a lower limit: both of before must be over
    clock.now += 35
    assert (window.admit("a", 2), window.admit("a", 2)) == (0.0, 10.0)


def test_a_clock_that_is_set_back_locks_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    meter, key = UsageMeter(2, None, 1), ApiKey(id="0" * 16)
    for _ in range(2):
        meter.count(key)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 3600)
    with pytest.raises(TooManyRequestsError) as caught:
        meter.count(key)
    assert caught.value.headers is not None
    assert 1 <= int(caught.value.headers["Retry-After"]) <= 60
