"""Calibrated probabilities: softmax with a temperature, its fit, and the numbers of the reliability diagram.

Importing this module needs only NumPy, since the server applies the temperature too; ``fit_temperature`` needs SciPy.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesion.core.errors import DataError

TEMPERATURE_RANGE = (0.05, 20.0)
BINS = 15


def softmax(logits: NDArray[np.floating[Any]], temperature: float = 1.0) -> NDArray[np.float32]:
    """Turn logits into probabilities; the temperature divides the logits, so above 1 it makes them less certain.

    Args:
        logits: ``(..., C)``.
        temperature: Above 0.

    Returns:
        ``(..., C)`` in [0, 1], each row summing to 1; computed in float64 so that a row's rounding stays below 1e-7.
    """
    return np.exp(log_softmax(logits, temperature)).astype(np.float32)


def log_softmax(logits: NDArray[np.floating[Any]], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the logarithm of ``softmax`` without underflow, ``(..., C)`` to ``(..., C)``."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled = scaled - scaled.max(axis=-1, keepdims=True)
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True)))


def is_separated(logits: NDArray[np.floating[Any]], labels: ArrayLike) -> bool:
    """Return whether every image is classified correctly; then the NLL has no minimum over the temperature."""
    return bool((np.asarray(logits).argmax(axis=-1) == np.asarray(labels)).all())


def fit_temperature(logits: NDArray[np.floating[Any]], labels: ArrayLike) -> float:
    """Find the temperature that minimizes the negative log-likelihood (Guo et al., ICML 2017, "temperature scaling").

    If no image is misclassified, the likelihood grows without bound as the temperature falls, and the result would be
    a model that is certain of everything. The targets are then smoothed by Laplace's rule of succession, as Platt
    (1999) does: ``n`` correct answers out of ``n`` support a confidence of about ``(n + 1) / (n + 2)`` and no more.

    Args:
        logits: ``(N, C)``, of images that were not used for training.
        labels: ``(N,)`` indices below C.

    Returns:
        A temperature within ``TEMPERATURE_RANGE``.

    Raises:
        DataError: No images, logits that are not finite, or shapes that do not fit together.
    """
    from scipy.optimize import minimize_scalar

    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or logits.shape[1] < 2 or not len(labels):
        raise DataError(
            f"A temperature cannot be fitted on logits of shape {logits.shape} and labels of shape {labels.shape}: it "
            "needs (N, C) and (N,), with at least one image and two classes. Give the calibration split some images."
        )
    if not np.isfinite(logits).all():
        raise DataError(
            "The logits to calibrate contain NaN or infinity: the training diverged. Lower the learning rate."
        )
    count, classes = logits.shape
    smoothing = 1 / (count + 2) if is_separated(logits, labels) else 0.0
    targets = np.full(logits.shape, smoothing / (classes - 1))
    targets[np.arange(count), labels] = 1 - smoothing

    def nll(log_temperature: float) -> float:
        return float(-(targets * log_softmax(logits, float(np.exp(log_temperature)))).sum() / count)

    low, high = np.log(TEMPERATURE_RANGE)
    optimum = minimize_scalar(nll, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(optimum.x))


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram: the confidence and the accuracy of the model, per bin of the top-1 confidence.

    Attributes:
        edges: ``(bins + 1,)`` from 0 to 1; a bin holds confidences in ``(lower, upper]``.
        count: ``(bins,)`` images.
        confidence: ``(bins,)`` mean confidence; NaN in an empty bin.
        accuracy: ``(bins,)`` share of correct answers; NaN in an empty bin.
        ece: Expected calibration error: the bins' |accuracy − confidence|, averaged with the counts as weights.
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    ece: float


def confidence_bins(confidence: NDArray[np.floating[Any]], bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of each confidence, ``(N,)`` to ``(N,)``; bins are ``(lower, upper]`` and 0 is in the first."""
    edges = np.linspace(0, 1, bins + 1)
    # Rounded, since 0.6 in float32 is above the edge 0.6 and would change its bin.
    nearest = np.round(np.asarray(confidence, dtype=np.float64), 7)
    return np.clip(np.searchsorted(np.round(edges, 7), nearest, side="left") - 1, 0, bins - 1).astype(np.int64)


def reliability(probabilities: NDArray[np.floating[Any]], labels: ArrayLike, bins: int = BINS) -> Reliability:
    """Compute the reliability diagram and the expected calibration error of the top-1 answer (Guo et al., 2017).

    TorchMetrics puts a confidence of exactly 1 into a separate bin; here it is in the last one, as in the paper, so
    that the number and the diagram agree.

    Args:
        probabilities: ``(N, C)`` in [0, 1].
        labels: ``(N,)`` indices below C.
        bins: Equal-width bins over [0, 1].
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    confidence = probabilities.max(axis=1)
    correct = (probabilities.argmax(axis=1) == np.asarray(labels)).astype(np.float64)
    index = confidence_bins(confidence, bins)
    count = np.bincount(index, minlength=bins)
    confidence_sum = np.bincount(index, weights=confidence, minlength=bins)
    correct_sum = np.bincount(index, weights=correct, minlength=bins)
    divisor = np.where(count > 0, count, np.nan)
    return Reliability(
        edges=np.linspace(0, 1, bins + 1),
        count=count.astype(np.int64),
        confidence=confidence_sum / divisor,
        accuracy=correct_sum / divisor,
        ece=float(np.abs(correct_sum - confidence_sum).sum() / max(len(confidence), 1)),
    )
