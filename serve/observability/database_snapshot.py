"""The loop's state in a few numbers, cheap enough to be asked for every some seconds."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select

from lesion.database.storage import Storage
from lesion.database.tables import ACCEPTED, DELETED, QUARANTINED, Deployment, Image, Job, Worker, now
from lesion.retraining.leases import SILENT_S

STATES = ("queued", "running", "promoted", "rejected", "failed", "cancelled")
ACTIONS = ("first", "promote", "rollback", "refused")


@dataclass(frozen=True, slots=True)
class DatabaseSnapshot:
    """What there is at a moment.

    Attributes:
        jobs: Retrainings by state.
        images: Images by status.
        deployments: Changes of the champion by action.
        workers: Worker processes that gave a sign of life lately, by this machine's clock.
        active_s: Seconds since the active retraining was asked for; None when none is active.
    """

    jobs: dict[str, int]
    images: dict[str, int]
    deployments: dict[str, int]
    workers: int
    active_s: float | None


def pulse(storage: Storage) -> DatabaseSnapshot:
    """Count what the loop's tables hold.

    Raises:
        SQLAlchemyError: The database does not answer.
    """
    number, moment = func.count(), now()
    with storage.reading() as session:
        jobs = session.execute(select(Job.state, number).group_by(Job.state)).all()
        images = session.execute(select(Image.status, number).group_by(Image.status)).all()
        deployments = session.execute(select(Deployment.action, number).group_by(Deployment.action)).all()
        heard = Worker.seen_at > moment - timedelta(seconds=2 * SILENT_S)
        workers = session.scalar(select(number).select_from(Worker).where(heard)) or 0
        began = session.scalar(select(Job.created_at).where(Job.active == 1))
    return DatabaseSnapshot(
        dict.fromkeys(STATES, 0) | dict(jobs),
        dict.fromkeys((ACCEPTED, QUARANTINED, DELETED), 0) | dict(images),
        dict.fromkeys(ACTIONS, 0) | dict(deployments),
        workers,
        None if began is None else (moment - began).total_seconds(),
    )
