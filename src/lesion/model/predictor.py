"""From image bytes to calibrated predictions: one path for the command line, the server and the notebook."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lesion.conformal.abstention import LEAST_CONFIDENCE, AbstentionReason
from lesion.conformal.answer_rules import AnswerRules
from lesion.conformal.prediction_sets import DEFAULT_COVERAGE
from lesion.core.errors import ImageError
from lesion.domain.domain import LEVEL
from lesion.evaluation.reliability import AnswerFrequency, find_frequency
from lesion.explanation.explanation import Explanation, Method
from lesion.explanation.occlusion import Odds, occlusion_map
from lesion.imaging.limits import Limits
from lesion.model.bundle import Bundle
from lesion.model.engines import Engine, GoldenMismatchError, Precision, check_golden, load_engine

logger = logging.getLogger(__name__)

# The change of a calibrated probability by half precision from which on ``precision=auto`` uses float32.
AUTO_TOLERANCE = 0.02

Stage = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image.

    Attributes:
        predicted_class: The most probable class.
        confidence: Its calibrated probability.
        probabilities: The calibrated probability of each class, in the bundle's order.
        inference_time_ms: Milliseconds that the engine took for the image's batch.
        model_version: The bundle's version.
        domain_distance: How far the image is from the training images; 1 at the border of their domain.
        in_domain: Whether the image is inside the domain; if not, the answer means little.
        domain_p_value: The share of images like the training images that are at least as unusual, in (0, 1]; None for
            bundles of older versions.
        cams: (C, h, w) float32, each class's activation map, not rectified.
        image: (S, S, 3) uint8, the network's input.
        answer_rules: The bundle's prediction sets and when it abstains; None for bundles of older versions.
        similar_answers: How many of the test images that were answered with about this confidence were answered right;
            None if too few were, for images outside the domain, and for bundles of older versions.
        unnoticed_kinds: The kinds of foreign images that the bundle's trial showed not to be reliably recognized; None
            for bundles of older versions. See :class:`lesion.domain.trial.DomainTrial`.
    """

    predicted_class: str
    confidence: float
    probabilities: dict[str, float]
    inference_time_ms: float
    model_version: str
    domain_distance: float
    in_domain: bool
    domain_p_value: float | None
    cams: NDArray[np.float32] = field(repr=False, compare=False)
    image: NDArray[np.uint8] = field(repr=False, compare=False)
    answer_rules: AnswerRules | None = field(default=None, repr=False, compare=False)
    similar_answers: AnswerFrequency | None = None
    unnoticed_kinds: tuple[str, ...] | None = None

    def top(self, k: int | None = None) -> dict[str, float]:
        """Return the ``k`` most probable classes (all when None), the most probable first."""
        ranked = sorted(self.probabilities.items(), key=lambda item: -item[1])
        return dict(ranked[:k])

    def prediction_set(self, coverage: float = DEFAULT_COVERAGE) -> tuple[str, ...] | None:
        """Return the classes that the image may have, the most probable first; None for bundles without rules.

        See :meth:`lesion.conformal.prediction_sets.PredictionSets.listed`. A coverage that was not fitted is a
        KeyError.
        """
        if self.answer_rules is None:
            return None
        probabilities = np.array(list(self.probabilities.values()), dtype=np.float32)
        listed = self.answer_rules.sets.listed(probabilities, coverage)
        names = {name for name, member in zip(self.probabilities, listed, strict=True) if member}
        return tuple(name for name in self.top() if name in names)

    @property
    def abstention(self) -> AbstentionReason | None:
        """Why no answer should be given; None if it may be."""
        if not self.in_domain:
            return "not_recognized"
        rule = self.answer_rules and self.answer_rules.abstention
        unsure = rule.abstains(self.confidence) if rule else self.confidence < LEAST_CONFIDENCE
        return "unsure" if unsure else None

    def gradcam(self, class_name: str | None = None) -> NDArray[np.float32]:
        """Return the Grad-CAM of a class (the predicted one when None), (S, S) in [0, 1]; needs no forward pass.

        An unknown class is a KeyError.
        """
        return self.explain(class_name).heat

    def explain(self, class_name: str | None = None) -> Explanation:
        """Return the Grad-CAM of a class with what can be said of it; see :meth:`Predictor.explain` for occlusion."""
        name = self.predicted_class if class_name is None else class_name
        return Explanation.of_gradcam(name, self.image, dict(zip(self.probabilities, self.cams, strict=True))[name])


