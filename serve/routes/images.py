"""One stored image: what is known of it, a small picture, and its deletion."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from lesion.catalogue import images, thumbnails
from lesion.core.errors import LesionError
from lesion.database.tables import DELETED
from lesion.imaging.heatmap import png
from lesion.registry.version_views import image_view
from serve.http import auth
from serve.http.auth import require
from serve.http.dependencies import storage_of
from serve.ingest import image_limits
from serve.routes.models import Reason

PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "A PNG file."}}
_THUMBNAIL = 256  # pixels
_REFUSALS = {
    404: "There is no such image, its pixels were deleted, or this server has no storage.",
    422: "A parameter is not valid, or the reason is missing.",
    503: "The store does not answer.",
}

Sha256 = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="The SHA-256 of an image file.")]

router = APIRouter(prefix="/images/{sha256}", tags=["training data"], responses=auth.refusals(_REFUSALS))


def png_response(data: bytes) -> Response:
    """Answer with a picture that nobody between may keep."""
    return Response(data, media_type="image/png", headers={"Cache-Control": "private, no-store"})


@router.get("", summary="One image's facts", dependencies=[require("admin")])
def image(request: Request, sha256: Sha256) -> dict[str, Any]:
    """Say what is known of an image, and which versions had seen it."""
    with storage_of(request).session() as session:
        row = images.existing(session, sha256)
        return image_view(row) | {"versions": images.lineage_of_image(session, sha256)}


@router.get(
    "/thumbnail",
    summary="A small picture of an image",
    dependencies=[require("contributor")],
    response_class=Response,
    responses=PNG,
)
def thumbnail(request: Request, sha256: Sha256) -> Response:
    """Give the stored picture as PNG, decoded by the one decoder and at most 256 pixels wide and high."""
    storage = storage_of(request)
    with storage.session() as session:
        row = images.existing(session, sha256)
    if row.status == DELETED:
        raise LesionError(f"The pixels of the image '{sha256}' were deleted.", code="image_deleted", status=404)
    return png_response(png(thumbnails.thumbnail(storage.store, sha256, _THUMBNAIL, image_limits(request.app.state))))


@router.delete("", summary="Delete an image's pixels", dependencies=[require("admin")])
def delete_image(request: Request, sha256: Sha256, reason: Reason) -> dict[str, Any]:
    """Remove an image's pixels for good and list the versions that had seen it; from now on it is refused."""
    versions = images.delete_image(storage_of(request), sha256, request.state.actor, reason.reason)
    return {"sha256": sha256, "status": DELETED, "versions": versions}
