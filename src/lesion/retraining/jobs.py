"""Retrainings as users see them: requested, watched and cancelled. The worker's side is in ``leases``."""

import uuid
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypedDict, cast

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lesion.core.errors import ConflictError, InvalidValueError, NotFoundError
from lesion.database.audit import record
from lesion.database.storage import Storage
from lesion.database.tables import Deployment, Job, now
from lesion.retraining.worker_state import worker_state

EPOCHS = (1, 100)
BATCH_SIZE = (2, 512)
LEARNING_RATE = (1e-6, 1.0)
CHOICES = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE}  # lowest and highest values
_KEY_LENGTH = 200


class JobState(StrEnum):
    """What ``Job.state`` can be. A job is active while it is queued or running, and then ends in one of the others."""

    QUEUED = "queued"
    RUNNING = "running"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    BUDGET_SPENT = "budget_spent"  # the gate could not decide: its images have decided as often as they may
    FAILED = "failed"
    CANCELLED = "cancelled"


# Jobs that went all the way to the gate.
DECIDED = (JobState.PROMOTED, JobState.REJECTED, JobState.BUDGET_SPENT)


class JobError(ConflictError):
    """A retraining that cannot be started, found, continued or stopped."""

    default_code = "job_refused"


class RequestInvalidError(InvalidValueError, JobError):
    """A value of the request is out of bounds, or its Idempotency-Key cannot be used."""

    default_code = "retrain_invalid"


class JobNotFoundError(NotFoundError, JobError):
    """There is no job of this id, or it has no report."""

    default_code = "job_unknown"


