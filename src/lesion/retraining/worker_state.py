"""Whether a retraining worker runs, as everybody with the storage can tell from the heartbeats."""

import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from lesion.core.parent_death import is_running
from lesion.database.tables import AuditEntry, Worker, now

SILENT_S = 15.0  # a worker without a heartbeat for this long is considered dead by the others
WORKER_LEFT = "worker.left"  # in the audit log, since a worker that ends on purpose deletes its row
# Twice as long here: the time is compared with that of another machine, whose clock may differ.
_SURELY_DEAD = timedelta(seconds=2 * SILENT_S)


@dataclass(frozen=True)
class WorkerState:
    """Whether any worker runs."""

    running: bool
    seen_at: datetime | None = None  # if none runs: when one was alive the last time; None if that is not known


def this_host() -> str:
    """Return the name of this machine and, in containers, the namespace of process ids."""
    host = socket.gethostname()
    with suppress(OSError):
        host += " " + str(Path("/proc/self/ns/pid").readlink())
    return host[:200]


def seen_lately(moment: datetime) -> ColumnElement[bool]:
    """Return the condition that a worker's heartbeat is at most 30 s old.

    One that is further in the future was made before the clock was set back, and tells nothing.
    """
    return Worker.seen_at.between(moment - _SURELY_DEAD, moment + _SURELY_DEAD)


def worker_state(session: Session) -> WorkerState:
    """Return whether a worker runs; one that was killed on this machine is noticed at once, others in 30 s."""
    host = this_host()
    for worker in session.scalars(select(Worker).where(seen_lately(now()))):
        if worker.host != host or is_running(worker.pid):
            return WorkerState(running=True)
    left = session.scalar(select(func.max(AuditEntry.at)).where(AuditEntry.action == WORKER_LEFT))
    seen = session.scalar(select(func.max(Worker.seen_at)))
    return WorkerState(running=False, seen_at=max((each for each in (seen, left) if each is not None), default=None))
