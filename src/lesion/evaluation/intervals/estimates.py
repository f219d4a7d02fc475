"""An estimate with its confidence interval, and the sizes that a sample of groups is worth."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.evaluation.probabilities import Floats, Ints

LEVEL = 0.95
ALPHA = 1 - LEVEL
MIN_GROUPS = 3  # independent groups; fewer are too few to say anything


@dataclass(frozen=True, eq=False)
class Estimate:
    """A metric's value on a sample of groups, and its 95 % interval."""

    value: float  # NaN where it is undefined
    low: float = float("nan")  # NaN where the sample is too small to say
    high: float = float("nan")
    # ``(G,)``: how far each group moves the value, to first order; the sum is about 0. Empty without an interval.
    influence: Floats = field(default_factory=lambda: np.empty(0))

    @property
    def has_interval(self) -> bool:
        """Whether the sample is large enough for an interval."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


@dataclass(frozen=True, eq=False)
class Sample:
    """Images in groups that are independent of each other; every group has one vote."""

    group: NDArray[np.int64]  # ``(N,)`` group of each image, from 0 to G − 1
    weight: NDArray[np.float64]  # ``(N,)`` weight of each image

    @classmethod
    def of(cls, groups: Ints, importance: Floats | None = None) -> "Sample":
        """Number the groups, ``(N,)`` any integers, and give each one vote, shared by its images.

        ``importance``, ``(N,)``, multiplies the weights, as where some classes are more frequent than in the sample.
        """
        _, group, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
        weight = 1.0 / sizes[group]
        return cls(group.astype(np.int64), weight if importance is None else weight * importance)

    @property
    def groups(self) -> int:
        """The number of groups."""
        return int(self.group.max()) + 1 if len(self.group) else 0

    def sums(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Add up weighted values of images, ``(N,)``, by group, ``(G,)``."""
        return np.asarray(np.bincount(self.group, self.weight * values, self.groups), np.float64)

    def count(self, selected: NDArray[np.bool_]) -> int:
        """Count the groups that have a selected image, ``(N,)``."""
        return len(np.unique(self.group[selected]))


def kish_size(weights: Floats) -> float:
    """Return the number of equal weights that weights, ``(G,)``, are worth (Kish, 1965); 0 for none."""
    squares = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def degrees_factor(images: float, groups: int) -> float:
    """Return the factor by which few groups make a sample smaller (Korn and Graubard, 1998)."""
    from scipy.stats import t

    if images <= groups:
        return 1.0
    quantile = 1 - ALPHA / 2
    return float((t.ppf(quantile, max(images - 1, 1)) / t.ppf(quantile, max(groups - 1, 1))) ** 2)
