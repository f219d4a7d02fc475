"""Which worker runs a job: workers say that they live, take over from dead ones, and stop when they were overruled."""

import os
import socket
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import delete, or_, select, update

from lesion.database.audit import record
from lesion.database.storage import Storage
from lesion.database.tables import AuditEntry, Job, Worker, now
from lesion.retraining.jobs import JobError

SILENT_S = 15.0  # a worker that has not been heard of for so long is taken for dead
EXECUTION = "/"  # between a worker's id and what sets apart its runs of one job
_DIED = "job.worker_died"


class JobTaken(BaseException):
    """Another worker runs the job now, or this one is told to stop: leave everything as it is.

    No error: nothing that catches errors may take it for the end of the job.
    """


class JobCancelledError(JobError):
    """Somebody cancelled the job."""

    default_code = "job_cancelled"


@dataclass(frozen=True)
class Identity:
    """A worker process.

    Attributes:
        id: Its name, used once.
        host: The machine and, in containers, the space of process ids.
        pid: Its process id there.
    """

    id: str
    host: str
    pid: int

    @classmethod
    def of_this_process(cls) -> "Identity":
        """Name this process."""
        host, pid = socket.gethostname(), os.getpid()
        with suppress(OSError):
            host += " " + str(Path("/proc/self/ns/pid").readlink())
        return cls(f"{socket.gethostname()[:100]}-{pid}-{uuid.uuid4().hex[:8]}", host[:200], pid)


class WorkerHeartbeats:
    """The workers that are alive, as one of them sees it.

    How long one is silent is measured with this machine's clock alone: those of two machines need not agree.

    Args:
        storage: Where the loop keeps its state.
        me: This worker.
        silent_s: After how many seconds of silence a worker is dead.
    """

    def __init__(self, storage: Storage, me: Identity, silent_s: float = SILENT_S) -> None:
        self._storage = storage
        self._me = me
        self._silent_s = silent_s
        self._heard: dict[str, tuple[datetime, float]] = {}

    def beat(self) -> None:
        """Say that this worker is alive."""
        with self._storage.session() as session:
            session.merge(Worker(id=self._me.id, host=self._me.host, pid=self._me.pid, seen_at=now()))

    def alive(self) -> set[str]:
        """Return the ids of the workers that live, and strike off the others."""
        with self._storage.session() as session:
            rows = list(session.scalars(select(Worker)))
            alive = {row.id for row in rows if self._lives(row)} | {self._me.id}
            gone = [row.id for row in rows if row.id not in alive]
            if gone:
                session.execute(delete(Worker).where(Worker.id.in_(gone)))
        return alive

    def leave(self) -> None:
        """Give back what this worker has and strike it off: it ends on purpose."""
        with self._storage.session() as session:
            mine = or_(Job.owner == self._me.id, Job.owner.startswith(self._me.id + EXECUTION, autoescape=True))
            session.execute(update(Job).where(mine, Job.active == 1).values(owner=None))
            session.execute(delete(Worker).where(Worker.id == self._me.id))

    def _lives(self, row: Worker) -> bool:
        if row.host == self._me.host and not _runs(row.pid):
            return False
        last = self._heard.get(row.id)
        if last is None or last[0] != row.seen_at:
            last = self._heard[row.id] = (row.seen_at, time.monotonic())
        return time.monotonic() - last[1] < self._silent_s


def claim(storage: Storage, job_id: str, worker: str) -> Job | None:
    """Take a job up, or on; None when it is over."""
    with storage.session() as session:
        found = session.get(Job, job_id, with_for_update=True)
        if found is None or found.active is None:
            return None
        found.owner, found.state, found.updated_at = worker, "running", now()
        found.started_at = found.started_at or now()
        return found


def report(storage: Storage, job_id: str, worker: str, **values: Any) -> None:  # noqa: ANN401 - columns of Job
    """Write down how far a job is, and learn whether to go on.

    Args:
        storage: Where the loop keeps its state.
        job_id: The job.
        worker: Who runs it.
        **values: Columns of ``Job`` to set.

    Raises:
        JobTaken: The job is another worker's now, or over.
        JobCancelledError: Somebody cancelled it (``job_cancelled``).
    """
    with storage.session() as session:
        found = session.get(Job, job_id, with_for_update=True)
        if found is None or found.active is None or found.owner != worker:
            raise JobTaken(job_id)
        if found.cancel_requested:
            raise JobCancelledError(found.reason or "It was cancelled.")
        for name, value in values.items():
            setattr(found, name, value)
        found.updated_at = now()


def finish(storage: Storage, job_id: str, worker: str, state: str, reason: str) -> None:
    """End a job; nothing happens when it is over.

    Args:
        storage: Where the loop keeps its state.
        job_id: The job.
        worker: Who runs it.
        state: ``promoted``, ``rejected``, ``failed`` or ``cancelled``.
        reason: Why, in a sentence.

    Raises:
        JobTaken: The job is another worker's now.
    """
    with storage.session() as session:
        found = session.get(Job, job_id, with_for_update=True)
        if found is None or found.active is None:
            return
        if found.owner != worker:
            raise JobTaken(job_id)
        stage = found.stage
        found.state = found.stage = state
        found.active, found.owner, found.seconds_left = None, None, None
        found.reason, found.finished_at, found.updated_at = reason, now(), now()
        if state in ("promoted", "rejected"):
            found.progress = 1.0
        record(session, worker, f"job.{state}", job_id, stage=stage, reason=reason)


def take_over(storage: Storage, job_id: str, dead: str | None, worker: str) -> int | None:
    """Take an active job from a worker that died, or from nobody; of several that try, one succeeds.

    Returns:
        How often in a row a worker died at the point where the job is now; None when another worker was first.
    """
    with storage.session() as session:
        found = session.get(Job, job_id, with_for_update=True)
        if found is None or found.active is None or found.owner != dead:
            return None
        found.owner, found.updated_at = worker, now()
        place = {"stage": found.stage, "epoch": found.epoch}
        if dead is not None:
            record(session, worker, _DIED, job_id, worker=dead, **place)
            session.flush()
        entries = session.scalars(select(AuditEntry).filter_by(subject=job_id, action=_DIED))
        return sum(place.items() <= entry.detail.items() for entry in entries)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with suppress(OSError, IndexError):  # a process that is dead but was not waited for still has its number
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return True
