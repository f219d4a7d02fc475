"""What the next look at the gate set could prove, before a challenger is trained for it."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import binom

from lesion.core.text import format_count, format_percent
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
    # The budget's end is no question of images.
    more = more_groups(groups, *change_rates(champion, (1 + champion) / 2), level) if level else None
    if obstacle := obstacle_to_promotion(groups, level, improvable_groups):
        return Feasibility(images, groups, level, champion, known, False, (), None, more, obstacle)
    rises = [rise for rise in (0.01, 0.02, 0.05, 0.1) if champion + rise < 1]
    chances = tuple(Chance(rise, chance_of_proof(groups, champion, champion + rise, level)) for rise in rises)
    steps = np.arange(_STEP, 1 - champion, _STEP)
    likely = next((float(s) for s in steps if chance_of_proof(groups, champion, champion + s, level) >= LIKELY), None)
    reason = _reason(images, groups, (champion, known), likely, more)
    return Feasibility(images, groups, level, champion, known, True, chances, likely, more, reason)


def obstacle_to_promotion(groups: int, level: float, improvable_groups: int | None) -> str:
    """Return why a look could promote no challenger at all, however good it is; empty if it could.

    ``improvable_groups`` is the number of groups in which the champion errs, None if it is not known.
    """
    if not level:
        return "The gate's error budget is used up: the next comparison would decide nothing."
    needed = fewest_better_groups(groups, level)
    if needed is None:
        return (
            f"The gate set is too small to prove anything: even if all of its {groups} groups of images got better, "
            "chance could not be ruled out."
        )
    if improvable_groups is not None and exact_p_value(improvable_groups, 0, groups) > level:
        return (
            f"No new model could be proved better: the model in use errs in only {improvable_groups} of the gate's "
            f"{groups} groups of images, and at least {needed} would have to get better and none worse."
        )
    return ""


def chance_of_proof(
    groups: int, champion: float, challenger: float, level: float, correlation: float = CORRELATION
) -> float:
    """Return the probability that a challenger of the given accuracy is proved better on so many independent images.

    It is that of the exact conditional test (McNemar's), which the gate's test exceeds by a few points. The
    ``correlation`` is that of the two models' being right; accuracies may limit it.
    """
    return _chance(groups, *change_rates(champion, challenger, correlation), level)


def change_rates(champion: float, challenger: float, correlation: float = CORRELATION) -> tuple[float, float]:
    """Return the shares of images that only the challenger, and only the champion, has right, from both accuracies."""
    spread = (champion * (1 - champion) * challenger * (1 - challenger)) ** 0.5
    both = min(champion * challenger + correlation * spread, champion, challenger)
    return challenger - both, champion - both


def more_groups(groups: int, gain: float, loss: float, level: float) -> int | None:
    """Return how many more groups make it likely that a challenger is proved better.

    It is 0 if that is likely already, and None if far too many groups would be needed. ``gain`` and ``loss`` are the
    shares of groups that get better and worse with the challenger.
    """
    if gain <= loss:
        return None

    def likely(number: int) -> bool:
        return _chance(number, gain, loss, level) >= LIKELY

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


@lru_cache(maxsize=4096)
def _chance(groups: int, gain: float, loss: float, level: float) -> float:
    """Return the probability of a proof if these shares of the groups get better and worse with the challenger."""
    if gain + loss <= 0:
        return 0.0
    changed = np.arange(groups + 1)
    needed = binom.isf(level, changed, 0.5) + 1
    proved = binom.sf(needed - 1, changed, gain / (gain + loss))
    return float(binom.pmf(changed, groups, gain + loss) @ proved)


def _reason(images: int, groups: int, champion: tuple[float, bool], likely: float | None, more: int | None) -> str:
    accuracy, known = champion
    where = f"{format_count(images, 'held-out image')} in {format_count(groups, 'group')}"
    text = f"The next comparison decides on {where}. If the model in use is right in {format_percent(accuracy, 1)}, "
    text += "as was measured on them, " if known else "as is assumed, "
    text += (
        "hardly any improvement would be proved."
        if likely is None
        else f"a rise by {100 * likely:.1f} points would be proved in {format_percent(LIKELY)} of all cases."
    )
    if more:
        text += f" With about {format_count(more, 'more group')} of them, half as many errors would likely be proved."
    return text
