"""Intervals of how well a class is ranked: ROC-AUC and average precision."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm, t

from lesion.evaluation.intervals.estimates import ALPHA, MIN_GROUPS, Estimate, Sample, kish_size
from lesion.evaluation.intervals.proportions import clopper_pearson
from lesion.evaluation.probabilities import Floats

Booleans = NDArray[np.bool_]


def roc_auc(sample: Sample, score: Floats, positive: Booleans) -> Estimate:
    """Return the area under the ROC curve of a class against the rest, with an interval.

    Args:
        sample: The groups of the N images.
        score: ``(N,)`` probabilities of the class.
        positive: ``(N,)`` whether an image is of the class.
    """
    weight = sample.weight
    if positive.all() or not positive.any():
        return Estimate(float("nan"))
    placement = _placements(weight, score, positive)
    sides = [positive, ~positive]
    value = float(np.average(placement[positive], weights=weight[positive]))
    influence = np.zeros(len(score))
    for side in sides:
        influence[side] = (placement[side] - value) / weight[side].sum()
    groups = sample.sums(influence)
    if min(map(sample.count, sides)) < MIN_GROUPS:
        return Estimate(value, influence=groups)
    m, n = (_independent(sample, influence, side) for side in sides)
    limits = [_score_interval(value, m, n)]
    variance = float(np.square(groups).sum())
    if 0 < value < 1 and variance > 0:
        limits.append(_logit_interval(value, variance, min(map(sample.count, sides)) - 1))
    low, high = min(limit[0] for limit in limits), max(limit[1] for limit in limits)
    return Estimate(value, low, high, groups)


def average_precision(sample: Sample, score: Floats, positive: Booleans) -> Estimate:
    """Return the average precision of a class against the rest, with an interval.

    Args:
        sample: The groups of the N images.
        score: ``(N,)`` probabilities of the class.
        positive: ``(N,)`` whether an image is of the class.
    """
    if not positive.any():
        return Estimate(float("nan"))
    value, influence = _average_precision(sample.weight, score, positive)
    groups = sample.sums(influence)
    present = sample.count(positive)
    if present < MIN_GROUPS:
        return Estimate(value, influence=groups)
    limits = [clopper_pearson(value, _independent(sample, influence, positive))]
    variance = float(np.square(groups).sum())
    if 0 < value < 1 and variance > 0:
        limits.append(_logit_interval(value, variance, present - 1))
    return Estimate(value, min(limit[0] for limit in limits), max(limit[1] for limit in limits), groups)


def _placements(weight: Floats, score: Floats, positive: Booleans) -> NDArray[np.float64]:
    """Return for each image the share of the other side that it is ranked correctly against; ties count half."""
    _, rank = np.unique(score, return_inverse=True)
    steps = int(rank.max()) + 1
    of_class = np.bincount(rank, np.where(positive, weight, 0), steps)
    of_rest = np.bincount(rank, np.where(positive, 0, weight), steps)
    rest_below = np.cumsum(of_rest) - of_rest / 2
    class_above = of_class.sum() - np.cumsum(of_class) + of_class / 2
    placement: NDArray[np.float64] = np.where(
        positive, rest_below[rank] / of_rest.sum(), class_above[rank] / of_class.sum()
    )
    return placement


def _average_precision(weight: Floats, score: Floats, positive: Booleans) -> tuple[float, NDArray[np.float64]]:
    """Return the average precision, and its derivative by the weight of each image, ``(N,)``."""
    _, rank = np.unique(-score, return_inverse=True)  # the highest score first
    steps = int(rank.max()) + 1
    hits = np.bincount(rank, np.where(positive, weight, 0), steps)
    selected = np.cumsum(np.bincount(rank, weight, steps))
    precision = np.cumsum(hits) / selected
    total = hits.sum()
    value = float((hits * precision).sum() / total)
    # An image changes the precision at its own threshold and at all lower ones.
    gained = np.cumsum((hits / selected)[::-1])[::-1]
    lost = np.cumsum((hits * precision / selected)[::-1])[::-1]
    influence = positive * (precision[rank] - value + gained[rank]) - lost[rank]
    return value, influence / total


def _independent(sample: Sample, influence: Floats, side: Booleans) -> float:
    """Return how many independent images one side of a ranking, ``(N,)``, is worth."""
    values = np.where(side, influence, 0)
    grouped = float(np.square(sample.sums(values)).sum())
    single = float(np.square(sample.weight * values).sum())
    images, least = kish_size(sample.weight[side]), kish_size(sample.sums(side))
    return min(max(images * single / grouped, least), images) if grouped > 0 else least


def _logit_interval(value: float, variance: float, degrees: int) -> tuple[float, float]:
    reach = t.ppf(1 - ALPHA / 2, max(degrees, 1)) * np.sqrt(variance) / (value * (1 - value))
    return float(expit(logit(value) - reach)), float(expit(logit(value) + reach))


def _score_interval(value: float, m: float, n: float) -> tuple[float, float]:
    """Return the areas from which the value is not far, by the variance that each of them would have (Newcombe, 2006).

    Unlike one from the sample's own variance, this interval has a width where the ranking is perfect.
    """
    z, mean = float(norm.ppf(1 - ALPHA / 2)), (m + n) / 2 - 1

    def excess(area: float) -> float:
        variance = area * (1 - area) / (m * n) * (1 + mean * (1 - area) / (2 - area) + mean * area / (1 + area))
        return (value - area) ** 2 - z * z * variance

    tiny = 1e-9  # an area of 0 or 1 has no variance
    inner = min(max(value, tiny), 1 - tiny)
    low = brentq(excess, tiny, inner) if inner > tiny and excess(tiny) > 0 else 0.0
    high = brentq(excess, inner, 1 - tiny) if inner < 1 - tiny and excess(1 - tiny) > 0 else 1.0
    return float(low), float(high)
