"""What champion, challenger and the best models so far answer to the gate's images."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import BundleError, ImageError
from lesion.database.object_store import ObjectNotFoundError
from lesion.database.storage import Storage
from lesion.imaging.limits import Limits
from lesion.model.bundle import Bundle
from lesion.model.predictor import Predictor
from lesion.promotion.comparison import GateSet, Selection
from lesion.registry.deployments import UnknownVersionError
from lesion.registry.gate_looks import best_versions, first_champion
from lesion.registry.registry import Registry
from lesion.retraining.gate.gate_images import LabeledImage

logger = logging.getLogger(__name__)

_BATCH = 32


@dataclass(frozen=True)
class GatePredictors:
    """The models that predict the gate's images."""

    storage: Storage
    champion: Predictor
    challenger: Predictor
    best: Mapping[str, Predictor]  # the best model so far for each class for which that is not the champion
    report_progress: Callable[[], None]  # called before each batch; an error that it raises ends the predictions

    @classmethod
    def load(
        cls, storage: Storage, bundles: tuple[Bundle, Bundle], limits: Limits, report_progress: Callable[[], None]
    ) -> "GatePredictors":
        """Load the bundles of champion and challenger, and the best models so far."""
        champion, challenger = (Predictor.load(bundle.path, device="cpu", limits=limits) for bundle in bundles)
        return cls(storage, champion, challenger, _best_predictors(storage, bundles[0], limits), report_progress)

    def gate_set(
        self, generation: int, images: Sequence[LabeledImage], selection: Selection | None = None
    ) -> GateSet | None:
        """Predict images with all models; one that was deleted meanwhile is left out. None if none is left."""
        read: list[LabeledImage] = []
        champion: list[NDArray[np.float32]] = []
        challenger: list[NDArray[np.float32]] = []
        best_hits: dict[str, bool] = {}
        for start in range(0, len(images), _BATCH):
            self.report_progress()
            found = [(image, self._read(image[0])) for image in images[start : start + _BATCH]]
            batch = [(image, data) for image, data in found if data is not None]
            if batch:
                read += [image for image, _ in batch]
                champion.append(_predict(self.champion, [data for _, data in batch]))
                challenger.append(_predict(self.challenger, [data for _, data in batch]))
                best_hits |= self._best_hits(batch)
        if not read:
            return None
        classes = self.champion.bundle.classes
        labels = np.array([classes.index(label) for _, label, _ in read], np.int64)
        answers = np.concatenate(champion)
        hits = [
            best_hits.get(sha256, bool(hit))
            for (sha256, _, _), hit in zip(read, answers.argmax(axis=1) == labels, strict=True)
        ]
        return GateSet(
            generation=generation,
            labels=labels,
            groups=np.array([group for _, _, group in read]),
            champion=answers,
            challenger=np.concatenate(challenger),
            hashes=[sha256 for sha256, _, _ in read],
            best_hits=np.array(hits, np.bool_) if self.best else None,
            selection=selection,
        )

    def _best_hits(self, batch: Sequence[tuple[LabeledImage, bytes]]) -> dict[str, bool]:
        """Return, by hash, whether the best model so far is right, for the images of the classes in ``best``."""
        hits: dict[str, bool] = {}
        for label, predictor in self.best.items():
            images = {sha256: data for (sha256, name, _), data in batch if name == label}
            if images:
                given = _predict(predictor, list(images.values())).argmax(axis=1)
                right = given == predictor.bundle.classes.index(label)
                hits |= dict(zip(images, map(bool, right), strict=True))
        return hits

    def _read(self, sha256: str) -> bytes | None:
        try:
            return self.storage.store.get_image(sha256)
        except ObjectNotFoundError:
            return None


def _best_predictors(storage: Storage, champion: Bundle, limits: Limits) -> dict[str, Predictor]:
    """Load the best model so far for each class for which it is not the champion.

    Where a bundle cannot be had any more, does not load (servers refuse such a champion), or has other classes, the
    champion stands for it.
    """
    with storage.session() as session:
        proved, first = best_versions(session), first_champion(session)
    versions = {label: proved.get(label, first) for label in champion.classes}
    loaded: dict[str, Predictor] = {}
    for version in sorted({version for version in versions.values() if version and version != champion.version}):
        try:
            bundle = Registry(storage).fetch(version)
            if Bundle.open(bundle).classes == champion.classes:
                loaded[version] = Predictor.load(bundle, device="cpu", limits=limits)
        except (UnknownVersionError, BundleError) as error:
            logger.warning("the gate compares with the champion in place of %s: %s", version, error)
    return {label: loaded[version] for label, version in versions.items() if version in loaded}


def _predict(predictor: Predictor, contents: Sequence[bytes]) -> NDArray[np.float32]:
    rows = []
    for prediction in predictor.predict(contents):
        if isinstance(prediction, ImageError):
            raise prediction
        rows.append(list(prediction.probabilities.values()))
    return np.array(rows, np.float32)
