"""One stored image: its record, a small picture, and its deletion."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response

from lesion.catalogue import images, thumbnails
from lesion.catalogue.decisions import last_decision
from lesion.catalogue.label_corrections import label_history
from lesion.catalogue.lineage import lineage_of_image
from lesion.core.errors import NotFoundError
from lesion.database.tables import DELETED
from lesion.imaging.heatmap import encode_png
from lesion.registry.version_views import decided_image_view
from serve.http.dependencies import ImageLimits, KeyFirstRoute, PrincipalDep, StorageDep, StorageServicesDep, require
from serve.http.openapi import refusals
from serve.http.schemas import Reason

# Arguments of a route that answers with a picture.
PNG: dict[str, Any] = {
    "response_class": Response,
    "responses": {200: {"content": {"image/png": {}}, "description": "A PNG file."}},
}
_THUMBNAIL = 256  # pixels
_REFUSALS = {
    404: "There is no such image, its pixels were deleted, or this server has no storage.",
    422: "A parameter is not valid, or the reason is missing.",
    503: "The store does not answer.",
}

Sha256 = Annotated[
    str, Path(pattern="^[0-9a-f]{64}$", description="The SHA-256 of an image file, as stored or as sent.")
]


def _stored_hash(services: StorageServicesDep, sha256: Sha256) -> str:
    with services.storage.reading() as session:
        return images.stored_hash(session, sha256, services.intake.pseudonyms)


# The hash of an image that is stored, whether the request has this one or that of the file as it was sent.
StoredHash = Annotated[str, Depends(_stored_hash)]

router = APIRouter(
    route_class=KeyFirstRoute, prefix="/images/{sha256}", tags=["training data"], responses=refusals(_REFUSALS)
)


def png_response(data: bytes) -> Response:
    """Answer with a picture that no cache on the way may keep."""
    return Response(data, media_type="image/png", headers={"Cache-Control": "private, no-store"})


@router.get("", summary="One image's facts", dependencies=[require("admin")])
def image(storage: StorageDep, sha256: StoredHash) -> dict[str, Any]:
    """Return an image's record, the changes of its label and its newest decision, and the versions that used it."""
    with storage.reading() as session:
        row = images.get_image(session, sha256)
        decided = decided_image_view(row, last_decision(session, sha256))
        changes = label_history(session, sha256)
        return {**decided, "label_history": changes, "versions": lineage_of_image(session, sha256)}


@router.get("/thumbnail", summary="A small picture of an image", dependencies=[require("contributor")], **PNG)
def thumbnail(storage: StorageDep, limits: ImageLimits, sha256: StoredHash) -> Response:
    """Return the stored picture as PNG, at most 256 pixels wide and high."""
    with storage.reading() as session:
        row = images.get_image(session, sha256)
    if row.status == DELETED:
        raise NotFoundError(f"The pixels of the image '{sha256}' were deleted.", code="image_deleted")
    return png_response(encode_png(thumbnails.thumbnail(storage.store, sha256, _THUMBNAIL, limits)))


@router.delete("", summary="Delete an image's pixels", dependencies=[require("admin")])
def delete_image(storage: StorageDep, principal: PrincipalDep, sha256: StoredHash, reason: Reason) -> dict[str, Any]:
    """Delete an image's pixels permanently, refuse the image from now on, and list the versions that used it."""
    versions = images.delete_image(storage, sha256, str(principal), reason.reason)
    return {"sha256": sha256, "status": DELETED, "versions": versions}
