"""Whether a retraining worker runs, as everybody with the storage can tell from the heartbeats."""

import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select
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


def worker_state(session: Session) -> WorkerState:
    """Return whether a worker runs; one that was killed on this machine is noticed at once, others in 30 s."""
    workers, host, moment = list(session.scalars(select(Worker))), this_host(), now()
    for worker in workers:
        ended = worker.host == host and not is_running(worker.pid)
        if not ended and moment - worker.seen_at < _SURELY_DEAD:
            return WorkerState(running=True)
    left = session.scalar(select(func.max(AuditEntry.at)).where(AuditEntry.action == WORKER_LEFT))
    seen = [worker.seen_at for worker in workers] + ([left] if left is not None else [])
    return WorkerState(running=False, seen_at=max(seen, default=None))
