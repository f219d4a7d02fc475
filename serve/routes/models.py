"""Model versions, what they were made from, and the champion ledger."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field

from lesion.catalogue.lineage import lineage_of_version
from lesion.registry.deployments import previous
from lesion.registry.version_views import deployment_view, model_summary, model_view
from serve.http.dependencies import KeyFirstRoute, PrincipalDep, RegistryDep, StorageDep, require
from serve.http.openapi import refusals
from serve.http.schemas import Reason

_REFUSALS = {
    404: "There is no such version, or this server has no storage.",
    409: "The ledger refuses the change: it is the champion already, there is none before, or it changed meanwhile.",
    422: "A parameter is not valid, or the reason is missing.",
    503: "The store does not answer.",
}

router = APIRouter(route_class=KeyFirstRoute, tags=["models"], responses=refusals(_REFUSALS))

Version = Annotated[str, Path(pattern="^[0-9a-f]{12}$", description="A model version.")]


class Change(Reason):
    """Why the champion is changed."""

    expected: int | None = Field(
        default=None, description="The deployment this was decided against; refused when another has followed it."
    )


@router.get("/models", summary="All versions", dependencies=[require("viewer")])
def models(registry: RegistryDep) -> Sequence[Mapping[str, Any]]:
    """List every registered version, the oldest first, and which one is the champion."""
    champion = registry.champion()
    return [model_summary(row, champion) for row in registry.models()]


@router.get("/models/{version}", summary="One version", dependencies=[require("viewer")])
def model(registry: RegistryDep, version: Version) -> Mapping[str, Any]:
    """Describe one version: its data, metrics, calibration, lineage and files."""
    return model_view(registry.model(version), registry.champion())


@router.get("/models/{version}/images", summary="The images of a version", dependencies=[require("admin")])
def model_images(
    storage: StorageDep,
    version: Version,
    after: Annotated[str, Query(pattern="^([0-9a-f]{64})?$", description="The last hash of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> Mapping[str, Any]:
    """Return what a version was made from: counts, and one page of images."""
    with storage.reading() as session:
        return lineage_of_version(session, version, after=after, limit=limit)


@router.post("/models/{version}/promote", summary="Make a version the champion", dependencies=[require("admin")])
def promote(registry: RegistryDep, principal: PrincipalDep, version: Version, change: Change) -> Mapping[str, Any]:
    """Make a version the champion by hand; every server follows within seconds."""
    return deployment_view(registry.promote(version, str(principal), change.reason, expected=change.expected))


@router.post("/rollback", summary="Go back to the version before", dependencies=[require("admin")])
def rollback(registry: RegistryDep, principal: PrincipalDep, change: Change) -> Mapping[str, Any]:
    """Make the version before the champion the champion again; a second rollback goes further back."""
    return deployment_view(registry.rollback(str(principal), change.reason, expected=change.expected))


@router.get("/deployments", summary="The champion ledger", dependencies=[require("viewer")])
def deployments(registry: RegistryDep) -> list[dict[str, Any]]:
    """List every change of champion, the oldest first: which version, by whom, why and when.

    The last one also names the version that a rollback would bring back, as `rollback_to`; null if there is none.
    """
    history = registry.history()
    views = [dict[str, Any](deployment_view(row)) for row in history]
    if views:
        views[-1]["rollback_to"] = previous(history)
    return views
