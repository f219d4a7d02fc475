"""Retrainings as people see them: asked for, watched and cancelled. The worker's side is in ``ownership``."""

import uuid
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lesion.core.errors import LesionError
from lesion.database.audit import record
from lesion.database.storage import Storage
from lesion.database.tables import Deployment, Job, now

EPOCHS = (1, 100)
BATCH_SIZE = (2, 512)
LEARNING_RATE = (1e-6, 1.0)
_KEY_LENGTH = 200


class JobError(LesionError):
    """A retraining that cannot be started, found or stopped."""

    default_code = "job_refused"
    default_status = 409


class JobRunningError(JobError):
    """Another retraining is queued or running.

    Args:
        job_id: That one.
    """

    default_code = "job_running"

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"The retraining {job_id} is queued or running, and there is one at a time. Wait for its end, or cancel it."
        )
        self.job_id = job_id

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the id across process borders."""
        return type(self), (self.job_id,)


@dataclass(frozen=True)
class RetrainRequest:
    """What may be chosen for a retraining; everything else is the champion's own recipe.

    Attributes:
        epochs: 1 to 100.
        batch_size: Images a batch, 2 to 512; the champion's own when None.
        learning_rate: 1e-6 to 1; a quarter of the champion's own when None, since its weights have learned already.
    """

    epochs: int = 5
    batch_size: int | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in (("epochs", EPOCHS), ("batch_size", BATCH_SIZE), ("learning_rate", LEARNING_RATE)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # NaN is refused too
                raise JobError(
                    f"{name}={value} is refused: it must lie between {low:g} and {high:g}.",
                    code="retrain_invalid",
                    status=422,
                )


def submit(
    storage: Storage, request: RetrainRequest, requested_by: str, idempotency_key: str | None = None
) -> tuple[Job, bool]:
    """Ask for a retraining; a worker takes it up.

    Args:
        storage: Where the loop keeps its state.
        request: What to train with.
        requested_by: Who asks.
        idempotency_key: The same key from the same asker gives the same job, however often it is sent.

    Returns:
        The job, and whether it is new.

    Raises:
        JobRunningError: Another job is active (``job_running``).
        JobError: There is no champion to start from (``no_champion``), or the key came with another request before
            (``idempotency_key_reused``).
    """
    if idempotency_key is not None and not 0 < len(idempotency_key) <= _KEY_LENGTH:
        raise JobError(
            f"The Idempotency-Key has {len(idempotency_key)} characters; 1 to {_KEY_LENGTH} are taken.",
            code="idempotency_key_invalid",
            status=422,
        )
    try:
        with storage.session() as session:
            return _submit(session, request, requested_by, idempotency_key)
    except IntegrityError:  # with PostgreSQL another process was first: now its row says what to answer
        with storage.session() as session:
            return _submit(session, request, requested_by, idempotency_key)


def _submit(session: Session, request: RetrainRequest, requested_by: str, key: str | None) -> tuple[Job, bool]:
    if key is not None:
        known = session.scalar(select(Job).filter_by(requested_by=requested_by, idempotency_key=key))
        if known is not None and known.request != asdict(request):
            raise JobError(
                f"The Idempotency-Key of this request came with another request before (job {known.id}). "
                "Send a new key with a new request.",
                code="idempotency_key_reused",
                status=422,
            )
        if known is not None:
            return known, False
    running = active_job(session)
    if running is not None:
        raise JobRunningError(running.id)
    if session.scalar(select(Deployment.id).limit(1)) is None:
        raise JobError(
            "There is no model to retrain from: nothing is deployed. Import a training run first "
            "(scripts/models.py import <run>).",
            code="no_champion",
        )
    job = Job(
        id=uuid.uuid4().hex,
        active=1,
        metrics=[],
        request=asdict(request),
        requested_by=requested_by,
        idempotency_key=key,
    )
    session.add(job)
    session.flush()
    record(session, requested_by, "job.submitted", job.id, **job.request)
    return job, True


def active_job(session: Session) -> Job | None:
    """Return the job that is queued or running."""
    return session.scalar(select(Job).where(Job.active == 1))


def job(storage: Storage, job_id: str) -> Job:
    """Return a job.

    Raises:
        JobError: There is none of that id (``job_unknown``).
    """
    with storage.session() as session:
        return _known(session.get(Job, job_id), job_id)


def jobs(storage: Storage, limit: int = 50) -> list[Job]:
    """Return the latest jobs, newest first."""
    with storage.session() as session:
        return list(session.scalars(select(Job).order_by(Job.created_at.desc(), Job.id).limit(limit)))


def cancel(storage: Storage, job_id: str, actor: str) -> Job:
    """Cancel a job: at once while it is queued; else its worker ends the training within seconds.

    Asking twice changes nothing.

    Raises:
        JobError: The job is unknown (``job_unknown``) or over (``job_over``).
    """
    with storage.session() as session:
        found = _known(session.get(Job, job_id, with_for_update=True), job_id)
        if found.active is None:
            raise JobError(
                f"The retraining {job_id} is over ({found.state}); nothing can be cancelled.", code="job_over"
            )
        if not found.cancel_requested:
            record(session, actor, "job.cancelled", job_id, stage=found.stage)
            found.cancel_requested, found.updated_at = True, now()
            found.reason = f"{actor} cancelled it."
        if found.state == "queued":
            found.state = found.stage = "cancelled"
            found.active, found.finished_at = None, now()
        return found


def job_summary(shown: Job) -> dict[str, Any]:
    """Return a job as ``job_view`` does, but for ``changed`` in its verdict, which lists hundreds of single images."""
    view = job_view(shown)
    if shown.verdict is not None:
        comparisons = [
            {name: value for name, value in one.items() if name != "changed"}
            for one in shown.verdict.get("comparisons", ())
        ]
        view["verdict"] = shown.verdict | {"comparisons": comparisons}
    return view


def job_view(shown: Job) -> dict[str, Any]:
    """Return what people may know of a job, JSON-ready."""
    return {
        "job_id": shown.id,
        "state": shown.state,
        "stage": shown.stage,
        "progress": round(shown.progress, 4),
        "epoch": shown.epoch,
        "epochs": shown.request["epochs"],
        "metrics": shown.metrics,
        "seconds_left": shown.seconds_left,
        "cancel_requested": shown.cancel_requested,
        "reason": shown.reason,
        "request": shown.request,
        "requested_by": shown.requested_by,
        "parent": shown.parent,
        "version": shown.version,
        "snapshot_id": shown.snapshot_id,
        "verdict": shown.verdict,
        "created_at": _iso(shown.created_at),
        "started_at": _iso(shown.started_at),
        "finished_at": _iso(shown.finished_at),
        "updated_at": _iso(shown.updated_at),
    }


def _known(found: Job | None, job_id: str) -> Job:
    if found is None:
        raise JobError(
            f"There is no retraining {job_id[:40]!r}. GET /retrain_jobs lists them.", code="job_unknown", status=404
        )
    return found


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
