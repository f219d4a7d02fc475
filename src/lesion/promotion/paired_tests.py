"""Statistics of two models' answers to the same images, by groups of images that belong together.

Images of one patient, or near-duplicates of each other, are not independent, so that groups are what is counted and
resampled. ``lesion.evaluation.bootstrap`` gives one model's intervals and needs torch, which the worker does without.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

Ints = NDArray[np.integer[Any]]

_CELLS = 4_000_000  # of a replicates × kinds matrix held at once: 32 MB
_GAMMA = 1e-5  # probability that the changed groups' share lies outside the range that the exact test searches
_RATES = 101  # points of that range
_NEGLIGIBLE = 1e-12


def tally(labels: Ints, groups: NDArray[Any], champion: Ints, challenger: Ints, classes: int) -> NDArray[np.int64]:
    """Count, per group and class: labelled images, the champion's hits and answers, the challenger's hits and answers.

    Args:
        labels: ``(N,)`` indices below ``classes``.
        groups: ``(N,)`` of any type; equal ones belong together.
        champion: ``(N,)`` its answers, indices below ``classes``.
        challenger: ``(N,)`` its answers.
        classes: C.

    Returns:
        ``(G, 5, C)``.
    """
    names, index = np.unique(groups, return_inverse=True)
    cells = len(names) * classes

    def count(column: Ints, chosen: NDArray[np.bool_] | slice = slice(None)) -> NDArray[np.int64]:
        return np.bincount((index * classes + column)[chosen], minlength=cells).reshape(-1, classes)

    rows = [count(labels)]
    for answers in (champion, challenger):
        rows += [count(labels, answers == labels), count(answers)]
    return np.stack(rows, axis=1)


def f1_macros(counts: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the champion's and the challenger's macro-F1 of summed tallies, ``(..., 5, C)`` to twice ``(...)``.

    As in a model's report, classes without a labelled image are left out of the mean.
    """
    support, champion_hits, champion_answers, challenger_hits, challenger_answers = np.moveaxis(counts, -2, 0)
    return _f1_macro(support, champion_hits, champion_answers), _f1_macro(support, challenger_hits, challenger_answers)


def _f1_macro(support: NDArray[Any], hits: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.float64]:
    present = support > 0
    f1 = 2 * hits / np.maximum(support + answers, 1)
    return np.asarray(np.where(present, f1, 0).sum(axis=-1) / np.maximum(present.sum(axis=-1), 1))


def bootstrap_differences(counts: NDArray[np.int64], replicates: int, seed: int) -> NDArray[np.float64]:
    """Draw groups with replacement, and give each replicate's macro-F1 difference, challenger minus champion; ``(R,)``.

    Groups with the same tally are interchangeable: how often each kind is drawn is one multinomial variable, which is
    the same bootstrap as drawing the groups one by one, and far less work.
    """
    kinds, groups = np.unique(counts.reshape(len(counts), -1), axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    differences = np.empty(replicates)
    rows = max(1, _CELLS // len(kinds))
    for start in range(0, replicates, rows):
        drawn = rng.multinomial(len(counts), groups / len(counts), size=min(rows, replicates - start))
        champion, challenger = f1_macros((drawn @ kinds).reshape(len(drawn), *counts.shape[1:]))
        differences[start : start + rows] = challenger - champion
    return differences


def changed_groups(counts: NDArray[np.int64]) -> tuple[int, int]:
    """Count the groups in which the challenger answers more images rightly than the champion, and those with fewer."""
    net = (counts[:, 3] - counts[:, 1]).sum(axis=1)
    return int((net > 0).sum()), int((net < 0).sum())


@lru_cache(maxsize=8192)
def exact_test(better: int, worse: int, groups: int) -> float:
    """Test that a group is as likely to get better as to get worse, against that it is likelier to get better.

    This is McNemar's test on groups (one image each: McNemar's own) in its exact unconditional form: the probability,
    at the least favourable share of changed groups, of a result whose exact conditional p-value is as small as this
    one's. Its level holds exactly, as that of the conditional test does, whose discreteness wastes a fifth of the level
    at the sizes of gate sets (Lloyd, 2008; Fagerland, Lydersen and Laake, 2013). The search for the least favourable
    share stays in a confidence interval whose error is added to the p-value (Berger and Boos, 1994), so that it exceeds
    the conditional one's by 1e-5 at most.

    Args:
        better: Groups in which the challenger is better.
        worse: Groups in which it is worse.
        groups: All groups.

    Returns:
        The one-sided p-value.
    """
    changed = better + worse
    if not better:
        return 1.0
    # The factor keeps what was seen among the results that are as extreme, whatever the last digit is rounded to.
    seen = float(binom.sf(better - 1, changed, 0.5)) * (1 + 1e-9)
    low, high = proportion_confint(changed, groups, alpha=_GAMMA, method="beta")
    first, last = binom.ppf(_NEGLIGIBLE, groups, low), binom.isf(_NEGLIGIBLE, groups, high)
    sizes = np.arange(max(1, int(first)), int(last) + 1)
    as_extreme = binom.sf(binom.isf(seen, sizes, 0.5), sizes, 0.5)
    rates = np.linspace(low, high, _RATES)
    worst = float((binom.pmf(sizes, groups, rates[:, None]) @ as_extreme).max())
    return min(1.0, worst + _GAMMA)


def fewest_better(groups: int, alpha: float) -> int | None:
    """Find how many groups must get better, and none worse, to pass the exact test; None where all are too few."""
    return next((k for k in range(1, groups + 1) if exact_test(k, 0, groups) <= alpha), None)


def mcnemar_test(gained: int, lost: int) -> float:
    """Give the two-sided p-value of exact McNemar on images, as tables report it; groups are not taken into account."""
    return float(mcnemar([[0, lost], [gained, 0]], exact=True).pvalue)
