"""Whether a scheduled retraining is due."""

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from lesion.catalogue.counts import new_since
from lesion.database.tables import Job, Snapshot, now

_RETRY = timedelta(hours=1)


def retraining_due(session: Session, new_images: int) -> bool:
    """Say whether so many images wait that no model has learned from.

    What a failed or cancelled retraining had collected still waits: within the hour after one, nothing is due.
    """
    if session.scalar(select(Snapshot.id).limit(1)) is None or new_since(session)["images"] < new_images:
        return False
    ended = select(Job.id).where(Job.state.in_(("failed", "cancelled")), Job.finished_at > now() - _RETRY)
    return session.scalar(ended.limit(1)) is None
