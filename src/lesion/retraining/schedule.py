"""Retrainings that a worker requests by itself."""

import logging
import time
from contextlib import suppress
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from lesion.catalogue.counts import count_new_images
from lesion.database.storage import Storage
from lesion.database.tables import Job, Snapshot, now
from lesion.promotion.gate_settings import GateSettings
from lesion.retraining.estimate import obstacle_to_retraining
from lesion.retraining.jobs import JobError, JobState, submit
from lesion.retraining.stages import Schedule

logger = logging.getLogger(__name__)

_RETRY = timedelta(hours=1)
_OBSTACLE_S = 60.0  # how long a retraining that could not lead to a promotion is not thought of again


class ScheduledRetraining:
    """Requests a retraining when enough new images wait, unless the gate could not promote any challenger then.

    What is impossible now may become possible with each upload and each review, so it is looked at again and again; why
    it is impossible is logged once.
    """

    def __init__(self, storage: Storage, schedule: Schedule, gate: GateSettings) -> None:
        self._storage = storage
        self._schedule = schedule
        self._gate = gate
        self._next_look = 0.0
        self._logged = ""

    def request_if_due(self) -> None:
        """Request a retraining that is due; call this while no job is active."""
        if not self._schedule.new_images or time.monotonic() < self._next_look:
            return
        with self._storage.session() as session:
            if not retraining_due(session, self._schedule.new_images):
                return
            obstacle = obstacle_to_retraining(session, self._gate)
        if obstacle is not None:
            self._next_look = time.monotonic() + _OBSTACLE_S
            if obstacle.why != self._logged:
                logger.warning("a retraining is due, but it is not begun: %s", obstacle.text)
            self._logged = obstacle.why
            return
        self._logged = ""
        with suppress(JobError):  # another request was first, or nothing is deployed
            job, _ = submit(self._storage, self._schedule.request, "schedule")
            logger.info("retraining %s is due: %d new images wait", job.id, self._schedule.new_images)


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
