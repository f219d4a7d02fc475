"""``GET /``, ``/health``, ``/health/live``, ``/info`` and ``/me``: answered by the API process, without the model."""

from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from lesion.imaging.decode import FORMATS
from serve.http.auth import REFUSALS, Principal, require
from serve.http.schemas import Health, Info, Me, ServerLimits, Workers

router = APIRouter(tags=["status"])


class Live(BaseModel):
    """That the process answers."""

    live: Literal[True]


@router.get("/", summary="What is here", dependencies=[require("viewer")])
async def index(request: Request) -> dict[str, str]:
    """Name the service and its other paths."""
    return {
        "service": "lesion",
        "model": request.app.state.bundle.name,
        "predict": "/predict",
        "health": "/health",
        "info": "/info",
        "openapi": "/openapi.json",
    }


@router.get(
    "/health",
    summary="Whether predictions are answered",
    response_model=Health,
    responses={503: {"model": Health, "description": "No worker is ready."}},
)
async def health(request: Request) -> JSONResponse:
    """Answer 200 while at least one worker is ready, else 503; `degraded` is less than it should be, yet it answers."""
    workers, ledger = _workers(request), _ledger(request)
    whole = workers.ready == workers.total and ledger != "unreachable"
    answer = Health(
        status="unavailable" if not workers.ready else "ready" if whole else "degraded",
        live=True,
        ready=workers.ready > 0,
        workers=workers,
        model_version=request.app.state.bundle.version,
        ledger=ledger,
    )
    return JSONResponse(answer.model_dump(), 200 if answer.ready else 503)


@router.get("/health/live", summary="Whether the process answers")
async def live() -> Live:
    """Answer 200 whatever the workers and the storage do: who restarts what does not answer should ask this."""
    return Live(live=True)


@router.get("/info", summary="The model and the limits", dependencies=[require("viewer")])
async def info(request: Request) -> Info:
    """Describe the model that is served: classes, version, metrics, engine, limits."""
    state = request.app.state
    facts = state.bundle.facts
    engine = state.board.engine
    limits: ServerLimits = state.limits
    return Info(
        name=state.bundle.name,
        model_version=state.bundle.version,
        created=facts.get("created"),
        classes=list(state.bundle.classes),
        preprocessing=facts["preprocessing"],
        calibration=facts["calibration"],
        metrics=facts.get("metrics", {}),
        engine=engine.get("engine"),
        precision=engine.get("precision"),
        formats=list(FORMATS),
        limits=limits,
        workers=_workers(request),
    )


@router.get("/me", summary="Whose key this is", dependencies=[require("viewer")], responses=REFUSALS)
async def me(request: Request) -> Me:
    """Say to whom the key of this request belongs, and what they may do."""
    sender: Principal = request.state.sender
    return Me(name=sender.name, role=sender.role, keys=bool(sender.key_id))


def _workers(request: Request) -> Workers:
    board = request.app.state.board
    return Workers(ready=board.ready, total=len(board.pids), versions=board.versions)


def _ledger(request: Request) -> Literal["none", "followed", "unreachable"]:
    state = request.app.state
    if state.follower is None:
        return "none"
    return "followed" if state.follower.well and state.board.following else "unreachable"
