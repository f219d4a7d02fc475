"""Statistics of two models' answers to the same images, by groups of images that belong together.

Images of one patient, or near-duplicates of each other, are not independent, so groups are counted.
``lesion.evaluation.intervals`` has the intervals of one model.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, binomtest

from lesion.evaluation.probabilities import Ints

_GAMMA = 1e-5  # probability that the discordant share lies outside the range that the exact test searches
_RATES = 101  # points of that range
_NEGLIGIBLE = 1e-12


def count_by_group(
    labels: Ints, groups: NDArray[Any], champion: Ints, challenger: Ints, classes: int
) -> NDArray[np.int64]:
    """Count per group and class: labels, the champion's hits and predictions, the challenger's hits and predictions.

    Labels and predictions are ``(N,)`` indices below ``classes``; equal values of ``groups``, ``(N,)`` of any type,
    belong together. Return ``(G, 5, C)``.
    """
    names, group_index = np.unique(groups, return_inverse=True)
    cells = len(names) * classes

    def count(column: Ints, rows: NDArray[np.bool_] | slice = slice(None)) -> NDArray[np.int64]:
        return np.bincount((group_index * classes + column)[rows], minlength=cells).reshape(-1, classes)

    columns = [count(labels)]
    for predictions in (champion, challenger):
        columns += [count(labels, predictions == labels), count(predictions)]
    return np.stack(columns, axis=1)


def macro_f1_scores(counts: NDArray[Any]) -> tuple[float, float]:
    """Compute the champion's and the challenger's macro-F1 of summed counts, ``(5, C)``.

    As in a model's report, classes without a labeled image are left out of the mean.
    """
    support, champion_hits, champion_predicted, challenger_hits, challenger_predicted = counts
    present = support > 0
    champion = f1_scores(support, champion_hits, champion_predicted)[present].mean()
    return float(champion), float(f1_scores(support, challenger_hits, challenger_predicted)[present].mean())


def f1_scores(support: NDArray[Any], hits: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.float64]:
    """Compute each class's F1 from its labels, hits and predictions; 0 for a class without any."""
    return np.asarray(2 * hits / np.maximum(support + predicted, 1))


def discordant_groups(counts: NDArray[np.int64]) -> tuple[int, int]:
    """Count the groups in which the challenger has more correct images than the champion, and those with fewer."""
    net = (counts[:, 3] - counts[:, 1]).sum(axis=1)
    return int((net > 0).sum()), int((net < 0).sum())


@lru_cache(maxsize=8192)
def exact_p_value(better: int, worse: int, groups: int) -> float:
    """Test the hypothesis that a group is no likelier to get better than to get worse; return the one-sided p-value.

    This is McNemar's test on groups (with one image each: McNemar's test itself) in its exact unconditional form: the
    probability, at the least favorable share of discordant groups, of a result whose exact conditional p-value is at
    most the observed one. Its level holds exactly. So does that of the conditional test, but its discreteness wastes a
    fifth of the level at the sizes of gate sets (Lloyd, 2008; Fagerland, Lydersen and Laake, 2013). The search for the
    least favorable share stays within a confidence interval whose error is added to the p-value (Berger and Boos,
    1994), so it exceeds the conditional one by 1e-5 at most.
    """
    discordant = better + worse
    if not better:
        return 1.0
    # The factor keeps the observed result among the results that are as extreme, however the last digit is rounded.
    observed = float(binom.sf(better - 1, discordant, 0.5)) * (1 + 1e-9)
    low, high = binomtest(discordant, groups).proportion_ci(1 - _GAMMA, method="exact")
    first, last = binom.ppf(_NEGLIGIBLE, groups, low), binom.isf(_NEGLIGIBLE, groups, high)
    sizes = np.arange(max(1, int(first)), int(last) + 1)
    as_extreme = binom.sf(binom.isf(observed, sizes, 0.5), sizes, 0.5)
    rates = np.linspace(low, high, _RATES)
    least_favorable = float((binom.pmf(sizes, groups, rates[:, None]) @ as_extreme).max())
    return min(1.0, least_favorable + _GAMMA)


def fewest_better_groups(groups: int, alpha: float) -> int | None:
    """Return how many groups must get better, and no group worse, to pass the exact test; None if all are too few."""
    return next((k for k in range(1, groups + 1) if exact_p_value(k, 0, groups) <= alpha), None)


def mcnemar_p_value(gained: int, lost: int) -> float:
    """Return the two-sided p-value of the exact McNemar test on images, for tables; it ignores the groups."""
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
