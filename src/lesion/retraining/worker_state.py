"""Whether a retraining worker runs and how it decides, as everybody with the storage can tell from the heartbeats."""

import logging
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from lesion.core.errors import ConfigError
from lesion.core.parent_death import is_running
from lesion.database.tables import AuditEntry, Worker, now
from lesion.promotion.gate_settings import GateSettings

logger = logging.getLogger(__name__)

SILENT_S = 15.0  # a worker without a heartbeat for this long is considered dead by the others
WORKER_LEFT = "worker.left"  # in the audit log, since a worker that ends on purpose deletes its row
# Twice as long here: the time is compared with that of another machine, whose clock may differ.
_SURELY_DEAD = timedelta(seconds=2 * SILENT_S)


@dataclass(frozen=True)
class WorkerState:
    """Whether any worker runs."""

    running: bool
    seen_at: datetime | None = None  # if none runs: when one was alive the last time; None if that is not known
    # By which it decides, of several workers the one whose heartbeat is the newest; None if none runs, or if they were
    # written by another version and are not understood.
    gate_settings: GateSettings | None = None


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
    for worker in session.scalars(select(Worker).where(seen_lately(now())).order_by(Worker.seen_at.desc())):
        if worker.host != host or is_running(worker.pid):
            return WorkerState(running=True, gate_settings=_gate_settings(worker))
    left = session.scalar(select(func.max(AuditEntry.at)).where(AuditEntry.action == WORKER_LEFT))
    seen = session.scalar(select(func.max(Worker.seen_at)))
    return WorkerState(running=False, seen_at=max((each for each in (seen, left) if each is not None), default=None))


def _gate_settings(worker: Worker) -> GateSettings | None:
    if worker.gate_settings is None:
        return None
    try:
        return GateSettings.from_json(worker.gate_settings)
    except ConfigError as error:
        logger.warning("the settings of the worker %s are not used: %s", worker.id, error)
        return None
