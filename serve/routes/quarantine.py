"""What the intake took in: images that wait for an admin, and what the next retraining would add."""

import io
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from PIL import Image as Picture
from pydantic import BaseModel, ConfigDict, Field

from lesion.errors import LesionError
from lesion.images import decode
from lesion.loop import catalogue
from lesion.loop.store import image_key
from lesion.loop.tables import DELETED, QUARANTINED
from lesion.loop.views import image_view
from serve import access
from serve.access import require
from serve.judging import image_limits
from serve.routes.models import Reason, Sha256
from serve.schemas import ProblemDetails
from serve.state import storage_of

_THUMBNAIL = 256  # pixels
_REFUSALS: dict[int | str, dict[str, Any]] = access.REFUSALS | {
    404: {"model": ProblemDetails, "description": "There is no such image, or this server has no storage."},
    409: {"model": ProblemDetails, "description": "The image is not quarantined."},
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
        rows = catalogue.images(session, status=QUARANTINED, after=after, limit=limit)
        return {"images": [{"id": row.id, **image_view(row)} for row in rows]}


@router.get(
    "/quarantine/{sha256}/thumbnail",
    summary="A small picture of an image",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "A PNG file."}},
)
def thumbnail(request: Request, sha256: Sha256) -> Response:
    """Give the stored picture as PNG, decoded by the one decoder and at most 256 pixels wide and high."""
    storage = storage_of(request)
    with storage.session() as session:
        row = catalogue.existing(session, sha256)
    if row.status == DELETED:
        raise LesionError(f"The pixels of the image '{sha256}' were deleted.", code="image_deleted", status=404)
    picture = Picture.fromarray(
        decode(storage.store.get(image_key(sha256)), image_limits(request.app.state), at_least=_THUMBNAIL)
    )
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return Response(buffer.getvalue(), media_type="image/png", headers={"Cache-Control": "private, no-store"})


@router.post("/quarantine/{sha256}/release", summary="Accept a quarantined image")
def release(request: Request, sha256: Sha256, how: Release | None = None) -> dict[str, Any]:
    """Accept an image, perhaps under another label; the next retraining may learn from it."""
    label = how.label if how is not None else None
    classes = request.app.state.bundle.classes
    if label is not None and label not in classes:
        raise LesionError(
            f"There is no class {label[:80]!r}. The classes are {', '.join(classes)}.", code="label_unknown", status=422
        )
    with storage_of(request).session() as session:
        return image_view(catalogue.release(session, sha256, request.state.actor, label))


@router.post("/quarantine/{sha256}/drop", summary="Refuse a quarantined image")
def drop(request: Request, sha256: Sha256, reason: Reason) -> dict[str, str]:
    """Refuse an image for good: its pixels go, and it is not taken again."""
    catalogue.drop(storage_of(request), sha256, request.state.actor, reason.reason)
    return {"sha256": sha256, "status": DELETED}


@router.get("/training_data", summary="What there is to learn from")
def training_data(request: Request) -> dict[str, Any]:
    """Count the images by status, label, split and gate generation, and those that the next retraining would add."""
    with storage_of(request).session() as session:
        return catalogue.counts(session) | {"next_retrain": catalogue.new_since(session)}
