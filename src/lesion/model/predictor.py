"""From image bytes to calibrated predictions: the one way of the command line, the server and the notebook."""

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

from lesion.core.errors import BundleError, ImageError
from lesion.imaging import heatmap
from lesion.imaging.decode import Limits
from lesion.model.bundle import Bundle
from lesion.model.engines import Engine, Precision, load_engine

logger = logging.getLogger(__name__)

# How far half precision may move a calibrated probability before ``precision=auto`` gives up its speed.
AUTO_TOLERANCE = 0.02

Stage = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image.

    Attributes:
        predicted_class: The most probable class.
        confidence: Its calibrated probability.
        probabilities: The calibrated probability of each class, in the bundle's order.
        inference_time_ms: Milliseconds the engine took for the batch in which the image was.
        model_version: The bundle's version.
        domain_distance: How far the image is from what the model was trained on: 1 at the border of its domain.
        in_domain: Whether it is within; if not, the answer means little.
        cams: (C, h, w) float32, each class's map, not rectified.
        image: (S, S, 3) uint8, what the network saw.
    """

    predicted_class: str
    confidence: float
    probabilities: dict[str, float]
    inference_time_ms: float
    model_version: str
    domain_distance: float
    in_domain: bool
    cams: NDArray[np.float32] = field(repr=False, compare=False)
    image: NDArray[np.uint8] = field(repr=False, compare=False)

    def top(self, k: int | None = None) -> dict[str, float]:
        """Return the ``k`` most probable classes (all when None), the most probable first."""
        ranked = sorted(self.probabilities.items(), key=lambda item: -item[1])
        return dict(ranked[:k])

    def gradcam(self, class_name: str | None = None) -> NDArray[np.float32]:
        """Return the Grad-CAM of a class (the predicted one when None), (S, S) in [0, 1]; needs no forward pass.

        Raises:
            KeyError: The class is unknown.
        """
        name = self.predicted_class if class_name is None else class_name
        index = {known: position for position, known in enumerate(self.probabilities)}[name]
        return heatmap.gradcam(self.cams[index], (self.image.shape[0], self.image.shape[1]))

    def overlay_png(self, class_name: str | None = None) -> bytes:
        """Return the Grad-CAM of a class over what the network saw, as a PNG file.

        Raises:
            KeyError: The class is unknown.
        """
        return heatmap.png(heatmap.overlay(self.image, self.gradcam(class_name)))

    def image_png(self) -> bytes:
        """Return what the network saw as a PNG file."""
        return heatmap.png(self.image)

    def heatmap_png(self, class_name: str | None = None) -> bytes:
        """Return the Grad-CAM of a class alone, as a grey PNG file of the image's size.

        Raises:
            KeyError: The class is unknown.
        """
        return heatmap.png(heatmap.grey(self.gradcam(class_name)))


class Predictor:
    """A bundle and the engine that runs it. Not safe to call from two threads at once.

    Args:
        bundle: The bundle.
        engine: The engine, loaded from the same bundle.
        limits: What is refused before it is decoded.
        decoders: Threads that decode the images of a batch.
    """

    def __init__(self, bundle: Bundle, engine: Engine, limits: Limits | None = None, decoders: int = 1) -> None:
        self.bundle = bundle
        self.engine = engine
        self.limits = Limits() if limits is None else limits
        self._pool = ThreadPoolExecutor(decoders, "decode") if decoders > 1 else None
        self._classes = bundle.classes
        self._preprocessing = bundle.preprocessing
        self._version = bundle.version
        self._domain = bundle.domain()

    @classmethod
    def load(
        cls,
        path: Path | str,
        device: str = "auto",
        threads: int = 1,
        precision: Precision = "auto",
        limits: Limits | None = None,
        decoders: int = 1,
    ) -> Self:
        """Verify a bundle, load its engine and check its golden answers.

        Args:
            path: The bundle's folder.
            device: See :func:`lesion.model.engines.load_engine`.
            threads: CPU threads for one image.
            precision: ``f32``, ``bf16``, ``f16``, or ``auto``: the engine's fastest one that moves no
                golden answer by more than 0.02.
            limits: What is refused before it is decoded.
            decoders: Threads that decode the images of a batch.

        Raises:
            BundleError: The bundle is not whole, or its model does not give its golden answers.
            ConfigError: The device or the precision is not there.
        """
        bundle = Bundle.open(path)
        engine = load_engine(bundle, device, threads, precision)
        half = precision == "auto" and engine.precision != "f32"
        try:
            bundle.check_golden(engine, AUTO_TOLERANCE if half else None)
        except BundleError:
            if not half:
                raise
            logger.warning(
                "%s runs in f32, which is slower: %s moves a golden answer by more than %g.",
                bundle.name,
                engine.precision,
                AUTO_TOLERANCE,
            )
            engine = load_engine(bundle, device, threads, "f32")
            bundle.check_golden(engine)
        return cls(bundle, engine, limits, decoders)

    def predict(self, items: Sequence[bytes], stage: Stage = nullcontext) -> list[Prediction | ImageError]:
        """Predict one batch of encoded images.

        Args:
            items: The bytes of image files.
            stage: Entered around ``decode`` and ``infer``, for who measures them.

        Returns:
            One entry an item, in order: its prediction, or the error for which it alone was refused.
        """
        with stage("decode"):
            read = list(self._pool.map(self._read, items) if self._pool else map(self._read, items))
        images = [image for image in read if not isinstance(image, ImageError)]
        with stage("infer") if images else nullcontext():
            predictions = iter(self.predict_images(np.stack(images)) if images else [])
        return [image if isinstance(image, ImageError) else next(predictions) for image in read]

    def _read(self, data: bytes) -> NDArray[np.uint8] | ImageError:
        try:
            return self._preprocessing.read(data, self.limits)
        except ImageError as error:
            return error.with_traceback(None)
        except Exception:  # a decoder's fault must not fail the other images of the batch
            logger.exception("the decoder failed on an image of %d bytes", len(data))
            return ImageError("The image could not be decoded. Save it again as PNG or JPEG.", code="image_corrupt")

    def predict_images(self, images: NDArray[np.uint8]) -> list[Prediction]:
        """Predict (B, S, S, 3) uint8 RGB images that are preprocessed already."""
        start = time.perf_counter()
        outputs = self.engine(images)
        milliseconds = (time.perf_counter() - start) * 1000.0
        probabilities = self.bundle.probabilities(outputs.logits)
        distances = self._domain.distances(outputs.features)
        return [
            self._prediction(row, float(distance), cams, image, milliseconds)
            for row, distance, cams, image in zip(probabilities, distances, outputs.cams, images, strict=True)
        ]

    def _prediction(
        self,
        row: NDArray[np.float32],
        distance: float,
        cams: NDArray[np.float32],
        image: NDArray[np.uint8],
        milliseconds: float,
    ) -> Prediction:
        best = int(row.argmax())
        return Prediction(
            predicted_class=self._classes[best],
            confidence=float(row[best]),
            probabilities={name: float(value) for name, value in zip(self._classes, row, strict=True)},
            inference_time_ms=milliseconds,
            model_version=self._version,
            domain_distance=distance,
            in_domain=distance <= 1.0,
            cams=cams,
            image=image,
        )
