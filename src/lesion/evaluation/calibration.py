"""Calibrated probabilities: softmax with a temperature, its fit, and the numbers of the reliability diagram.

Importing this module needs only NumPy, since the server applies the temperature too; ``fit_temperature`` needs SciPy.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesion.core.errors import DataError

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
TEMPERATURE_RANGE = (0.05, 20.0)
BINS = 15


def softmax(logits: Floats, temperature: float = 1.0) -> NDArray[np.float32]:
    """Turn logits, ``(..., C)``, into probabilities of that shape; a temperature above 1 makes them less certain.

    They are computed in float64, so that a row's sum differs from 1 by less than 1e-7.
    """
    return np.exp(log_softmax(logits, temperature)).astype(np.float32)


def log_softmax(logits: Floats, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the logarithm of ``softmax`` without underflow, ``(..., C)`` to ``(..., C)``."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled = scaled - scaled.max(axis=-1, keepdims=True)
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True)))


def is_separated(logits: Floats, labels: ArrayLike) -> bool:
    """Return whether every image is classified correctly; then the NLL has no minimum over the temperature."""
    return bool((np.asarray(logits).argmax(axis=-1) == np.asarray(labels)).all())


def fit_temperature(logits: Floats, labels: ArrayLike) -> float:
    """Find the temperature that minimizes the negative log-likelihood (Guo et al., ICML 2017, "temperature scaling").

    If no image is misclassified, the likelihood grows without bound as the temperature falls, and the result would be a
    model that is certain of everything. The targets are then smoothed by Laplace's rule of succession, as Platt (1999)
    does: ``n`` correct answers out of ``n`` support a confidence of about ``(n + 1) / (n + 2)`` and no more.

    The logits, ``(N, C)``, are of images that were not used for training; the result is within ``TEMPERATURE_RANGE``.
    Without images, with logits that are not finite or shapes that do not fit together, raise a DataError.
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
    """A reliability diagram: the confidence and the accuracy of the model, per bin of the top-1 confidence."""

    edges: NDArray[np.float64]  # ``(bins + 1,)`` from 0 to 1; a bin holds confidences in ``(lower, upper]``
    count: NDArray[np.int64]  # ``(bins,)`` images
    confidence: NDArray[np.float64]  # ``(bins,)`` mean confidence; NaN in an empty bin
    accuracy: NDArray[np.float64]  # ``(bins,)`` share of correct answers; NaN in an empty bin
    ece: float  # expected calibration error: the bins' |accuracy − confidence|, averaged with the counts as weights


def confidence_bins(confidence: Floats, bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of each confidence, ``(N,)`` to ``(N,)``; bins are ``(lower, upper]`` and 0 is in the first."""
    edges = np.linspace(0, 1, bins + 1)
    # Rounded, since 0.6 in float32 is above the edge 0.6 and would change its bin.
    nearest = np.round(np.asarray(confidence, dtype=np.float64), 7)
    return np.clip(np.searchsorted(np.round(edges, 7), nearest, side="left") - 1, 0, bins - 1).astype(np.int64)


def reliability(probabilities: Floats, labels: ArrayLike, bins: int = BINS) -> Reliability:
    """Compute the reliability diagram and the expected calibration error of the top-1 answer (Guo et al., 2017).

    The probabilities are ``(N, C)``, the labels ``(N,)``, the ``bins`` of equal width over [0, 1]. TorchMetrics puts a
    confidence of exactly 1 into a separate bin; here it is in the last one, as in the paper, so that the number and the
    diagram agree.
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
