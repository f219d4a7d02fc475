"""Intervals of shares: accuracy, recall, precision, specificity, F1."""

import numpy as np
from numpy.typing import NDArray

from lesion.evaluation.intervals.estimates import ALPHA, MIN_GROUPS, Estimate, Sample, degrees_factor, kish_size
from lesion.evaluation.probabilities import Floats

Booleans = NDArray[np.bool_]


def share(sample: Sample, hit: Booleans, counted: Booleans, worth: float = 0.0) -> Estimate:
    """Return the share of the counted images that are hits, with its Clopper-Pearson interval for grouped images.

    The number of images is replaced by the number of independent ones that would vary as much: the design effect of
    the groups, estimated from how their shares differ, and their small number are both taken out (Korn and Graubard,
    1998). It is never more than the images, nor less than the groups are worth. Where all are hits, or none, the groups
    show no variation; then ``worth`` decides.

    Args:
        sample: The groups of the N images.
        hit: ``(N,)``; only counted images can be hits.
        counted: ``(N,)``.
        worth: How many independent images an image is worth, from other images of the sample; see :func:`worth_of`.
    """
    hits, sizes = sample.sums(hit), sample.sums(counted)
    total = sizes.sum()
    if not total:
        return Estimate(float("nan"))
    value = float(hits.sum() / total)
    influence = (hits - value * sizes) / total
    present = int(np.count_nonzero(sizes))
    if present < MIN_GROUPS:
        return Estimate(value, influence=influence)
    size = _effective_size(value, influence, sizes[sizes > 0], int(np.count_nonzero(counted)), worth)
    return Estimate(value, *clopper_pearson(value, size), influence)


def worth_of(sample: Sample, correct: Booleans) -> float:
    """Return how many independent images each image is worth, from how correct answers, ``(N,)``, vary among groups.

    It is at most 1, and 0 where all are correct or none: nothing is known then.
    """
    sizes = sample.sums(np.ones_like(correct))
    value = float(sample.sums(correct).sum() / sizes.sum())
    variance = float(np.square((sample.sums(correct) - value * sizes) / sizes.sum()).sum())
    return min(value * (1 - value) / variance / len(correct), 1.0) if variance > 1e-15 else 0.0


def f1(sample: Sample, labeled: Booleans, predicted: Booleans, worth: float = 0.0) -> Estimate:
    """Return the F1 of a class with an interval.

    F1 is 2J / (1 + J), where J is the share of correct images among those that are labeled or predicted as the class,
    so that the interval of J, a share, gives that of F1.
    """
    jaccard = share(sample, labeled & predicted, labeled | predicted, worth)
    value, low, high = (2 * j / (1 + j) for j in (jaccard.value, jaccard.low, jaccard.high))
    return Estimate(value, low, high, jaccard.influence * 2 / (1 + jaccard.value) ** 2)


def clopper_pearson(value: float, size: float) -> tuple[float, float]:
    """Return the exact interval of a share of ``size`` independent images, which need not be a whole number."""
    from scipy.special import betaincinv

    hits = value * size
    misses = size - hits
    low = float(betaincinv(hits, misses + 1, ALPHA / 2)) if hits > 1e-9 else 0.0
    high = float(betaincinv(hits + 1, misses, 1 - ALPHA / 2)) if misses > 1e-9 else 1.0
    return low, high


def _effective_size(value: float, influence: Floats, sizes: Floats, images: int, worth: float) -> float:
    """Return how many independent images the groups, with weights ``sizes``, are worth."""
    least, variance = kish_size(sizes), float(np.square(influence).sum())
    size = value * (1 - value) / variance if variance > 1e-15 else worth * images
    if size <= least:
        return least
    return max(min(size, images) * degrees_factor(images, len(sizes)), least if variance <= 1e-15 else 0.0)
