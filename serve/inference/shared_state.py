"""What the processes of one server know of each other, in shared memory: no lock, each cell has one writer."""

import json
import time
from multiprocessing import get_context

from serve.observability.request_stats import RequestStats

_ENGINE_BYTES = 256
_MARKS = 4096  # requests of one API process whose senders left; more than wait at the same time
_VERSION_DIGITS = 12  # hexadecimal: a version fits into one machine word, which is written at once


class SharedState:
    """Shared by the parent, the API processes and the inference workers; ``request_stats`` counts the requests."""

    def __init__(self, workers: int, api_processes: int) -> None:
        context = get_context("spawn")
        self._pids = context.RawArray("q", workers)
        self._busy_since = context.RawArray("d", workers)
        self._versions = context.RawArray("q", workers)
        self._lost_ledger = context.RawArray("b", workers)
        self._in_flight = context.RawArray("q", api_processes)
        self._abandoned = context.RawArray("q", api_processes * _MARKS)
        self._engine = context.RawArray("c", _ENGINE_BYTES)
        self.request_stats = RequestStats(api_processes)

    @property
    def pids(self) -> list[int]:
        """The process id of each inference worker, 0 while it is not ready."""
        return list(self._pids)

    @property
    def ready(self) -> int:
        """The number of inference workers that are ready."""
        return sum(pid != 0 for pid in self._pids)

    @property
    def versions(self) -> list[str | None]:
        """The version that each inference worker serves, or served last; None for one that never served."""
        return [f"{number:0{_VERSION_DIGITS}x}" if number else None for number in self._versions]

    @property
    def following(self) -> bool:
        """Whether every ready inference worker could read the ledger when it last tried."""
        return not any(pid and lost for pid, lost in zip(self._pids, self._lost_ledger, strict=True))

    @property
    def in_flight(self) -> int:
        """The number of requests that wait for an answer, over all API processes."""
        return sum(self._in_flight)

    @property
    def engine(self) -> dict[str, str]:
        """The ``engine`` of the workers, such as ``openvino:cpu``, and its ``precision``; empty until one is ready."""
        facts: dict[str, str] = json.loads(self._engine.value or b"{}")
        return facts

    def worker_serves(self, worker: int, version: str, engine: str, precision: str) -> None:
        """Set what an inference worker serves; written by it once a model gives its golden answers."""
        self._engine.value = json.dumps({"engine": engine, "precision": precision}).encode()[: _ENGINE_BYTES - 1]
        self._versions[worker] = int(version, 16)

    def worker_is_ready(self, worker: int, pid: int) -> None:
        """Note that an inference worker accepts requests; written by it."""
        self._busy_since[worker] = 0.0
        self._pids[worker] = pid

    def worker_is_gone(self, worker: int) -> None:
        """Note that an inference worker has died; written by the parent."""
        self._pids[worker] = 0
        self._busy_since[worker] = 0.0

    def worker_follows(self, worker: int, following: bool) -> None:
        """Set whether an inference worker could read the ledger; written by it after each try."""
        self._lost_ledger[worker] = not following

    def worker_computes(self, worker: int, computing: bool) -> None:
        """Set whether an inference worker computes a batch; written by it."""
        self._busy_since[worker] = time.monotonic() if computing else 0.0

    def abandon(self, api_process: int, request: int) -> None:
        """Mark a request, by its number from 1, as one that nobody waits for; written by its API process."""
        self._abandoned[api_process * _MARKS + request % _MARKS] = request

    def is_abandoned(self, api_process: int, request: int) -> bool:
        """Return whether nobody waits for a request."""
        return bool(self._abandoned[api_process * _MARKS + request % _MARKS] == request)

    def stuck(self, seconds: float) -> list[int]:
        """Return the inference workers that have computed one batch for longer than ``seconds``."""
        now = time.monotonic()
        return [worker for worker, since in enumerate(self._busy_since) if since and now - since > seconds]

    def add_in_flight(self, api_process: int, change: int) -> None:
        """Change the number of waiting requests; written by an API process as requests come and go."""
        self._in_flight[api_process] += change
