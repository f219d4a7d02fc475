"""Which worker runs a job: workers send heartbeats, take over from dead workers, and stop when they lost the job."""

import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, or_, select, update

from lesion.core.parent_death import is_running
from lesion.database.audit import record
from lesion.database.storage import Storage
from lesion.database.tables import AuditEntry, Job, Worker, now
from lesion.promotion.gate_settings import GateSettings
from lesion.retraining.jobs import DECIDED, JobError, JobState
from lesion.retraining.worker_state import SILENT_S, WORKER_LEFT, this_host

EXECUTION_SEPARATOR = "/"  # in Job.owner, between the worker's id and the part that tells its executions apart
_WORKER_DIED = "job.worker_died"


class LeaseLost(BaseException):
    """Another worker runs the job now, or this worker is told to stop: leave everything as it is.

    It is not an ``Exception``: code that catches errors must not end the job because of it.
    """


class JobCancelledError(JobError):
    """A user cancelled the job."""

    default_code = "job_cancelled"


@dataclass(frozen=True)
class WorkerIdentity:
    """A worker process."""

    id: str
    host: str  # the machine and, in containers, the namespace of process ids
    pid: int  # its process id there

    @classmethod
    def of_this_process(cls) -> "WorkerIdentity":
        """Return a new identity for this process."""
        pid = os.getpid()
        return cls(f"{socket.gethostname()[:100]}-{pid}-{uuid.uuid4().hex[:8]}", this_host(), pid)


class WorkerHeartbeats:
    """The workers that are alive, as one of them sees it.

    A worker is dead after ``silent_s`` seconds without a heartbeat, measured with this machine's clock only: clocks of
    two machines may differ. The worker tells the others by which settings of the ``gate`` it decides.
    """

    def __init__(
        self,
        storage: Storage,
        identity: WorkerIdentity,
        silent_s: float = SILENT_S,
        gate: GateSettings | None = None,
    ) -> None:
        self._storage = storage
        self._identity = identity
        self._silent_s = silent_s
        self._gate_settings = None if gate is None else gate.to_json()
        self._last_seen: dict[str, tuple[datetime, float]] = {}

    def beat(self) -> None:
        """Record that this worker is alive, and by which settings of the gate it decides."""
        with self._storage.session() as session:
            session.merge(Worker(**asdict(self._identity), gate_settings=self._gate_settings, seen_at=now()))

    def alive(self) -> set[str]:
        """Return the ids of the workers that are alive, and delete the rows of the others."""
        with self._storage.session() as session:
            workers = list(session.scalars(select(Worker)))
            alive = {worker.id for worker in workers if self._is_alive(worker)} | {self._identity.id}
            dead = [worker.id for worker in workers if worker.id not in alive]
            if dead:
                session.execute(delete(Worker).where(Worker.id.in_(dead)))
        return alive

    def leave(self) -> None:
        """Give back the jobs of this worker and delete its row, when it ends on purpose."""
        own_id = self._identity.id
        with self._storage.session() as session:
            owned = or_(Job.owner == own_id, Job.owner.startswith(own_id + EXECUTION_SEPARATOR, autoescape=True))
            session.execute(update(Job).where(owned, Job.active == 1).values(owner=None))
            session.execute(delete(Worker).where(Worker.id == own_id))
            record(session, own_id, WORKER_LEFT, own_id)

    def _is_alive(self, worker: Worker) -> bool:
        if worker.host == self._identity.host and not is_running(worker.pid):
            return False
        last = self._last_seen.get(worker.id)
        if last is None or last[0] != worker.seen_at:
            last = self._last_seen[worker.id] = (worker.seen_at, time.monotonic())
        return time.monotonic() - last[1] < self._silent_s


def claim(storage: Storage, job_id: str, worker: str) -> Job | None:
    """Begin or continue a job; None when it is over."""
    with storage.session() as session:
        job = session.get(Job, job_id, with_for_update=True)
        if job is None or job.active is None:
            return None
        job.owner, job.state, job.updated_at = worker, JobState.RUNNING.value, now()
        job.started_at = job.started_at or now()
        return job


def record_progress(storage: Storage, job_id: str, worker: str, **values: Any) -> None:  # noqa: ANN401
    """Set the columns of a job, and check whether this worker may continue it.

    Raises:
        LeaseLost: Another worker runs the job now, or it is over.
        JobCancelledError: A user cancelled it.
    """
    with storage.session() as session:
        job = session.get(Job, job_id, with_for_update=True)
        if job is None or job.active is None or job.owner != worker:
            raise LeaseLost(job_id)
        if job.cancel_requested:
            raise JobCancelledError(job.reason or "It was cancelled.")
        for name, value in values.items():
            setattr(job, name, value)
        job.updated_at = now()


def finish(storage: Storage, job_id: str, worker: str, state: JobState, reason: str) -> None:
    """End a job in a state, with a reason in a sentence; a job that is over stays as it is.

    If another worker runs the job now, raise LeaseLost.
    """
    with storage.session() as session:
        job = session.get(Job, job_id, with_for_update=True)
        if job is None or job.active is None:
            return
        if job.owner != worker:
            raise LeaseLost(job_id)
        stage = job.stage
        job.state = job.stage = state.value
        job.active, job.owner, job.seconds_left = None, None, None
        job.reason, job.finished_at, job.updated_at = reason, now(), now()
        if state in DECIDED:
            job.progress = 1.0
        record(session, worker, f"job.{state}", job_id, stage=stage, reason=reason)


def take_over(storage: Storage, job_id: str, dead: str | None, worker: str) -> int | None:
    """Take an active job from a worker that died, or a job that has no worker; of several callers, one succeeds.

    Return how often in a row a worker died at the point where the job is now; None when another worker was first.
    """
    with storage.session() as session:
        job = session.get(Job, job_id, with_for_update=True)
        if job is None or job.active is None or job.owner != dead:
            return None
        job.owner, job.updated_at = worker, now()
        point = {"stage": job.stage, "epoch": job.epoch}
        if dead is not None:
            record(session, worker, _WORKER_DIED, job_id, worker=dead, **point)
            session.flush()
        entries = session.scalars(select(AuditEntry).filter_by(subject=job_id, action=_WORKER_DIED))
        return sum(point.items() <= entry.detail.items() for entry in entries)
