"""``POST /retrain`` and its jobs. The API writes a row; a retraining worker does the rest."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from lesion.core.errors import LesionError
from lesion.database.storage import Storage
from lesion.database.tables import Job
from lesion.promotion.gate_settings import GateSettings
from lesion.retraining import jobs
from lesion.retraining.estimate import estimate, gate_feasibility
from lesion.retraining.jobs import BATCH_SIZE, EPOCHS, LEARNING_RATE, JobRunningError, RetrainRequest
from lesion.retraining.recipe import default_settings
from lesion.retraining.stored_reports import load_report
from lesion.retraining.worker_state import worker_state
from serve.http.dependencies import AppState, CurrentBundle, KeyFirstRoute, PrincipalDep, StateDep, StorageDep, require
from serve.http.openapi import REFUSALS, refusals
from serve.http.problems import problem_of
from serve.request_errors import BusyError
from serve.routes.artefacts import PAGE_POLICY

_POLL_S = 1.0  # how often an event stream reads the job
_SILENCE_S = 15.0  # after which it sends a comment, since proxies close silent connections
_MAX_STREAMS = 32  # in each API process
_NOT_FOUND = refusals({404: "There is no such job."}, needs_key=False)
_BOUNDS: dict[str, tuple[float | int, float | int]] = {
    "epochs": EPOCHS,
    "batch_size": BATCH_SIZE,
    "learning_rate": LEARNING_RATE,
}

router = APIRouter(route_class=KeyFirstRoute, tags=["retraining"], dependencies=[require("admin")], responses=REFUSALS)
JobId = Annotated[str, Path(description="What POST /retrain answered.", pattern="^[0-9a-f]{32}$")]


class RetrainBody(BaseModel):
    """The settings that may be chosen; all others are those of the champion."""

    model_config = ConfigDict(extra="forbid")

    epochs: int = Field(default=RetrainRequest.epochs, ge=EPOCHS[0], le=EPOCHS[1])
    batch_size: int | None = Field(
        default=None, ge=BATCH_SIZE[0], le=BATCH_SIZE[1], description="The champion's own when left out."
    )
    learning_rate: float | None = Field(
        default=None,
        ge=LEARNING_RATE[0],
        le=LEARNING_RATE[1],
        description="A quarter of the champion's own when left out.",
    )


class WorkerView(BaseModel):
    """Whether a retraining worker runs; without one, jobs wait."""

    running: bool
    seen_at: str | None = Field(
        description="When a worker was alive the last time, if none runs; null if it is not known."
    )


class JobView(BaseModel):
    """A retraining."""

    job_id: str
    state: str = Field(
        description="queued, running, promoted, rejected, budget_spent, failed or cancelled. With budget_spent nothing "
        "was decided: the gate set has decided as often as it may without promoting by luck."
    )
    stage: str = Field(description="snapshot, train, evaluate, register, gate or promote; then as the state.")
    progress: float = Field(ge=0, le=1, description="Of the whole job.")
    epoch: int = Field(description="Completed epochs.")
    epochs: int
    metrics: list[dict[str, Any]] = Field(description="One object per completed epoch.")
    seconds_left: float | None = Field(description="Of the training, estimated from its pace so far.")
    cancel_requested: bool
    reason: str = Field(description="Why it ended as it did.")
    request: dict[str, Any]
    requested_by: str
    parent: str | None = Field(description="The champion that it started from.")
    version: str | None = Field(description="The challenger.")
    snapshot_id: str | None
    verdict: dict[str, Any] | None = Field(
        description="The gate's verdict. In lists of jobs its `comparisons` lack `changed`, the single images whose "
        "predictions changed; `/retrain_status/{job_id}` has them. Its `plan` has the hash (`sha256`) of the change "
        "plan in force, and what was not as planned (`outside`, empty if everything was)."
    )
    created_at: str | None
    started_at: str | None
    finished_at: str | None
    updated_at: str | None
    worker: WorkerView | None = Field(description="Null once the job is over.")


class RetrainEstimate(BaseModel):
    """How long a retraining would take, and what may be chosen for it."""

    epochs: int
    images: int = Field(description="The training images that each epoch goes through.")
    seconds: float | None = Field(description="Of the whole retraining; null when nothing is known.")
    basis: str = Field(description="What the estimate is based on, or why there is none.")
    gate: dict[str, Any] | None = Field(
        description="What the gate could prove afterwards, with its default settings: `images` and `groups` that it "
        "decides on, the `level` of the next look, the champion's `accuracy` (`accuracy_known` is false if it is "
        "assumed), `possible`, the `chances` of rises of accuracy, the `likely_rise` that would be proved in 80 % of "
        "all cases, `more_groups` of held-out images with which half as many errors would likely be proved, and all "
        "this in words (`reason`). Null without held-out images."
    )
    defaults: dict[str, float | int | None] = Field(
        description="The default of each setting: epochs, batch_size and learning_rate; null if the champion does not "
        "have it."
    )
    bounds: dict[str, tuple[float | int, float | int]] = Field(description="The least and the most of each.")
    worker: WorkerView


@router.post(
    "/retrain",
    status_code=202,
    summary="Retrain the champion on all data",
    response_model=JobView,
    responses=refusals(
        {
            409: "A job is active (job_id names it), or nothing is deployed.",
            422: "A value is out of bounds, or the key came with another request.",
        },
        needs_key=False,
    ),
)
async def retrain(
    request: Request,
    storage: StorageDep,
    principal: PrincipalDep,
    body: RetrainBody | None = None,
    idempotency_key: Annotated[
        str | None, Header(max_length=200, description="The same key gives the same job, however often it is sent.")
    ] = None,
) -> Response:
    """Start a durable retraining; the challenger replaces the champion only if it passes the gate."""
    settings = RetrainRequest(**(body or RetrainBody()).model_dump())
    try:
        job, _ = await asyncio.to_thread(jobs.submit, storage, settings, str(principal), idempotency_key)
    except JobRunningError as error:
        location = {"Location": f"/retrain_status/{error.job_id}"}
        return problem_of(request.scope, error, location, job_id=error.job_id)
    view = await asyncio.to_thread(_complete, storage, jobs.job_view(job))
    return JSONResponse(view.model_dump(), 202, {"Location": f"/retrain_status/{job.id}"})


@router.get("/retrain_status/{job_id}", summary="How far a retraining is", responses=_NOT_FOUND)
async def retrain_status(storage: StorageDep, job_id: JobId) -> JobView:
    """Return a job's state, stage, progress, metrics so far, seconds left and, in the end, the gate's verdict."""
    return await _view(storage, job_id)


@router.get(
    "/retrain_estimate",
    summary="How long a retraining would take",
    responses=refusals({404: "This server has no storage."}, needs_key=False),
)
def retrain_estimate(
    storage: StorageDep,
    bundle: CurrentBundle,
    epochs: Annotated[int, Query(ge=EPOCHS[0], le=EPOCHS[1])] = RetrainRequest.epochs,
) -> RetrainEstimate:
    """Estimate the duration of a retraining from the last ones, and list the settings that may be chosen."""
    with storage.reading() as session:
        duration, worker = estimate(session, epochs), _worker(session)
        provable = gate_feasibility(session, GateSettings())
    defaults = {"epochs": RetrainRequest.epochs, **default_settings(bundle)}
    gate = None if provable is None else asdict(provable)
    return RetrainEstimate(
        epochs=epochs, **asdict(duration), gate=gate, defaults=defaults, bounds=_BOUNDS, worker=worker
    )


@router.get("/retrain_jobs", summary="The latest retrainings")
def retrain_jobs(storage: StorageDep, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> list[JobView]:
    """List jobs, the newest first, without the single images of their verdicts."""
    found = _current(storage, lambda: jobs.jobs(storage, limit))
    return [_complete(storage, jobs.job_summary(job)) for job in found]


@router.delete(
    "/retrain_jobs/{job_id}",
    status_code=202,
    summary="Cancel a retraining",
    responses=refusals({404: "There is no such job.", 409: "The job is over."}, needs_key=False),
)
async def cancel(storage: StorageDep, principal: PrincipalDep, job_id: JobId) -> JobView:
    """Cancel a job: at once while it is queued, otherwise within seconds; its training process ends."""
    job = await asyncio.to_thread(jobs.cancel, storage, job_id, str(principal))
    return await asyncio.to_thread(_complete, storage, jobs.job_view(job))


@router.get(
    "/retrain_jobs/{job_id}/report",
    summary="The gate's report for users",
    response_class=HTMLResponse,
    responses=refusals({404: "There is no such job, or it has no report (yet)."}, needs_key=False),
)
async def report(storage: StorageDep, job_id: JobId) -> HTMLResponse:
    """Return the report of the decision as one page without scripts and remote assets."""
    page = await asyncio.to_thread(load_report, storage, job_id)
    return HTMLResponse(page, headers=PAGE_POLICY)


@router.get(
    "/retrain_jobs/{job_id}/events",
    summary="The progress of a retraining",
    response_class=StreamingResponse,
    responses=_NOT_FOUND | {200: {"content": {"text/event-stream": {}}, "description": "Server-sent events."}},
)
async def events(request: Request, state: StateDep, storage: StorageDep, job_id: JobId) -> StreamingResponse:
    """Send the job each time it changes, as events `job` (server-sent events); the stream ends with the job."""
    first = await _view(storage, job_id)
    if state.event_streams >= _MAX_STREAMS:
        raise BusyError(f"{_MAX_STREAMS} event streams are open already. Ask GET /retrain_status instead.")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(request, state, storage, first), media_type="text/event-stream", headers=headers)


async def _stream(request: Request, state: AppState, storage: Storage, view: JobView) -> AsyncIterator[str]:
    state.event_streams += 1
    try:
        yield _event(view)
        silent = 0.0
        while view.finished_at is None and not await request.is_disconnected():
            await asyncio.sleep(_POLL_S)
            silent += _POLL_S
            try:
                current = await _view(storage, view.job_id)
            except (SQLAlchemyError, LesionError):
                continue
            if current != view:
                view, silent = current, 0.0
                yield _event(view)
            elif silent >= _SILENCE_S:
                silent = 0.0
                yield ": still there\n\n"
    finally:
        state.event_streams -= 1


def _event(view: JobView) -> str:
    return f"event: job\ndata: {json.dumps(view.model_dump())}\n\n"


async def _view(storage: Storage, job_id: str) -> JobView:
    def read() -> JobView:
        [found] = _current(storage, lambda: [jobs.job(storage, job_id)])
        return _complete(storage, jobs.job_view(found))

    return await asyncio.to_thread(read)


def _current(storage: Storage, load: Callable[[], list[Job]]) -> list[Job]:
    """Return the jobs that are loaded, after ending one that was cancelled and whose worker died."""
    found = load()
    if any(job.active and job.cancel_requested for job in found):  # only then is a reader a writer
        with storage.session() as session:
            jobs.end_abandoned(session)
        found = load()
    return found


def _complete(storage: Storage, view: jobs.JobView) -> JobView:
    """Add to a job whether a worker is there for it."""
    if view["finished_at"] is not None:
        return JobView(**view, worker=None)
    with storage.reading() as session:
        return JobView(**view, worker=_worker(session))


def _worker(session: Session) -> WorkerView:
    state = worker_state(session)
    seen_at = state.seen_at.isoformat(timespec="seconds") if state.seen_at is not None else None
    return WorkerView(running=state.running, seen_at=seen_at)
