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
from starlette.types import Receive, Scope, Send

from lesion.core.errors import LesionError
from lesion.database.storage import Storage
from lesion.database.tables import Job
from lesion.promotion.gate_settings import GateSettings
from lesion.retraining import jobs
from lesion.retraining.estimate import estimate, feasibility_summary, gate_feasibility
from lesion.retraining.jobs import BATCH_SIZE, EPOCHS, LEARNING_RATE, JobRunningError, RetrainRequest
from lesion.retraining.recipe import default_settings
from lesion.retraining.stored_reports import load_report
from lesion.retraining.worker_state import WorkerState, worker_state
from serve.http.dependencies import (
    AppState,
    CurrentBundle,
    HeldOutShare,
    KeyFirstRoute,
    PrincipalDep,
    StateDep,
    StorageDep,
    require,
)
from serve.http.openapi import REFUSALS, refusals
from serve.http.problems import problem_of
from serve.http.retrain_schemas import GateFeasibility, PlainSummary, RetrainEstimate, WorkerView
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
        description="The gate's verdict: first its `summary`, `why` it was so decided and the `next_steps`, in plain "
        "words; then the numbers. `rules` tells by which rule the images of each generation of the gate set were "
        "chosen, `label_check` how many uploads were doubted before the training, and `review` both models' right "
        "answers and accuracies with and without images that nobody reviewed, also as `sentences`. `plan` has the hash "
        "(`sha256`) of the change plan in force, what was not as planned (`outside`) and that as a `sentence`. "
        "Verdicts of earlier versions lack these. In lists of jobs its `comparisons` lack `changed`, the single images "
        "whose predictions changed; `/retrain_status/{job_id}` has them."
    )
    created_at: str | None
    started_at: str | None
    finished_at: str | None
    updated_at: str | None
    worker: WorkerView | None = Field(description="Null once the job is over.")


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
    summary="How long a retraining would take, and what it could prove",
    responses=refusals({404: "This server has no storage."}, needs_key=False),
)
def retrain_estimate(
    storage: StorageDep,
    bundle: CurrentBundle,
    holdout: HeldOutShare,
    epochs: Annotated[int, Query(ge=EPOCHS[0], le=EPOCHS[1])] = RetrainRequest.epochs,
) -> RetrainEstimate:
    """Estimate how long a retraining takes and what it could prove, and list the settings that may be chosen."""
    with storage.reading() as session:
        duration, worker = estimate(session, epochs), worker_state(session)
        gate = worker.gate_settings or GateSettings()
        provable = gate_feasibility(session, gate)
        summary = feasibility_summary(session, provable, holdout)
    return RetrainEstimate(
        epochs=epochs,
        **asdict(duration),
        summary=PlainSummary(**asdict(summary)),
        would_train=gate.train_in_vain or (provable is not None and provable.possible),
        gate=None if provable is None else GateFeasibility(**asdict(provable)),
        gate_settings="default" if worker.gate_settings is None else "worker",
        defaults={"epochs": RetrainRequest.epochs, **default_settings(bundle)},
        bounds=_BOUNDS,
        worker=_worker_view(worker),
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
    return _EventStream(state, _stream(request, storage, first))


class _EventStream(StreamingResponse):
    """A stream of events; it counts as open from here, not from its first event, or too many would begin at once."""

    def __init__(self, state: AppState, content: AsyncIterator[str]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._state = state
        state.event_streams += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._state.event_streams -= 1


async def _stream(request: Request, storage: Storage, view: JobView) -> AsyncIterator[str]:
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
        return JobView(**view, worker=_worker_view(worker_state(session)))


def _worker_view(state: WorkerState) -> WorkerView:
    seen_at = state.seen_at.isoformat(timespec="seconds") if state.seen_at is not None else None
    return WorkerView(running=state.running, seen_at=seen_at)
