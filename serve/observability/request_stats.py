"""Requests counted and timed over all API processes, by minute and since the start: cells in shared memory, no lock."""

import time
from bisect import bisect_left
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from multiprocessing import get_context

MINUTES = 60  # how many can be asked for
# Of the latency buckets, each included: 0.125 ms to 131 s.
BOUNDS_MS = tuple(2.0 ** (step / 4) for step in range(-12, 69))

_RING = MINUTES + 4  # rows a process: the one that is begun anew is none that anybody still reads
_REQUESTS, _CLIENT_ERRORS, _SERVER_ERRORS, _PREDICTIONS, _MICROSECONDS, _LATENCIES = range(1, 7)  # 0 is the minute
_WIDTH = _LATENCIES + len(BOUNDS_MS) + 1
_PAGE = (1 + _RING) * _WIDTH  # of one process: the row of all time, then the ring
_EDGES = (BOUNDS_MS[0] / 2**0.25, *BOUNDS_MS, BOUNDS_MS[-1])


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted over some time.

    Attributes:
        requests: Answers, and requests whose sender went away before there was one.
        client_errors: Answers 400 to 499.
        server_errors: Answers from 500 on.
        predictions: Images that were classified for ``POST /predict``.
        microseconds: The sum of the latencies.
        latencies: How many fell into each bucket of ``BOUNDS_MS``; the last bucket is beyond the last bound.
    """

    requests: int
    client_errors: int
    server_errors: int
    predictions: int
    microseconds: int
    latencies: tuple[int, ...]

    def quantile_ms(self, share: float) -> float | None:
        """Return the latency that a share (above 0, up to 1) of the timed requests kept to; None if there were none.

        It is interpolated within a bucket, whose bounds lie 19 % apart.
        """
        reached = list(accumulate(self.latencies))
        if not reached[-1]:
            return None
        wanted = share * reached[-1]
        bucket = bisect_left(reached, wanted)
        inside = 1 - (reached[bucket] - wanted) / self.latencies[bucket]
        low, high = _EDGES[bucket], _EDGES[bucket + 1]
        return float(low * (high / low) ** inside)


class RequestCounter:
    """One API process's cells, which it alone writes.

    Args:
        cells: Those of every process.
        start: Where this process's begin.
        clock: Seconds since 1970.
    """

    def __init__(self, cells: MutableSequence[int], start: int, clock: Callable[[], float]) -> None:
        self._cells = cells
        self._start = start
        self._clock = clock

    def count(self, status: int, seconds: float | None, *, prediction: bool = False) -> None:
        """Count one request.

        Args:
            status: Of its answer; 0 if nobody waited for one.
            seconds: How long it took; None if that says nothing, as of a stream of events.
            prediction: Whether its answer was a prediction.
        """
        changes = {_REQUESTS: 1}
        if status >= 400:
            changes[_SERVER_ERRORS if status >= 500 else _CLIENT_ERRORS] = 1
        if prediction:
            changes[_PREDICTIONS] = 1
        if seconds is not None:
            changes[_MICROSECONDS] = round(1e6 * seconds)
            changes[_LATENCIES + bisect_left(BOUNDS_MS, 1000.0 * seconds)] = 1
        for row in (self._start, self._row_of_this_minute()):
            for cell, change in changes.items():
                self._cells[row + cell] += change

    def _row_of_this_minute(self) -> int:
        minute = int(self._clock() // 60)
        row = self._start + _offset(minute)
        if self._cells[row] != minute:
            self._cells[row + 1 : row + _WIDTH] = [0] * (_WIDTH - 1)
            self._cells[row] = minute  # last: until then nobody takes the row for this minute's
        return row


class RequestStats:
    """The requests of one server, shared by its API processes: each writes through its ``tally``, each reads all.

    Args:
        api_processes: How many there are.
        clock: Seconds since 1970.
    """

    def __init__(self, api_processes: int, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._processes = api_processes
        self._first_minute = int(clock() // 60)
        self._begun = time.monotonic()
        self.started_at = datetime.fromtimestamp(clock(), UTC)
        self._cells = get_context("spawn").RawArray("q", api_processes * _PAGE)

    @property
    def uptime_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begun

    def tally(self, api_process: int) -> RequestCounter:
        """Return what an API process counts with."""
        return RequestCounter(self._cells, api_process * _PAGE, self._clock)

    def totals(self) -> Counts:
        """Return what was counted since the start; nothing in it ever falls."""
        return _sum(self._rows(0))

    def minutes(self) -> list[tuple[datetime, Counts]]:
        """Return the last 60 minutes since the start, the present one last, each with the moment when it began."""
        last = int(self._clock() // 60)
        found = []
        for minute in range(max(self._first_minute, last - MINUTES + 1), last + 1):
            rows = [row for row in self._rows(_offset(minute)) if row[0] == minute]
            found.append((datetime.fromtimestamp(60 * minute, UTC), _sum(rows)))
        return found

    def _rows(self, offset: int) -> list[list[int]]:
        """Return each process's row at a place in its page."""
        starts = (process * _PAGE + offset for process in range(self._processes))
        return [self._cells[start : start + _WIDTH] for start in starts]


def _offset(minute: int) -> int:
    return (1 + minute % _RING) * _WIDTH


def _sum(rows: list[list[int]]) -> Counts:
    cells = [sum(column) for column in zip([0] * _WIDTH, *rows, strict=True)]
    return Counts(
        requests=cells[_REQUESTS],
        client_errors=cells[_CLIENT_ERRORS],
        server_errors=cells[_SERVER_ERRORS],
        predictions=cells[_PREDICTIONS],
        microseconds=cells[_MICROSECONDS],
        latencies=tuple(cells[_LATENCIES:]),
    )
