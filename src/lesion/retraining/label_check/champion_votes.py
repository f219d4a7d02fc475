"""What the champion makes of stored images: its features and its class probabilities."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import ImageError
from lesion.database.object_store import ObjectNotFoundError
from lesion.database.storage import Storage
from lesion.model.predictor import Predictor
from lesion.retraining.label_check.unreviewed_images import StoredLabel

logger = logging.getLogger(__name__)

_BATCH = 32


@dataclass(frozen=True, eq=False)
class ChampionVotes:
    """Images that were read, and what a champion of C classes makes of them."""

    images: tuple[StoredLabel, ...]  # N
    features: NDArray[np.float32]  # (N, D) pooled features
    probabilities: NDArray[np.float32]  # (N, C) calibrated


def predict_stored(
    storage: Storage, predictor: Predictor, images: Sequence[StoredLabel], report_progress: Callable[[], None]
) -> ChampionVotes:
    """Run the champion on stored images; one whose file is deleted or cannot be read is left out.

    ``report_progress`` is called before each batch. A StoreError tells that the store does not answer.
    """
    read: list[StoredLabel] = []
    side = predictor.bundle.preprocessing.size
    outputs = [predictor.engine(np.empty((0, side, side, 3), np.uint8))]
    for start in range(0, len(images), _BATCH):
        report_progress()
        pixels = [(image, _read(storage, predictor, image.sha256)) for image in images[start : start + _BATCH]]
        batch = [(image, picture) for image, picture in pixels if picture is not None]
        read += [image for image, _ in batch]
        if batch:
            outputs.append(predictor.engine(np.stack([picture for _, picture in batch])))
    features = np.concatenate([output.features for output in outputs])
    logits = np.concatenate([output.logits for output in outputs])
    return ChampionVotes(tuple(read), features, predictor.bundle.probabilities(logits))


def _read(storage: Storage, predictor: Predictor, sha256: str) -> NDArray[np.uint8] | None:
    try:
        return predictor.bundle.preprocessing.read(storage.store.get_image(sha256), predictor.limits)
    except ObjectNotFoundError:
        return None
    except ImageError as error:
        logger.warning("the label of %s is not checked: %s", sha256, error)
        return None
