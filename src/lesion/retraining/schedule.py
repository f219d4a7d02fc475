"""Whether a scheduled retraining is due."""

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from lesion.catalogue.counts import count_new_images
from lesion.database.tables import Job, Snapshot, now
from lesion.retraining.jobs import JobState

_RETRY = timedelta(hours=1)


def retraining_due(session: Session, new_images: int) -> bool:
    """Return whether at least ``new_images`` images wait that no model was trained on.

    After a failed or cancelled retraining its images still wait: for an hour nothing is due. One that
    ended in the future, before the clock was set back, does not count.
    """
    if session.scalar(select(Snapshot.id).limit(1)) is None or count_new_images(session)["images"] < new_images:
        return False
    undecided = Job.state.in_((JobState.FAILED.value, JobState.CANCELLED.value))
    recent = select(Job.id).where(undecided, Job.finished_at.between(now() - _RETRY, now()))
    return session.scalar(recent.limit(1)) is None
