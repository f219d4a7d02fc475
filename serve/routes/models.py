"""Model versions, what they were made from, and the champion ledger."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from lesion.catalogue import images
from lesion.registry.deployments import MAX_REASON, previous
from lesion.registry.version_views import deployment_view, model_summary, model_view
from serve.http import auth
from serve.http.auth import require
from serve.http.dependencies import registry_of, storage_of

_REFUSALS = {
    404: "There is no such version, or this server has no storage.",
    409: "The ledger refuses the change: it is the champion already, there is none before, or it changed meanwhile.",
    422: "A parameter is not valid, or the reason is missing.",
    503: "The store does not answer.",
}
REFUSALS = auth.refusals(_REFUSALS)

router = APIRouter(tags=["models"], responses=REFUSALS)

Version = Annotated[str, Path(pattern="^[0-9a-f]{12}$", description="A model version.")]


class Reason(BaseModel):
    """Why something is done; it is kept."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    reason: str = Field(min_length=1, max_length=MAX_REASON, examples=["worse on the new scanner"])


class Change(Reason):
    """Why the champion is changed."""

    expected: int | None = Field(
        default=None, description="The deployment this was decided against; refused when another has followed it."
    )


@router.get("/models", summary="All versions", dependencies=[require("viewer")])
def models(request: Request) -> list[dict[str, Any]]:
    """List every registered version, the oldest first, and say which one is the champion."""
    registry = registry_of(request)
    champion = registry.champion()
    return [model_summary(row, champion) for row in registry.models()]


@router.get("/models/{version}", summary="One version", dependencies=[require("viewer")])
def model(request: Request, version: Version) -> dict[str, Any]:
    """Describe one version: its data, metrics, calibration, lineage and files."""
    registry = registry_of(request)
    return model_view(registry.model(version), registry.champion())


@router.get("/models/{version}/images", summary="The images of a version", dependencies=[require("admin")])
def model_images(
    request: Request,
    version: Version,
    after: Annotated[str, Query(pattern="^([0-9a-f]{64})?$", description="The last hash of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> dict[str, Any]:
    """Say what a version was made from: counts, and one page of images."""
    with storage_of(request).session() as session:
        return images.lineage_of_version(session, version, after=after, limit=limit)


@router.post("/models/{version}/promote", summary="Make a version the champion", dependencies=[require("admin")])
def promote(request: Request, version: Version, change: Change) -> dict[str, Any]:
    """Put a version in the champion's place by hand; every server follows within seconds."""
    registry = registry_of(request)
    return deployment_view(registry.promote(version, request.state.actor, change.reason, expected=change.expected))


@router.post("/rollback", summary="Go back to the version before", dependencies=[require("admin")])
def rollback(request: Request, change: Change) -> dict[str, Any]:
    """Make the version before the champion the champion again; a second rollback goes further back."""
    registry = registry_of(request)
    return deployment_view(registry.rollback(request.state.actor, change.reason, expected=change.expected))


@router.get("/deployments", summary="The champion ledger", dependencies=[require("viewer")])
def deployments(request: Request) -> list[dict[str, Any]]:
    """List every change of champion, the oldest first: which version, by whom, why and when.

    The last one also says which version a rollback would bring back, as `rollback_to`; null if there is none.
    """
    history = registry_of(request).history()
    views = [deployment_view(row) for row in history]
    if views:
        views[-1]["rollback_to"] = previous(history)
    return views
