"""What the intake took in: images that wait for an admin, and what the next retraining would add."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from lesion.catalogue import images
from lesion.database.tables import DELETED, QUARANTINED
from lesion.registry.version_views import image_view
from serve.http import auth
from serve.http.auth import require
from serve.http.dependencies import check_label, storage_of
from serve.http.schemas import ProblemDetails
from serve.routes.images import PNG, Sha256
from serve.routes.images import thumbnail as image_thumbnail
from serve.routes.models import Reason

_REFUSALS: dict[int | str, dict[str, Any]] = auth.REFUSALS | {
    404: {"model": ProblemDetails, "description": "There is no such image, or this server has no storage."},
    409: {"model": ProblemDetails, "description": "The image is not quarantined, or accepted under another label."},
    422: {"model": ProblemDetails, "description": "A parameter is not valid."},
    503: {"model": ProblemDetails, "description": "The store does not answer."},
}

router = APIRouter(tags=["training data"], dependencies=[require("admin")], responses=_REFUSALS)


class Release(BaseModel):
    """How an image is released."""

    model_config = ConfigDict(extra="forbid")

    label: str | None = Field(default=None, max_length=200, description="The right label, if the given one is wrong.")


@router.get("/quarantine", summary="Images that wait for a decision")
def quarantine(
    request: Request,
    after: Annotated[int, Query(ge=0, description="The last id of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """List one page of quarantined images in the order they came, each with the reason why it waits."""
    with storage_of(request).session() as session:
        rows = images.images(session, status=QUARANTINED, after=after, limit=limit)
        return {"images": [{"id": row.id, **image_view(row)} for row in rows]}


@router.get(
    "/quarantine/{sha256}/thumbnail",
    summary="A small picture of an image",
    response_class=Response,
    responses=PNG,
)
def thumbnail(request: Request, sha256: Sha256) -> Response:
    """Give the picture that `GET /images/{sha256}/thumbnail` gives."""
    return image_thumbnail(request, sha256)


@router.post("/quarantine/{sha256}/release", summary="Accept a quarantined image")
def release(request: Request, sha256: Sha256, how: Release | None = None) -> dict[str, Any]:
    """Accept an image, perhaps under another label; the next retraining may learn from it."""
    label = how.label if how is not None else None
    if label is not None:
        check_label(request, label)
    with storage_of(request).session() as session:
        return image_view(images.release(session, sha256, request.state.actor, label))


@router.post("/quarantine/{sha256}/drop", summary="Refuse a quarantined image")
def drop(request: Request, sha256: Sha256, reason: Reason) -> dict[str, str]:
    """Refuse an image for good: its pixels go, and it is not taken again."""
    images.drop(storage_of(request), sha256, request.state.actor, reason.reason)
    return {"sha256": sha256, "status": DELETED}


@router.get("/training_data", summary="What there is to learn from")
def training_data(request: Request) -> dict[str, Any]:
    """Count the images by status, label, split and gate generation, and those that the next retraining would add."""
    with storage_of(request).session() as session:
        return images.counts(session) | {"next_retrain": images.new_since(session)}
