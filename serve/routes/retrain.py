"""``POST /retrain`` and everything about its jobs. The API writes a row; a worker process does the rest."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError

from lesion.core.errors import LesionError
from lesion.database.storage import Storage
from lesion.retraining import jobs
from lesion.retraining.estimate import estimate
from lesion.retraining.jobs import BATCH_SIZE, EPOCHS, LEARNING_RATE, JobRunningError, RetrainRequest
from lesion.retraining.recipe import own_settings
from lesion.retraining.stored_reports import report_of
from serve.http.auth import REFUSALS, require
from serve.http.dependencies import storage_of
from serve.http.problems import BusyError, problem
from serve.http.schemas import ProblemDetails
from serve.routes.artefacts import PAGE_POLICY

_LOOK_S = 1.0  # how often an event stream looks for news
_SILENCE_S = 15.0  # after which it sends a comment, for proxies that close what is silent
_MAX_STREAMS = 32  # in each API process
_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ProblemDetails, "description": "There is no such job."}}
_BOUNDS: dict[str, tuple[float | int, float | int]] = {
    "epochs": EPOCHS,
    "batch_size": BATCH_SIZE,
    "learning_rate": LEARNING_RATE,
}

router = APIRouter(tags=["retraining"], dependencies=[require("admin")], responses=REFUSALS)
JobId = Annotated[str, Path(description="What POST /retrain answered.", pattern="^[0-9a-f]{32}$")]


class RetrainBody(BaseModel):
    """What may be chosen; everything else is the champion's own recipe."""

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
    state: str = Field(description="queued, running, promoted, rejected, failed or cancelled.")
    stage: str = Field(description="snapshot, train, evaluate, register, gate or promote; then as the state.")
    progress: float = Field(ge=0, le=1, description="Of the whole job.")
    epoch: int = Field(description="Epochs that are done.")
    epochs: int
    metrics: list[dict[str, Any]] = Field(description="One object an epoch that is done.")
    seconds_left: float | None = Field(description="Of the training, as its pace so far promises.")
    cancel_requested: bool
    reason: str = Field(description="Why it ended as it did.")
    request: dict[str, Any]
    requested_by: str
    parent: str | None = Field(description="The champion that it started from.")
    version: str | None = Field(description="The challenger.")
    snapshot_id: str | None
    verdict: dict[str, Any] | None = Field(
        description="What the gate found. In lists of jobs its `comparisons` lack `changed`, the single images that "
        "changed sides; `/retrain_status/{job_id}` has them."
    )
    created_at: str | None
    started_at: str | None
    finished_at: str | None
    updated_at: str | None


class RetrainEstimate(BaseModel):
    """How long a retraining would take, and what may be chosen for it."""

    epochs: int
    images: int = Field(description="The training images that each epoch goes through.")
    seconds: float | None = Field(description="Of the whole retraining; null when nothing is known.")
    basis: str = Field(description="What that was reckoned from, or why it is not known.")
    defaults: dict[str, float | int | None] = Field(
        description="What is taken unless it is chosen: epochs, batch_size and learning_rate; null if the champion "
        "does not say it."
    )
    bounds: dict[str, tuple[float | int, float | int]] = Field(description="The least and the most of each.")


@router.post(
    "/retrain",
    status_code=202,
    summary="Retrain the champion on all data",
    response_model=JobView,
    responses={
        409: {"model": ProblemDetails, "description": "A job is active (job_id names it), or nothing is deployed."},
        422: {
            "model": ProblemDetails,
            "description": "A value is out of bounds, or the key came with another request.",
        },
    },
)
async def retrain(
    request: Request,
    body: RetrainBody | None = None,
    idempotency_key: Annotated[
        str | None, Header(max_length=200, description="The same key gives the same job, however often it is sent.")
    ] = None,
) -> Response:
    """Start a durable retraining; the challenger replaces the champion only if it passes the gate."""
    wanted = RetrainRequest(**(body or RetrainBody()).model_dump())
    try:
        made, _ = await asyncio.to_thread(jobs.submit, storage_of(request), wanted, _actor(request), idempotency_key)
    except JobRunningError as error:
        place = {"Location": f"/retrain_status/{error.job_id}"}
        return problem(request.scope, error.status, error.code, error.message, place, job_id=error.job_id)
    return JSONResponse(jobs.job_view(made), 202, {"Location": f"/retrain_status/{made.id}"})


