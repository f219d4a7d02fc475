"""The calibration error without the bias of small samples, and its interval."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from lesion.evaluation.intervals.estimates import ALPHA, MIN_GROUPS, Estimate, Sample, kish_size
from lesion.evaluation.probabilities import Floats
from lesion.evaluation.reliability import BINS, confidence_bins

_PRIOR = 0.5  # images that are correct, and as many that are not, added to each bin (Jeffreys): none has no variance


@dataclass(frozen=True, eq=False)
class BinnedGaps:
    """How far accuracy is from confidence in each of B bins, as shares of the whole sample."""

    gap: NDArray[np.float64]  # ``(B,)`` sum of (correct − confidence) in a bin over all images
    deviation: NDArray[np.float64]  # ``(B,)`` standard deviation of ``gap`` in a sample of this size
    expected: NDArray[np.float64]  # ``(B,)`` mean confidence; NaN in an empty bin
    share: NDArray[np.float64]  # ``(B,)`` share of the images


def binned_gaps(sample: Sample, confidence: Floats, correct: NDArray[np.bool_], bins: int = BINS) -> BinnedGaps:
    """Compare stated with true probabilities, both ``(N,)``, in bins of equal width.

    The variance of a bin is that of images that are correct with the bin's accuracy, times the design effect of the
    groups.
    """
    weight = sample.weight / sample.weight.sum()
    index = confidence_bins(confidence, bins)
    residual: NDArray[np.float64] = correct - confidence.astype(np.float64)

    def per_bin(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(index, weight * values, bins), np.float64)

    share, stated, hits = per_bin(np.ones_like(residual)), per_bin(confidence), per_bin(correct)
    count = np.bincount(index, minlength=bins)
    filled = np.where(share > 0, share, np.nan)
    accuracy = (count * hits / filled + _PRIOR) / (count + 2 * _PRIOR)
    squares = np.bincount(index, weight**2, bins)
    variance = _design_effect(sample, residual) * squares * accuracy * (1 - accuracy)
    return BinnedGaps(per_bin(residual), np.sqrt(np.nan_to_num(variance)), stated / filled, share)


def calibration_error(gaps: BinnedGaps, groups: int, classes: int = 1) -> Estimate:
    """Estimate the expected calibration error: Σ |gap| over the bins, divided by the number of classes.

    The plain sum is too large, since chance alone makes gaps (Kumar, Liang and Ma, 2019). The value is the error at
    which the observed sum is the expected one, if the true gaps have the observed pattern, and 0 if chance explains the
    sum. The interval holds the errors at which the observed sum is neither among the 2.5 % smallest nor among the 2.5 %
    largest, for a pattern concentrated in the larger gaps (lower limit) and a more even one (upper limit).

    Args:
        gaps: The bins; those of several classes one after the other.
        groups: The number of independent groups.
        classes: The number of classes whose bins they are.
    """
    observed, deviation = np.abs(gaps.gap), gaps.deviation
    plain = float(observed.sum())
    shared = 1.0 if classes == 1 else 2.0  # the sum varies more where each error stands in the bins of two classes

    def error(pattern: Floats, sides: float) -> float:
        """Return the error at which the observed sum is ``sides`` standard deviations from its mean."""

        def distance(scale: float) -> float:
            mean = _folded_mean(scale * pattern, deviation)
            variance = shared * float(((scale * pattern) ** 2 + deviation**2 - mean**2).sum())
            return float(mean.sum() + sides * np.sqrt(max(variance, 0.0))) - plain

        if distance(0) >= 0:
            return 0.0
        largest = 1.0
        while distance(largest) < 0:
            largest *= 2
        return float(brentq(distance, 0, largest) * pattern.sum() / classes)

    value = error(observed, 0)
    if groups < MIN_GROUPS or not plain:
        return Estimate(value)
    z = float(norm.ppf(1 - ALPHA / 2))
    concentrated = np.maximum(observed - deviation, 0) + 0.1 * observed
    low, high = error(concentrated, z), error(observed + deviation, -z)
    return Estimate(value, min(low, value), max(high, value, plain / classes))


def consistent_accuracies(gaps: BinnedGaps) -> tuple[Floats, Floats]:
    """Return the accuracies, ``(B,)`` and ``(B,)``, between which a calibrated model's bin lies in 95 % of samples.

    Source: Bröcker and Smith, "Increasing the reliability of reliability diagrams", 2007.
    """
    filled = np.where(gaps.share > 0, gaps.share, np.nan)
    reach = float(norm.ppf(1 - ALPHA / 2)) * gaps.deviation / filled
    return np.clip(gaps.expected - reach, 0, 1), np.clip(gaps.expected + reach, 0, 1)


def _folded_mean(mean: Floats, deviation: Floats) -> NDArray[np.float64]:
    """Return the mean of the absolute value of normal variables."""
    ratio = mean / np.where(deviation > 0, deviation, np.inf)
    spread = deviation * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2)
    return np.where(deviation > 0, spread + mean * (1 - 2 * norm.cdf(-ratio)), np.abs(mean))


def _design_effect(sample: Sample, residual: Floats) -> float:
    """Return how many times more the groups make the sum of residuals vary than single images would."""
    single = float(np.square(sample.weight * residual).sum())
    grouped = float(np.square(sample.sums(residual)).sum())
    most = kish_size(sample.weight) / max(kish_size(sample.sums(np.ones_like(residual))), 1)
    return min(max(grouped / single, 1.0), max(most, 1.0)) if single > 0 else max(most, 1.0)
