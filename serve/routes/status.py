"""``GET /``, ``/health``, ``/health/live``, ``/info`` and ``/me``: answered by the API process, without the model."""

from typing import Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from lesion.imaging.file_types import readable_types
from serve.http.dependencies import AppState, CurrentBundle, KeyFirstRoute, PrincipalDep, StateDep, require
from serve.http.openapi import REFUSALS
from serve.http.schemas import Health, Info, Me, ServerLimits, Workers

router = APIRouter(route_class=KeyFirstRoute, tags=["status"])


class Live(BaseModel):
    """The process answers."""

    live: Literal[True]


@router.get("/", summary="What is here", dependencies=[require("viewer")])
async def index(bundle: CurrentBundle) -> dict[str, str]:
    """Name the service and its other paths."""
    return {
        "service": "lesion",
        "model": bundle.name,
        "predict": "/predict",
        "health": "/health",
        "info": "/info",
        "openapi": "/openapi.json",
    }


@router.get(
    "/health",
    summary="Whether predictions are answered",
    response_model=Health,
    responses={503: {"model": Health, "description": "No inference worker is ready."}},
)
async def health(state: StateDep) -> JSONResponse:
    """Answer 200 while at least one worker is ready, else 503; `degraded` if others or the ledger do not answer."""
    workers, ledger = _workers(state), _ledger(state)
    complete = workers.ready == workers.total and ledger != "unreachable"
    answer = Health(
        status="unavailable" if not workers.ready else "ready" if complete else "degraded",
        live=True,
        ready=workers.ready > 0,
        workers=workers,
        model_version=state.bundle.version,
        ledger=ledger,
    )
    return JSONResponse(answer.model_dump(), 200 if answer.ready else 503)


@router.get("/health/live", summary="Whether the process answers")
async def live() -> Live:
    """Answer 200 whatever the workers and the storage do: for programs that restart servers that do not answer."""
    return Live(live=True)


@router.get("/info", summary="The model and the limits", dependencies=[require("viewer")])
async def info(state: StateDep) -> Info:
    """Describe the model that is served: classes, version, metrics, engine, limits."""
    bundle, engine = state.bundle, state.shared_state.engine
    facts, own = bundle.facts, state.settings.class_names or {}
    return Info(
        name=bundle.name,
        model_version=bundle.version,
        created=facts.get("created"),
        classes=list(bundle.classes),
        class_names={label: own.get(label, name) for label, name in bundle.class_names.items()},
        preprocessing=facts["preprocessing"],
        calibration=dict(facts["calibration"]),
        answer_rules=facts.get("answer_rules"),
        domain_trial=facts.get("domain_trial"),
        metrics=facts.get("metrics", {}),
        notes=bundle.notes(),
        engine=engine.get("engine"),
        precision=engine.get("precision"),
        formats=readable_types(),
        limits=ServerLimits.of(state.settings),
        workers=_workers(state),
    )


@router.get("/me", summary="Whose key this is", dependencies=[require("viewer")], responses=REFUSALS)
async def me(principal: PrincipalDep) -> Me:
    """Return to whom the key of this request belongs, and its role."""
    return Me(name=principal.name, role=principal.role, keys=bool(principal.key_id))


def _workers(state: AppState) -> Workers:
    shared = state.shared_state
    return Workers(ready=shared.ready, total=len(shared.pids), versions=shared.versions)


def _ledger(state: AppState) -> Literal["none", "followed", "unreachable"]:
    if state.stored is None:
        return "none"
    return "followed" if state.stored.follower.following and state.shared_state.following else "unreachable"