class Predictor:
    """A bundle and the engine that runs it. Not safe to call from two threads at a time.

    The ``engine`` must be loaded from the ``bundle``; :meth:`load` does that, and explains ``limits`` and ``decoders``.

    Examples:
        >>> predictor = Predictor.load(bundle_path)
        >>> [prediction] = predictor.predict([image_path.read_bytes()])
        >>> prediction.predicted_class in predictor.bundle.classes
        True
        >>> prediction.gradcam().shape == prediction.image.shape[:2]
        True
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        limits: Limits | None = None,
        decoders: int = 1,
        domain_level: float = LEVEL,
    ) -> None:
        self.bundle = bundle
        self.engine = engine
        self.domain_level = domain_level
        self.limits = bundle.limits if limits is None else limits
        self._pool = ThreadPoolExecutor(decoders, "decode") if decoders > 1 else None
        self._classes = bundle.classes
        self._preprocessing = bundle.preprocessing
        self._version = bundle.version
        self._domain = bundle.domain()
        self._answer_rules = bundle.answer_rules
        self._frequencies = bundle.answer_frequencies
        trial = bundle.domain_trial
        self._unnoticed_kinds = None if trial is None else trial.missed

    @classmethod
    def load(
        cls,
        path: Path | str,
        device: str = "auto",
        threads: int = 1,
        precision: Precision = "auto",
        limits: Limits | None = None,
        decoders: int = 1,
        domain_level: float = LEVEL,
    ) -> Self:
        """Verify a bundle, load its engine and check its golden answers.

        Args:
            path: The bundle's folder.
            device: See :func:`lesion.model.engines.load_engine`.
            threads: CPU threads per image.
            precision: ``f32``, ``bf16``, ``f16``, or ``auto``: the engine's fastest one that changes no golden
                answer by more than 0.02.
            limits: Limits of images, checked before decoding.
            decoders: Threads that decode the images of a batch.
            domain_level: The share of images like the training images that may be called unlike them, in (0, 1); a
                higher one recognizes more of the others.

        Raises:
            BundleError: The bundle is not whole, or its model does not give its golden answers.
            ConfigError: The device or the precision is not available.
        """
        bundle = Bundle.open(path)
        engine = load_engine(bundle, device, threads, precision)
        half = precision == "auto" and engine.precision != "f32"
        try:
            check_golden(bundle, engine, AUTO_TOLERANCE if half else None)
        except GoldenMismatchError:
            if not half:
                raise
            logger.warning(
                "%s runs in f32, which is slower: %s changes a golden answer by more than %g.",
                bundle.name,
                engine.precision,
                AUTO_TOLERANCE,
            )
            engine = load_engine(bundle, device, threads, "f32")
            check_golden(bundle, engine)
        return cls(bundle, engine, limits, decoders, domain_level)

    def predict(
        self, items: Sequence[bytes | NDArray[np.uint8]], stage: Stage = nullcontext
    ) -> list[Prediction | ImageError]:
        """Predict one batch of encoded images.

        Args:
            items: The bytes of image files, or what the bundle's preprocessing made of them, (S, S, 3) uint8.
            stage: A context manager entered around ``decode`` and ``infer``, to measure them.

        Returns:
            One entry per item, in order: its prediction, or the error for which only this item was refused.
        """
        with stage("decode"):
            decoded = list(self._pool.map(self._read, items) if self._pool else map(self._read, items))
        images = [image for image in decoded if not isinstance(image, ImageError)]
        with stage("infer") if images else nullcontext():
            predictions = iter(self.predict_images(np.stack(images)) if images else [])
        return [image if isinstance(image, ImageError) else next(predictions) for image in decoded]

    def explain(
        self, prediction: Prediction, class_name: str | None = None, method: Method = "occlusion"
    ) -> Explanation:
        """Show where the answer for a class (the predicted one when None) comes from; an unknown class is a KeyError.

        Occlusion takes 41 passes through the network, Grad-CAM none.
        """
        name = prediction.predicted_class if class_name is None else class_name
        if method == "grad-cam":
            return prediction.explain(name)
        if name not in prediction.probabilities:
            raise KeyError(name)
        found = occlusion_map(prediction.image, lambda images: self.odds(images, name))
        return Explanation.of_occlusion(name, prediction.image, found)

    def odds(self, images: NDArray[np.uint8], class_name: str) -> Odds:
        """Return a class's calibrated probability and the sum of all others, (B, 2), of (B, S, S, 3) uint8 images."""
        probabilities = self.bundle.probabilities(self.engine(images).logits).astype(np.float64)
        index = self._classes.index(class_name)
        others = np.delete(probabilities, index, axis=1).sum(axis=1)
        return np.stack([probabilities[:, index], others], axis=1)

    def _read(self, data: bytes | NDArray[np.uint8]) -> NDArray[np.uint8] | ImageError:
        if isinstance(data, np.ndarray):
            return data
        try:
            return self._preprocessing.read(data, self.limits)
        except ImageError as error:
            return error.with_traceback(None)
        except Exception:  # a fault of the decoder must not affect the other images of the batch
            logger.exception("the decoder failed on an image of %d bytes", len(data))
            return ImageError("The image could not be decoded. Save it again as PNG or JPEG.", code="image_corrupt")

    def predict_images(self, images: NDArray[np.uint8]) -> list[Prediction]:
        """Predict preprocessed (B, S, S, 3) uint8 RGB images."""
        start = time.perf_counter()
        outputs = self.engine(images)
        milliseconds = (time.perf_counter() - start) * 1000.0
        probabilities = self.bundle.probabilities(outputs.logits)
        judgement = self._domain.judge(outputs.features, images, self.domain_level)
        p_values = judgement.p_values.tolist() if self._domain.pictures else [None] * len(images)
        return [
            Prediction(
                predicted_class=self._classes[row.argmax()],
                confidence=float(row.max()),
                probabilities=dict(zip(self._classes, row.tolist(), strict=True)),
                inference_time_ms=milliseconds,
                model_version=self._version,
                domain_distance=float(distance),
                in_domain=bool(inside),
                domain_p_value=p_value,
                answer_rules=self._answer_rules,
                similar_answers=find_frequency(self._frequencies, float(row.max())) if inside else None,
                unnoticed_kinds=self._unnoticed_kinds,
                cams=cams,
                image=image,
            )
            for row, distance, inside, p_value, cams, image in zip(
                probabilities, judgement.distances, judgement.inside, p_values, outputs.cams, images, strict=True
            )
        ]
