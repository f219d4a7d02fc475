"""Confidence limits of the difference of two paired proportions, by Tango's score method.

Of n images, some got better and some worse; the difference is their shares' difference. The score method keeps its
level where a difference is close to 0 or 1 and where few images changed, in which Wald's interval fails (Tango, 1998,
"Equivalence test and confidence interval for the difference in proportions for the paired-sample design", Statistics in
Medicine 17).
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from lesion.promotion.paired_answers import Floats64

_HALVINGS = 32  # of an interval of length 2: to 5e-10


def normal_quantile(level: float) -> float:
    """Return the normal quantile that is exceeded with the probability ``level``."""
    return NormalDist().inv_cdf(1 - level)


def score_statistic(better: Floats64, worse: Floats64, images: Floats64, difference: Floats64) -> Floats64:
    """Return how many standard errors the observed difference lies above a supposed one; all arrays of one shape.

    The standard error is that of the likeliest shares of changed images under the supposed difference.
    """
    a = 2 * images
    b = -better - worse + (2 * images - better + worse) * difference
    c = -worse * difference * (1 - difference)
    share_worse = (np.sqrt(np.maximum(b * b - 4 * a * c, 0)) - b) / (2 * a)
    variance = images * (2 * share_worse + difference * (1 - difference))
    return np.asarray((better - worse - images * difference) / np.sqrt(np.maximum(variance, 1e-12)))


def lower_limit(better: ArrayLike, worse: ArrayLike, images: ArrayLike, z: float) -> Floats64:
    """Return the one-sided lower limit of the difference, better minus worse, at the normal quantile ``z``.

    Counts may be fractions, and of any shapes that fit together; ``images`` must be above 0.
    """
    better, worse, images = np.broadcast_arrays(*(np.asarray(value, float) for value in (better, worse, images)))
    observed = (better - worse) / images
    low, high = np.full(observed.shape, -1.0), observed
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        excluded = score_statistic(better, worse, images, middle) > z
        low, high = np.where(excluded, middle, low), np.where(excluded, high, middle)
    return np.asarray(low)


def upper_limit(better: ArrayLike, worse: ArrayLike, images: ArrayLike, z: float) -> Floats64:
    """Return the one-sided upper limit of the difference, better minus worse; see :func:`lower_limit`."""
    return -lower_limit(worse, better, images, z)


def cautious_lower_limit(better: ArrayLike, worse: ArrayLike, images: ArrayLike, z: float) -> Floats64:
    """Return the lower limit that results if one more image had been looked at and had got worse.

    Where nothing or little changed, the score method is too liberal for a one-sided limit: if none of 3 images got
    worse, it excludes a loss of 47 % at the 5 % level, which happens unseen in 15 % of all cases. With one more lost
    image it is 64 %; the exact limit of Clopper and Pearson is 63 %.
    """
    return lower_limit(better, np.asarray(worse, float) + 1, np.asarray(images, float) + 1, z)
