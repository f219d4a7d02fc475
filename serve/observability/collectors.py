"""Prometheus metrics that are read on request: from shared memory, and from the storage's database."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from lesion.database.storage import Storage
from lesion.database.tables import ACCEPTED, DELETED, DROPPED, QUARANTINED, Deployment, Image, Job, Worker, now
from lesion.retraining.worker_state import seen_lately

if TYPE_CHECKING:
    from serve.inference.shared_state import SharedState
    from serve.model_follower import ModelFollower

_PATIENCE_S = 3.0
_STATES = ("queued", "running", "promoted", "rejected", "budget_spent", "failed", "cancelled")
_ACTIONS = ("first", "promote", "rollback", "refused")


@dataclass(eq=False)
class SharedStateCollector(Collector):
    """A server's queue and inference workers; ``queue_size`` is the most requests that may wait or be computed."""

    shared_state: "SharedState"
    queue_size: int
    follower: "ModelFollower[Any] | None"

    def collect(self) -> Iterator[Metric]:
        """Read the shared memory."""
        state = self.shared_state
        yield _gauge("queue_depth", "Images that wait for an inference worker or are computed.", state.in_flight)
        yield _gauge("queue_limit", "The most of them; further ones are answered 503.", self.queue_size)
        yield _gauge("workers", "Inference workers.", len(state.pids))
        yield _gauge("workers_ready", "Inference workers that accept requests.", state.ready)
        yield _gauge("start_time_seconds", "When the server started.", state.request_stats.started_at.timestamp())
        labels = ("version", "engine", "precision")
        serving = GaugeMetricFamily("lesion_workers_serving", "Inference workers by what they serve.", labels=labels)
        engine = state.engine
        versions = [version for pid, version in zip(state.pids, state.versions, strict=True) if pid and version]
        for version in sorted(set(versions)):
            names = (version, engine.get("engine", ""), engine.get("precision", ""))
            serving.add_metric(names, versions.count(version))
        yield serving
        if self.follower is not None:
            followed = self.follower.following and state.following
            yield _gauge("ledger_followed", "1 while every process can read which model is champion.", followed)


class DatabaseCollector(Collector):
    """The state of the database; every server on the same database reports the same.

    There is one per process: while the database leaves a query unanswered, no second one is sent.
    A scrape waits ``patience`` seconds for an answer, and not for a database that is not there.
    """

    def __init__(self, storage: Storage, patience: float = _PATIENCE_S) -> None:
        self._storage = storage
        self._patience = patience
        self._pool = ThreadPoolExecutor(1, "database-snapshot")
        self._query: Future[list[Metric]] | None = None

    def collect(self) -> Iterator[Metric]:
        """Query the database."""
        if self._query is None or self._query.done():
            self._query = self._pool.submit(database_metrics, self._storage)
        try:
            metrics = self._query.result(self._patience)
        except (SQLAlchemyError, TimeoutError):
            yield _gauge("database_up", "1 while the database answers.", False)
            return
        yield _gauge("database_up", "1 while the database answers.", True)
        yield from metrics


def database_metrics(storage: Storage) -> list[Metric]:
    """Count the rows of the tables; cheap enough for every scrape."""
    number, moment = func.count(), now()
    with storage.reading() as session:
        states = session.execute(select(Job.state, number).group_by(Job.state)).all()
        statuses = session.execute(select(Image.status, number).group_by(Image.status)).all()
        actions = session.execute(select(Deployment.action, number).group_by(Deployment.action)).all()
        workers = session.scalar(select(number).select_from(Worker).where(seen_lately(moment))) or 0
        requested_at = session.scalar(select(Job.created_at).where(Job.active == 1))
    jobs = dict.fromkeys(_STATES, 0) | dict(states)
    verdicts = {"promote": jobs["promoted"], "reject": jobs["rejected"]}
    images = dict.fromkeys((ACCEPTED, QUARANTINED, DROPPED, DELETED), 0) | dict(statuses)
    deployments = CounterMetricFamily("lesion_deployments", "Changes of the champion.", labels=["action"])
    for action, changes in (dict.fromkeys(_ACTIONS, 0) | dict(actions)).items():
        deployments.add_metric([action], changes)
    metrics = [
        _labeled("jobs", "Retrainings by state.", "state", jobs),
        _labeled("gate_verdicts", "The gate's verdicts on challengers.", "verdict", verdicts),
        _labeled("images", "Images in the catalogue by status.", "status", images),
        _gauge("retraining_workers", "Retraining workers with a recent heartbeat.", workers),
    ]
    if requested_at is not None:
        age = max(0.0, (moment - requested_at).total_seconds())
        metrics.append(_gauge("job_active_seconds", "The age of the active retraining.", age))
    return [*metrics, deployments]


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"lesion_{name}", text, value=float(value))


def _labeled(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(f"lesion_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
