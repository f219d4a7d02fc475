"""The images that wait for an admin, and what the next retraining would add."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from lesion.catalogue import decisions, images
from lesion.catalogue.counts import count_images, count_new_images
from lesion.catalogue.lineage import lineage_of_image
from lesion.database.tables import QUARANTINED
from lesion.registry.version_views import decided_image_view, image_view
from serve.http.dependencies import CurrentBundle, KeyFirstRoute, PrincipalDep, StorageDep, check_label, require
from serve.http.openapi import refusals
from serve.http.schemas import Reason
from serve.routes.images import PNG, StoredHash, thumbnail

_REFUSALS = {
    404: "There is no such image, or this server has no storage.",
    409: "The image is not quarantined, accepted under another label, or decided on by somebody else meanwhile.",
    422: "A parameter is not valid.",
    503: "The store does not answer.",
}

_MOST = 2**63 - 1  # that a database counts to

router = APIRouter(
    route_class=KeyFirstRoute, tags=["training data"], dependencies=[require("admin")], responses=refusals(_REFUSALS)
)


class Release(BaseModel):
    """How an image is released."""

    model_config = ConfigDict(extra="forbid")

    label: str | None = Field(default=None, max_length=200, description="The right label, if the given one is wrong.")


class Undo(BaseModel):
    """Which decision is taken back."""

    model_config = ConfigDict(extra="forbid")

    expected: int | None = Field(
        default=None, ge=1, le=_MOST, description="The `id` of the decision that you saw: 409 if another one followed."
    )


@router.get("/quarantine", summary="Images that wait for a decision")
def quarantine(
    storage: StorageDep,
    after: Annotated[int, Query(ge=0, le=_MOST, description="The last id of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    order: Annotated[
        Literal["arrival", "doubt"], Query(description="The oldest first, or those with the most doubtful labels.")
    ] = "arrival",
) -> dict[str, Any]:
    """List one page of quarantined images, each with the reason why it waits and how doubtful its label is."""
    with storage.reading() as session:
        doubtful_first = order == "doubt"
        rows = images.list_images(session, status=QUARANTINED, after=after, limit=limit, doubtful_first=doubtful_first)
        return {"images": [{"id": row.id, **image_view(row)} for row in rows]}


@router.get("/quarantine/decisions", summary="The last decisions that can be undone")
def recent_decisions(storage: StorageDep, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> dict[str, Any]:
    """List images that were released or dropped, the last decision first."""
    with storage.reading() as session:
        rows = decisions.recent_decisions(session, limit)
        return {"images": [decided_image_view(row, entry) for row, entry in rows]}


# The picture of `GET /images/{sha256}/thumbnail`.
router.get("/quarantine/{sha256}/thumbnail", summary="A small picture of an image", **PNG)(thumbnail)


@router.post("/quarantine/{sha256}/release", summary="Accept a quarantined image")
def release(
    storage: StorageDep, principal: PrincipalDep, bundle: CurrentBundle, sha256: StoredHash, how: Release | None = None
) -> Mapping[str, Any]:
    """Accept an image, perhaps under another label; the next retraining may learn from it."""
    label = how.label if how is not None else None
    if label is not None:
        check_label(bundle, label)
    with storage.session() as session:
        row = decisions.release(session, sha256, str(principal), label)
        return decided_image_view(row, decisions.last_decision(session, sha256))


@router.post("/quarantine/{sha256}/drop", summary="Refuse a quarantined image")
def drop(storage: StorageDep, principal: PrincipalDep, sha256: StoredHash, reason: Reason) -> Mapping[str, Any]:
    """Refuse an image from now on; its picture is deleted after seven days, and until then this can be undone."""
    with storage.session() as session:
        row = decisions.drop(session, sha256, str(principal), reason.reason)
        return decided_image_view(row, decisions.last_decision(session, sha256))


@router.post("/quarantine/{sha256}/undo", summary="Take a release or a drop back")
def undo(
    storage: StorageDep, principal: PrincipalDep, sha256: StoredHash, which: Undo | None = None
) -> Mapping[str, Any]:
    """Quarantine an image again, under its first label, and list the versions that were trained with it meanwhile."""
    expected = which.expected if which is not None else None
    with storage.session() as session:
        row = decisions.undo(session, sha256, str(principal), expected)
        decided = decided_image_view(row, decisions.last_decision(session, sha256))
        return {**decided, "versions": lineage_of_image(session, sha256)}


@router.get("/training_data", summary="What there is to learn from")
def training_data(storage: StorageDep) -> dict[str, Any]:
    """Count the images by status, label, split and gate generation, and those that the next retraining would add."""
    with storage.reading() as session:
        return {**count_images(session), "next_retrain": count_new_images(session)}
