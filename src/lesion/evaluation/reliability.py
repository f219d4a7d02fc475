"""The reliability of stated confidences in bins, and the plain calibration errors; needs only NumPy."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesion.evaluation.probabilities import Floats

BINS = 15
FEWEST_ANSWERS = 20  # of which it is said how many were right
_BORDERS = (1.0, 0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.0)  # of the confidences that are counted together
_WIDEST = 0.2 + 1e-9  # range of joined ones: in a wider one, few low confidences would share in what high ones earned


@dataclass(frozen=True)
class AnswerFrequency:
    """How many test images were answered with a confidence from ``low`` to below ``high``, and how many of them right.

    With ``high`` 1 the confidence 1 is included.
    """

    low: float
    high: float
    images: int
    right: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields, JSON-ready."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_json` wrote; anything else is a ValueError, TypeError or KeyError."""
        read = cls(float(value["low"]), float(value["high"]), int(value["images"]), int(value["right"]))
        if not (0 <= read.low < read.high <= 1 and 0 <= read.right <= read.images and read.images > 0):
            raise ValueError(f"{read} is not a count of answers between two confidences")
        return read


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


def answer_frequencies(probabilities: Floats, labels: ArrayLike) -> tuple[AnswerFrequency, ...]:
    """Count right answers by confidence, the highest first, in ranges that have at least 20 images each.

    The probabilities are ``(N, C)``, the labels ``(N,)``. Neighboring ranges are joined until they have enough, up to a
    width of 0.2; where that is not enough, nothing is counted.
    """
    confidence = np.asarray(np.asarray(probabilities).max(axis=1), dtype=np.float64)
    correct = np.asarray(probabilities).argmax(axis=1) == np.asarray(labels)
    counted: list[AnswerFrequency] = []
    joined: list[float] = [_BORDERS[0]]  # the borders of the ranges that wait for more images, from the highest on
    for low in _BORDERS[1:]:
        joined.append(low)
        while len(joined) > 2 and joined[0] - low > _WIDEST:
            del joined[0]
        inside = (confidence >= low) & ((confidence < joined[0]) | (joined[0] == 1))
        if inside.sum() >= FEWEST_ANSWERS:
            counted.append(AnswerFrequency(low, joined[0], int(inside.sum()), int(correct[inside].sum())))
            joined = [low]
    return tuple(counted)


def find_frequency(frequencies: Sequence[AnswerFrequency], confidence: float) -> AnswerFrequency | None:
    """Return the range that a confidence is in, or None."""
    found = (each for each in frequencies if each.low <= confidence and (confidence < each.high or each.high == 1))
    return next(found, None)


def classwise_calibration_error(probabilities: Floats, labels: ArrayLike, bins: int = BINS) -> float:
    """Return the calibration error of each class's own probability, averaged over the classes (Kull et al., 2019).

    The error of the top-1 answer can be small while a rare class is given probabilities far too large; here every class
    counts alike. The probabilities are ``(N, C)``, the labels ``(N,)``.
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    errors = []
    for c in range(probabilities.shape[1]):
        gap = (labels == c) - probabilities[:, c]
        errors.append(np.abs(np.bincount(confidence_bins(probabilities[:, c], bins), gap, bins)).sum())
    return float(np.mean(errors) / max(len(labels), 1))
