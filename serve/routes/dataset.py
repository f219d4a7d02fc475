"""What the training data looks like: aggregates, and some images of a class."""

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from lesion.catalogue.dataset_stats import DatasetStats, dataset_stats
from lesion.catalogue.thumbnails import contact_sheet, sample
from lesion.core.errors import LesionError
from lesion.registry.registry import Registry
from serve.http import auth
from serve.http.auth import require
from serve.http.dependencies import check_label, registry_of, storage_of
from serve.ingest import image_limits
from serve.routes.artefacts import evaluation_of
from serve.routes.images import PNG, png_response

logger = logging.getLogger(__name__)

_MOST = 60
_REFUSALS = {
    404: "The class has no images yet, or this server has no storage.",
    422: "A parameter is not valid, or there is no such class.",
    503: "The store or the database does not answer.",
}

router = APIRouter(
    prefix="/dataset", tags=["training data"], dependencies=[require("viewer")], responses=auth.refusals(_REFUSALS)
)


@router.get("/stats", summary="What the images look like")
def stats(request: Request) -> DatasetStats:
    """Count images by class, split, size, format, group and day of upload, and say how bright each class's are."""
    registry = registry_of(request)
    leakage, known = _leakage(registry)
    with registry.storage.session() as session:
        bundle = request.app.state.bundle
        return dataset_stats(session, bundle.classes, bundle.preprocessing, leakage, leakage_known=known)


# Whoever may look at the data may see what a class looks like. The picture of one image, which somebody names and which
# may wait in quarantine, is for those who label.
@router.get("/montage", summary="Some images of a class", response_class=Response, responses=PNG)
def montage(
    request: Request,
    label: Annotated[str, Query(max_length=200, description="A class of the champion's.")],
    images: Annotated[int, Query(ge=1, le=_MOST, description="At most so many.")] = 24,
    seed: Annotated[int, Query(ge=0, le=2**31, description="Another one draws others.")] = 0,
) -> Response:
    """Lay accepted images of one class out in rows, drawn by lot, as one PNG file."""
    storage = storage_of(request)
    check_label(request, label)
    with storage.session() as session:
        drawn = sample(session, label, images, seed)
    if not drawn:
        raise LesionError(f"There is no accepted image of the class {label!r} yet.", code="class_empty", status=404)
    return png_response(contact_sheet(storage.store, drawn, image_limits(request.app.state)))


def _leakage(registry: Registry) -> tuple[dict[str, Any] | None, bool]:
    """Look up what the first model's evaluation says of the split that came with its data; retrainings have none.

    Returns:
        What it says, and whether that is known: a bundle that came without an evaluation, is damaged or out of reach is
        no reason to tell nothing of the data.
    """
    history = registry.history()
    if not history:
        return None, False
    try:
        evaluation = evaluation_of(registry, history[0].version)
    except LesionError as error:
        if error.code != "artefact_missing":
            logger.warning("the leakage of the first model's data is not known: %s", error.message)
        return None, False
    return evaluation.get("leakage"), "leakage" in evaluation