class JobRunningError(JobError):
    """Another retraining, ``job_id``, is queued or running."""

    default_code = "job_running"

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"The retraining {job_id} is queued or running, and only one runs at a time. "
            "Wait for its end, or cancel it."
        )
        self.job_id = job_id

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the id across process borders."""
        return type(self), (self.job_id,)


@dataclass(frozen=True)
class RetrainRequest:
    """What may be chosen for a retraining; everything else comes from the champion's recipe.

    A value out of bounds is a RequestInvalidError.
    """

    epochs: int = 5  # 1 to 100
    batch_size: int | None = None  # images per batch, 2 to 512; the champion's if None
    # 1e-6 to 1; a quarter of the champion's if None, since its weights are trained already.
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in CHOICES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # refuses NaN too
                raise RequestInvalidError(f"{name}={value} is refused: it must lie between {low:g} and {high:g}.")


class JobView(TypedDict):
    """A job as JSON; times are ISO 8601 in UTC."""

    job_id: str
    state: str
    stage: str
    progress: float
    epoch: int
    epochs: int
    metrics: list[dict[str, Any]]
    seconds_left: float | None
    cancel_requested: bool
    reason: str
    request: dict[str, Any]
    requested_by: str
    parent: str | None
    version: str | None
    snapshot_id: str | None
    verdict: dict[str, Any] | None
    created_at: str | None
    started_at: str | None
    finished_at: str | None
    updated_at: str | None


def submit(
    storage: Storage, request: RetrainRequest, requested_by: str, idempotency_key: str | None = None
) -> tuple[Job, bool]:
    """Request a retraining, which a worker starts; return the job, and whether it is new.

    The same ``idempotency_key`` from the same requester gives the same job, however often it is sent.

    Raises:
        JobRunningError: Another job is active.
        JobError: No model is deployed (``no_champion``).
        RequestInvalidError: The key is empty or too long, or came with another request before.
    """
    if idempotency_key is not None and not 0 < len(idempotency_key) <= _KEY_LENGTH:
        raise RequestInvalidError(
            f"The Idempotency-Key has {len(idempotency_key)} characters; 1 to {_KEY_LENGTH} are allowed.",
            code="idempotency_key_invalid",
        )
    try:
        with storage.session() as session:
            return _submit(session, request, requested_by, idempotency_key)
    except IntegrityError:  # with PostgreSQL, another process was first: now its row decides
        with storage.session() as session:
            return _submit(session, request, requested_by, idempotency_key)


def _submit(session: Session, request: RetrainRequest, requested_by: str, key: str | None) -> tuple[Job, bool]:
    if key is not None:
        earlier = session.scalar(select(Job).filter_by(requested_by=requested_by, idempotency_key=key))
        if earlier is not None and earlier.request != asdict(request):
            raise RequestInvalidError(
                f"The Idempotency-Key of this request came with another request before (job {earlier.id}). "
                "Send a new key with a new request.",
                code="idempotency_key_reused",
            )
        if earlier is not None:
            return earlier, False
    end_abandoned(session)
    running = active_job(session)
    if running is not None:
        raise JobRunningError(running.id)
    if session.scalar(select(Deployment.id).limit(1)) is None:
        raise JobError(
            "There is no model to retrain from: nothing is deployed. Import a training run first "
            "(lesion models import <run>).",
            code="no_champion",
        )
    job = Job(id=uuid.uuid4().hex, active=1, metrics=[], requested_by=requested_by, idempotency_key=key)
    job.request = asdict(request)
    session.add(job)
    session.flush()
    record(session, requested_by, "job.submitted", job.id, **job.request)
    return job, True


def active_job(session: Session) -> Job | None:
    """Return the job that is queued or running."""
    return session.scalar(select(Job).where(Job.active == 1))


def job(storage: Storage, job_id: str) -> Job:
    """Return a job, or raise a JobNotFoundError."""
    with storage.reading() as session:
        return _existing(session.get(Job, job_id), job_id)


def jobs(storage: Storage, limit: int = 50) -> list[Job]:
    """Return the latest jobs, newest first."""
    with storage.reading() as session:
        return list(session.scalars(select(Job).order_by(Job.created_at.desc(), Job.id).limit(limit)))


def cancel(storage: Storage, job_id: str, actor: str) -> Job:
    """Cancel a job: at once while it is queued or no worker runs, otherwise its worker ends it within seconds.

    Calling it twice changes nothing; a job that has ended is a JobError (``job_over``).
    """
    with storage.session() as session:
        job = _existing(session.get(Job, job_id, with_for_update=True), job_id)
        if job.active is None:
            raise JobError(
                f"The retraining {job_id} is over ({job.state}); it cannot be cancelled any more.", code="job_over"
            )
        if not job.cancel_requested:
            record(session, actor, "job.cancelled", job_id, stage=job.stage)
            job.cancel_requested, job.updated_at = True, now()
            job.reason = f"{actor} cancelled it."
        if job.state == JobState.QUEUED:
            _end_cancelled(job)
        else:
            end_abandoned(session)
        return job


def end_abandoned(session: Session) -> None:
    """End the active job if it was cancelled and no worker runs that could end it; a later worker leaves it alone."""
    job = session.scalar(select(Job).where(Job.active == 1, Job.cancel_requested).with_for_update())
    if job is not None and not worker_state(session).running:
        _end_cancelled(job)


def _end_cancelled(job: Job) -> None:
    job.state = job.stage = JobState.CANCELLED.value
    job.active, job.owner, job.seconds_left = None, None, None
    job.finished_at = job.updated_at = now()


def job_summary(job: Job) -> JobView:
    """Return a job as :func:`job_view` does, without ``changed`` in its verdict, which lists hundreds of images."""
    view = job_view(job)
    if job.verdict is not None:
        comparisons = [
            {name: value for name, value in comparison.items() if name != "changed"}
            for comparison in job.verdict.get("comparisons", ())
        ]
        view["verdict"] = job.verdict | {"comparisons": comparisons}
    return view


def job_view(job: Job) -> JobView:
    """Return what users may know of a job."""
    values = {"job_id": job.id, "progress": round(job.progress, 4), "epochs": job.request["epochs"]}
    values = {name: values[name] if name in values else getattr(job, name) for name in JobView.__annotations__}
    for name, value in values.items():
        values[name] = value.isoformat(timespec="seconds") if isinstance(value, datetime) else value
    return cast(JobView, values)


def _existing(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise JobNotFoundError(f"There is no retraining {job_id[:40]!r}. GET /retrain_jobs lists them.")
    return job
