"""What the processes of one server know of each other, in shared memory: no lock, each cell has one writer."""

import json
import time
from multiprocessing import get_context
from typing import Any

from serve.observability.request_stats import RequestStats

_ENGINE_BYTES = 256
_VERSION_DIGITS = 12  # hexadecimal: a version fits into one machine word, which is written at once


class SharedState:
    """Shared by the parent, the API processes and the inference workers.

    Args:
        workers: The number of inference workers.
        api_processes: The number of API processes.

    Attributes:
        traffic: The requests that they answered.
    """

    def __init__(self, workers: int, api_processes: int) -> None:
        context = get_context("spawn")
        self._pids = context.RawArray("q", workers)
        self._busy_since = context.RawArray("d", workers)
        self._versions = context.RawArray("q", workers)
        self._troubled = context.RawArray("b", workers)
        self._in_flight = context.RawArray("q", api_processes)
        self._engine = context.RawArray("c", _ENGINE_BYTES)
        self.traffic = RequestStats(api_processes)

    @property
    def pids(self) -> list[int]:
        """The process id of each worker, 0 while it is not ready."""
        return list(self._pids)

    @property
    def ready(self) -> int:
        """How many workers are ready."""
        return sum(pid != 0 for pid in self._pids)

    @property
    def versions(self) -> list[str | None]:
        """The version that each worker serves, or served last; None for one that never served."""
        return [f"{number:0{_VERSION_DIGITS}x}" if number else None for number in self._versions]

    @property
    def following(self) -> bool:
        """Whether every ready worker could follow the ledger when it looked last."""
        return not any(pid and troubled for pid, troubled in zip(self._pids, self._troubled, strict=True))

    @property
    def in_flight(self) -> int:
        """Requests that wait for an answer, over all API processes."""
        return sum(self._in_flight)

    @property
    def engine(self) -> dict[str, Any]:
        """What the workers run: name and precision; empty until a worker is ready."""
        return dict(json.loads(self._engine.value or b"{}"))

    def worker_serves(self, worker: int, version: str, engine: str, precision: str) -> None:
        """Written by a worker once a model gives its golden answers."""
        self._engine.value = json.dumps({"engine": engine, "precision": precision}).encode()[: _ENGINE_BYTES - 1]
        self._versions[worker] = int(version, 16)

    def worker_is_ready(self, worker: int, pid: int) -> None:
        """Written by a worker that takes requests from now on."""
        self._busy_since[worker] = 0.0
        self._pids[worker] = pid

    def worker_is_gone(self, worker: int) -> None:
        """Written by the parent when a worker has died."""
        self._pids[worker] = 0
        self._busy_since[worker] = 0.0

    def worker_follows(self, worker: int, well: bool) -> None:
        """Written by a worker each time it looked at the ledger."""
        self._troubled[worker] = not well

    def worker_begins(self, worker: int) -> None:
        """Written by a worker before a batch."""
        self._busy_since[worker] = time.monotonic()

    def worker_ends(self, worker: int) -> None:
        """Written by a worker after a batch."""
        self._busy_since[worker] = 0.0

    def stuck(self, seconds: float) -> list[int]:
        """Return the workers that have been at one batch for longer than ``seconds``."""
        now = time.monotonic()
        return [worker for worker, since in enumerate(self._busy_since) if since and now - since > seconds]

    def add_in_flight(self, api_process: int, change: int) -> None:
        """Written by an API process as requests come and go."""
        self._in_flight[api_process] += change
