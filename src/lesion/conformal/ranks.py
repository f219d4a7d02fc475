"""The rank of split conformal prediction, for images that come in groups."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
_ROUNDING = 1e-9  # sums of votes are off by less


def conformal_quantile(scores: Floats, groups: Ints, coverage: float) -> float | None:
    """Return a bound that the score of a new group's image does not exceed with at least the probability ``coverage``.

    That holds on average over calibration sets, whatever the distribution is, if the groups are drawn alike and the
    image is drawn at random from a new one. Every group has one vote, and one imagined group lies above all (Vovk,
    Gammerman and Shafer, 2005; for groups: Lee, Barber and Willett, "Distribution-free inference with hierarchical
    data", 2023).

    Args:
        scores: ``(N,)`` finite.
        groups: ``(N,)`` integers; images that belong together share one.
        coverage: In (0, 1).

    Returns:
        One of the scores; None if the groups are too few for any bound.
    """
    if not len(scores):
        return None
    _, members, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    votes = np.cumsum(1.0 / sizes[members][order])
    rank = int(np.searchsorted(votes, coverage * (len(sizes) + 1) - _ROUNDING))
    return float(scores[order[rank]]) if rank < len(order) else None


def fewest_groups(coverage: float) -> int:
    """Return how many groups are needed for a bound."""
    return int(np.ceil(coverage / (1 - coverage) - _ROUNDING))
