"""Prometheus metrics that are read when they are asked for: the board's, and the loop's from its database."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from lesion.database.storage import Storage
from serve.inference.shared_state import SharedState
from serve.model_follower import ModelFollower
from serve.observability.database_snapshot import DatabaseSnapshot, pulse

_PATIENCE_S = 3.0


class BoardCollector(Collector):
    """A server's queue and workers.

    Args:
        board: What its processes know of each other.
        queue_size: The most requests that may wait or be computed.
        follower: Of its API process; None without a storage.
    """

    def __init__(self, board: SharedState, queue_size: int, follower: ModelFollower[Any] | None) -> None:
        self._board = board
        self._queue_size = queue_size
        self._follower = follower

    def collect(self) -> Iterator[Metric]:
        """Read the board."""
        board = self._board
        yield _gauge("queue_depth", "Images that wait for a worker or are computed.", board.in_flight)
        yield _gauge("queue_limit", "The most that may; more are answered 503.", self._queue_size)
        yield _gauge("workers", "Inference workers.", len(board.pids))
        yield _gauge("workers_ready", "Inference workers that take requests.", board.ready)
        yield _gauge("start_time_seconds", "When the server started.", board.traffic.started_at.timestamp())
        labels = ("version", "engine", "precision")
        serving = GaugeMetricFamily("lesion_workers_serving", "Inference workers by what they serve.", labels=labels)
        engine = board.engine
        alive = [version for pid, version in zip(board.pids, board.versions, strict=True) if pid and version]
        for version in sorted(set(alive)):
            names = (version, engine.get("engine", ""), engine.get("precision", ""))
            serving.add_metric(names, alive.count(version))
        yield serving
        if self._follower is not None:
            followed = self._follower.well and board.following
            yield _gauge("ledger_followed", "1 while every process can read which model is champion.", followed)


class LoopCollector(Collector):
    """What the loop's database says; every server on the same database says the same.

    One for each process: while the database leaves a question unanswered, no second one is asked.

    Args:
        storage: The loop's.
        patience: Seconds that an answer may take; a scrape must not wait for a database that is away.
    """

    def __init__(self, storage: Storage, patience: float = _PATIENCE_S) -> None:
        self._storage = storage
        self._patience = patience
        self._pool = ThreadPoolExecutor(1, "pulse")
        self._asked: Future[DatabaseSnapshot] | None = None

    def collect(self) -> Iterator[Metric]:
        """Ask the database."""
        if self._asked is None or self._asked.done():
            self._asked = self._pool.submit(pulse, self._storage)
        try:
            found = self._asked.result(self._patience)
        except (SQLAlchemyError, TimeoutError):
            yield _gauge("database_up", "1 while the loop's database answers.", False)
            return
        yield _gauge("database_up", "1 while the loop's database answers.", True)
        yield _labelled("jobs", "Retrainings by state.", "state", found.jobs)
        verdicts = {"promote": found.jobs["promoted"], "reject": found.jobs["rejected"]}
        yield _labelled("gate_verdicts", "What the gate said of challengers.", "verdict", verdicts)
        yield _labelled("images", "Images in the catalogue by status.", "status", found.images)
        yield _gauge("retraining_workers", "Workers for retrainings that gave a sign of life lately.", found.workers)
        if found.active_s is not None:
            yield _gauge("job_active_seconds", "How long ago the active retraining was asked for.", found.active_s)
        deployments = CounterMetricFamily("lesion_deployments", "Changes of the champion.", labels=["action"])
        for action, number in found.deployments.items():
            deployments.add_metric([action], number)
        yield deployments


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"lesion_{name}", text, value=float(value))


def _labelled(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(f"lesion_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
