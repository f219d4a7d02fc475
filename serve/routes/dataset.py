"""What the training data looks like: statistics, and some images of a class."""

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from lesion.catalogue.dataset_stats import DatasetStats, dataset_stats
from lesion.catalogue.thumbnails import contact_sheet, sample
from lesion.core.errors import LesionError, NotFoundError
from lesion.registry.registry import Registry
from serve.http.dependencies import (
    CurrentBundle,
    ImageLimits,
    KeyFirstRoute,
    RegistryDep,
    StorageDep,
    check_label,
    require,
)
from serve.http.openapi import refusals
from serve.routes.artefacts import ArtefactMissingError, evaluation_of
from serve.routes.images import PNG, png_response

logger = logging.getLogger(__name__)

_MAX_IMAGES = 60
_REFUSALS = {
    404: "The class has no images yet, or this server has no storage.",
    422: "A parameter is not valid, or there is no such class.",
    503: "The store or the database does not answer.",
}

router = APIRouter(
    route_class=KeyFirstRoute,
    prefix="/dataset",
    tags=["training data"],
    dependencies=[require("viewer")],
    responses=refusals(_REFUSALS),
)


@router.get("/stats", summary="What the images look like")
def stats(registry: RegistryDep, bundle: CurrentBundle) -> DatasetStats:
    """Count images by class, split, size, format, group and day of upload, and measure the brightness of each class."""
    leakage, known = _leakage(registry)
    with registry.storage.reading() as session:
        return dataset_stats(session, bundle.classes, bundle.preprocessing, leakage, leakage_known=known)


# A viewer may see what a class looks like. The picture of one named image, which may be in quarantine, is for
# contributors.
@router.get("/montage", summary="Some images of a class", **PNG)
def montage(
    storage: StorageDep,
    bundle: CurrentBundle,
    limits: ImageLimits,
    label: Annotated[str, Query(max_length=200, description="A class of the champion's.")],
    images: Annotated[int, Query(ge=1, le=_MAX_IMAGES, description="The most images.")] = 24,
    seed: Annotated[int, Query(ge=0, le=2**31, description="Another seed draws other images.")] = 0,
) -> Response:
    """Lay out randomly drawn accepted images of one class in rows, as one PNG file."""
    check_label(bundle, label)
    with storage.reading() as session:
        rows = sample(session, label, images, seed)
    if not rows:
        raise NotFoundError(f"There is no accepted image of the class {label!r} yet.", code="class_empty")
    return png_response(contact_sheet(storage.store, rows, limits))


def _leakage(registry: Registry) -> tuple[dict[str, Any] | None, bool]:
    """Return the leakage in the split of the first model's data, and whether it is known; retrainings have none.

    Whatever happened to that model's evaluation, the other statistics are returned.
    """
    history = registry.history()
    if not history:
        return None, False
    try:
        evaluation = evaluation_of(registry, history[0].version)
    except ArtefactMissingError:
        return None, False
    except LesionError as error:
        logger.warning("the leakage of the first model's data is not known: %s", error.message)
        return None, False
    return evaluation.get("leakage"), "leakage" in evaluation
