"""Counts and latencies of requests over all API processes, per minute and since the start, in shared memory."""

import time
from bisect import bisect_left
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from multiprocessing import get_context

from serve.observability.prometheus import count_request

MINUTES = 60  # of history
PREDICT = ("POST", "/predict")
# The upper bounds of the latency buckets, each included: 0.125 ms to 131 s.
BOUNDS_MS = tuple(2.0 ** (step / 4) for step in range(-12, 69))

_RING = MINUTES + 4  # rows per process; spare ones, so that a row that is being reset is no longer read
_REQUESTS, _CLIENT_ERRORS, _SERVER_ERRORS, _PREDICTIONS, _LATENCIES = range(1, 6)  # 0 is the minute
_WIDTH = _LATENCIES + len(BOUNDS_MS) + 1
_PAGE = (1 + _RING) * _WIDTH  # per process: the row since the start, then the ring
_EDGES = (BOUNDS_MS[0] / 2**0.25, *BOUNDS_MS, BOUNDS_MS[-1])


@dataclass(frozen=True, slots=True)
class Counts:
    """The requests of a period."""

    requests: int  # answers, and requests whose sender left before there was one
    client_errors: int  # answers 400 to 499
    server_errors: int  # answers from 500 on
    predictions: int  # images that POST /predict classified
    # The number of requests in each bucket of BOUNDS_MS; the last bucket lies beyond the last bound.
    latencies: tuple[int, ...]

    def quantile_ms(self, share: float) -> float | None:
        """Return a quantile of the latencies, such as the median for ``share=0.5``; None if no request was timed.

        It is interpolated within a bucket, whose bounds lie 19 % apart.
        """
        cumulative = list(accumulate(self.latencies))
        if not cumulative[-1]:
            return None
        rank = share * cumulative[-1]
        bucket = bisect_left(cumulative, rank)
        inside = 1 - (cumulative[bucket] - rank) / self.latencies[bucket]
        low, high = _EDGES[bucket], _EDGES[bucket + 1]
        return float(low * (high / low) ** inside)


@dataclass(frozen=True, slots=True)
class RequestCounter:
    """Counts the requests of one API process, here and for Prometheus. Only that process writes its cells: no lock.

    ``cells`` are those of all processes; those of this process begin at ``start``. The clock gives seconds since 1970.
    """

    cells: MutableSequence[int]
    start: int
    clock: Callable[[], float]

    def count(self, method: str, route: str | None, status: int, seconds: float | None) -> None:
        """Count one request; the arguments are those of :func:`serve.observability.prometheus.count_request`."""
        count_request(method, route, status, seconds)
        changes = {_REQUESTS: 1}
        if status >= 400:
            changes[_SERVER_ERRORS if status >= 500 else _CLIENT_ERRORS] = 1
        if status == 200 and (method, route) == PREDICT:
            changes[_PREDICTIONS] = 1
        if seconds is not None:
            changes[_LATENCIES + bisect_left(BOUNDS_MS, 1000.0 * seconds)] = 1
        for row in (self.start, self._row_of_this_minute()):
            for cell, change in changes.items():
                self.cells[row + cell] += change

    def _row_of_this_minute(self) -> int:
        minute = int(self.clock() // 60)
        row = self.start + _offset(minute)
        if self.cells[row] != minute:
            self.cells[row + 1 : row + _WIDTH] = [0] * (_WIDTH - 1)
            self.cells[row] = minute  # last: readers ignore the row until then
        return row


class RequestStats:
    """The requests of one server, shared by its API processes: each writes through its own counter and reads all."""

    def __init__(self, api_processes: int, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._processes = api_processes
        self._first_minute = int(clock() // 60)
        self._started = time.monotonic()
        self.started_at = datetime.fromtimestamp(clock(), UTC)
        self._cells = get_context("spawn").RawArray("q", api_processes * _PAGE)

    @property
    def uptime_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def counter(self, api_process: int) -> RequestCounter:
        """Return the counter of an API process."""
        return RequestCounter(self._cells, api_process * _PAGE, self._clock)

    def totals(self) -> Counts:
        """Return the requests since the start; no number ever falls."""
        return _sum(self._rows(0))

    def minutes(self) -> list[tuple[datetime, Counts]]:
        """Return at most 60 minutes since the start, the current one last, each with the moment when it began."""
        last = int(self._clock() // 60)
        minutes = []
        for minute in range(max(self._first_minute, last - MINUTES + 1), last + 1):
            rows = [row for row in self._rows(_offset(minute)) if row[0] == minute]
            minutes.append((datetime.fromtimestamp(60 * minute, UTC), _sum(rows)))
        return minutes

    def _rows(self, offset: int) -> list[list[int]]:
        starts = (process * _PAGE + offset for process in range(self._processes))
        return [self._cells[start : start + _WIDTH] for start in starts]


def _offset(minute: int) -> int:
    return (1 + minute % _RING) * _WIDTH


def _sum(rows: list[list[int]]) -> Counts:
    sums = (sum(column) for column in zip([0] * _WIDTH, *rows, strict=True))
    _, requests, client_errors, server_errors, predictions, *latencies = sums
    return Counts(requests, client_errors, server_errors, predictions, tuple(latencies))