@router.get("/retrain_status/{job_id}", summary="How far a retraining is", responses=_NOT_FOUND)
async def retrain_status(request: Request, job_id: JobId) -> JobView:
    """Give a job's state, stage, progress, metrics so far, seconds left and, in the end, the gate's verdict."""
    return JobView(**await _view(storage_of(request), job_id))


@router.get(
    "/retrain_estimate",
    summary="How long a retraining would take",
    responses={404: {"model": ProblemDetails, "description": "This server has no storage."}},
)
def retrain_estimate(
    request: Request, epochs: Annotated[int, Query(ge=EPOCHS[0], le=EPOCHS[1])] = RetrainRequest.epochs
) -> RetrainEstimate:
    """Estimate a retraining that would begin now from how long the last ones took, and say what may be chosen."""
    with storage_of(request).session() as session:
        found = estimate(session, epochs)
    defaults = {"epochs": RetrainRequest.epochs, **own_settings(request.app.state.bundle)}
    return RetrainEstimate(epochs=epochs, **asdict(found), defaults=defaults, bounds=_BOUNDS)


@router.get("/retrain_jobs", summary="The latest retrainings")
def retrain_jobs(request: Request, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> list[JobView]:
    """List jobs, the newest first, without the single images of their verdicts."""
    return [JobView(**jobs.job_summary(one)) for one in jobs.jobs(storage_of(request), limit)]


@router.delete(
    "/retrain_jobs/{job_id}",
    status_code=202,
    summary="Cancel a retraining",
    responses=_NOT_FOUND | {409: {"model": ProblemDetails, "description": "The job is over."}},
)
async def cancel(request: Request, job_id: JobId) -> JobView:
    """Cancel a job: at once while it is queued, else within seconds; its training process ends."""
    return JobView(**jobs.job_view(await asyncio.to_thread(jobs.cancel, storage_of(request), job_id, _actor(request))))


@router.get(
    "/retrain_jobs/{job_id}/report",
    summary="The gate's report for people",
    response_class=HTMLResponse,
    responses={404: {"model": ProblemDetails, "description": "There is no such job, or it has no report (yet)."}},
)
async def report(request: Request, job_id: JobId) -> HTMLResponse:
    """Give the report of the decision as one page; it loads nothing and runs nothing."""
    page = await asyncio.to_thread(report_of, storage_of(request), job_id)
    return HTMLResponse(page, headers=PAGE_POLICY)


@router.get(
    "/retrain_jobs/{job_id}/events",
    summary="A retraining as it goes",
    response_class=StreamingResponse,
    responses=_NOT_FOUND | {200: {"content": {"text/event-stream": {}}, "description": "Server-sent events."}},
)
async def events(request: Request, job_id: JobId) -> StreamingResponse:
    """Send the job whenever something of it changes, as events `job` (server-sent events); ends with the job."""
    storage, state = storage_of(request), request.app.state
    first = await _view(storage, job_id)
    if getattr(state, "event_streams", 0) >= _MAX_STREAMS:
        raise BusyError(f"{_MAX_STREAMS} event streams are open already. Ask GET /retrain_status instead.")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(request, storage, first), media_type="text/event-stream", headers=headers)


async def _stream(request: Request, storage: Storage, view: dict[str, Any]) -> AsyncIterator[str]:
    state = request.app.state
    state.event_streams = getattr(state, "event_streams", 0) + 1
    try:
        yield _event(view)
        silent = 0.0
        while view["finished_at"] is None and not await request.is_disconnected():
            await asyncio.sleep(_LOOK_S)
            silent += _LOOK_S
            try:
                seen = await _view(storage, view["job_id"])
            except (SQLAlchemyError, LesionError):
                continue
            if seen != view:
                view, silent = seen, 0.0
                yield _event(view)
            elif silent >= _SILENCE_S:
                silent = 0.0
                yield ": still there\n\n"
    finally:
        state.event_streams -= 1


def _event(view: dict[str, Any]) -> str:
    return f"event: job\ndata: {json.dumps(view)}\n\n"


async def _view(storage: Storage, job_id: str) -> dict[str, Any]:
    return jobs.job_view(await asyncio.to_thread(jobs.job, storage, job_id))


def _actor(request: Request) -> str:
    return str(getattr(request.state, "actor", "local"))
