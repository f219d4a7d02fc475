"""What the next look at the gate set could prove, before a challenger is trained for it."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import binom

from lesion.promotion.paired_tests import exact_p_value, fewest_better_groups

LIKELY = 0.8  # the probability from which an improvement counts as likely to be proved
CORRELATION = 0.5  # of the two models' being right on an image
ASSUMED_ACCURACY = 0.9  # of a champion that was not compared on these images yet
_STEP = 0.005  # of the rises of accuracy that are tried
_MOST_GROUPS = 100_000


@dataclass(frozen=True)
class Chance:
    """With which probability a rise of accuracy would be proved."""

    rise: float
    probability: float


@dataclass(frozen=True)
class Feasibility:
    """What the next look could prove."""

    images: int  # on which the next look decides
    groups: int  # of related images
    level: float  # of the next look; 0 if the budget is used up
    accuracy: float  # the champion's on these images
    accuracy_known: bool  # False if it is assumed
    possible: bool  # whether any challenger at all could be promoted
    chances: tuple[Chance, ...]  # of small and large improvements; empty if none is possible
    likely_rise: float | None  # the smallest rise that would probably be proved; None without one
    more_groups: int | None  # beyond those at hand, with which half as many errors would likely be proved
    reason: str  # all this in words


def assess(
    images: int, groups: int, level: float, accuracy: float | None = None, improvable_groups: int | None = None
) -> Feasibility:
    """Assess what a look could prove.

    Args:
        images: Number of images on which it decides.
        groups: Number of groups of related images among them; at least 1.
        level: The look's level; 0 if the budget is used up.
        accuracy: The champion's accuracy on them, if it is known.
        improvable_groups: Number of groups in which the champion errs, if it is known.
    """
    known = accuracy is not None
    champion = ASSUMED_ACCURACY if accuracy is None else accuracy
    obstacle = _obstacle(groups, level, improvable_groups)
    if obstacle:
        more = _more_groups(groups, champion, level) if level else None
        return Feasibility(images, groups, level, champion, known, False, (), None, more, obstacle)
    rises = [rise for rise in (0.01, 0.02, 0.05, 0.1) if champion + rise < 1]
    chances = tuple(Chance(rise, chance_of_proof(groups, champion, champion + rise, level)) for rise in rises)
    steps = np.arange(_STEP, 1 - champion, _STEP)
    likely = next((float(s) for s in steps if chance_of_proof(groups, champion, champion + s, level) >= LIKELY), None)
    more = _more_groups(groups, champion, level)
    reason = _reason(images, groups, (champion, known), likely, more)
    return Feasibility(images, groups, level, champion, known, True, chances, likely, more, reason)


@lru_cache(maxsize=4096)
def chance_of_proof(
    groups: int, champion: float, challenger: float, level: float, correlation: float = CORRELATION
) -> float:
    """Return the probability that a challenger of the given accuracy is proved better on so many independent images.

    It is that of the exact conditional test (McNemar's), which the gate's test exceeds by a few points. The
    ``correlation`` is that of the two models' being right; accuracies may limit it.
    """
    spread = (champion * (1 - champion) * challenger * (1 - challenger)) ** 0.5
    both = min(champion * challenger + correlation * spread, champion, challenger)
    gain, loss = challenger - both, champion - both
    if gain + loss <= 0:
        return 0.0
    changed = np.arange(groups + 1)
    needed = binom.isf(level, changed, 0.5) + 1
    proved = binom.sf(needed - 1, changed, gain / (gain + loss))
    return float(binom.pmf(changed, groups, gain + loss) @ proved)


def _obstacle(groups: int, level: float, improvable_groups: int | None) -> str:
    if not level:
        return "The gate's error budget is used up: the next look would decide nothing."
    needed = fewest_better_groups(groups, level)
    if needed is None:
        return f"The gate set is too small: even if all of its {groups} groups got better, luck could not be ruled out."
    if improvable_groups is not None and exact_p_value(improvable_groups, 0, groups) > level:
        return (
            f"The champion errs in only {improvable_groups} of the gate's {groups} groups, and at least {needed} would "
            "have to get better and none worse."
        )
    return ""


def _more_groups(groups: int, champion: float, level: float) -> int | None:
    """Return how many more groups make it likely that half as many errors are proved; None if far too many do."""
    better = (1 + champion) / 2

    def likely(number: int) -> bool:
        return chance_of_proof(number, champion, better, level) >= LIKELY

    if likely(groups):
        return 0
    low, high = groups, 2 * groups
    while not likely(high):
        low, high = high, 2 * high
        if high > _MOST_GROUPS:
            return None
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if likely(middle) else (middle, high)
    return high - groups


def _reason(images: int, groups: int, champion: tuple[float, bool], likely: float | None, more: int | None) -> str:
    accuracy, known = champion
    basis = "as measured on them" if known else "as is assumed"
    text = f"The next look decides on {images:,} images in {groups:,} groups. With a champion right in {accuracy:.1%}, "
    text += f"{basis}, "
    text += (
        "hardly any improvement would be proved."
        if likely is None
        else f"a rise of {100 * likely:.1f} points would be proved in {LIKELY:.0%} of all cases."
    )
    if more:
        text += f" With about {more:,} more groups of held-out images, half as many errors would likely be proved."
    return text
