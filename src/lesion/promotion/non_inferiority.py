"""Whether something got worse, with three answers: not worse, worse, or too few images to judge.

Each answer needs evidence. "Not worse" means that a loss of the margin is excluded at the level ``not_worse``. "Worse"
means that this is not so, and that "no loss" is excluded at the stricter level ``worse``. What remains cannot be
judged, and does not prevent a promotion.

Both errors are so kept small, however many classes there are: a class that did not get worse is called worse with
probability ``worse`` at most, and one that lost the margin is let through with probability ``not_worse`` at most as
soon as it has enough images. Enough are those at which the two limits meet: there, the margin is as many standard
errors as the two quantiles together.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from lesion.promotion.macro_f1_bound import macro_f1_bound
from lesion.promotion.paired_answers import ClassChanges, PairedAnswers
from lesion.promotion.score_limits import cautious_lower_limit, normal_quantile


class Outcome(StrEnum):
    """What is known about a condition of the gate."""

    HOLDS = "holds"
    FAILS = "fails"
    TOO_FEW_IMAGES = "too_few_images"  # it could not be judged


@dataclass(frozen=True)
class Judgment:
    """One answer, with the evidence."""

    outcome: Outcome
    change: float  # the observed change; negative ones are losses
    lower: float  # what the change is above, at the level ``not_worse``
    needed: int  # images (in groups: independent ones) with which a loss of the margin would hardly be let through


@dataclass(frozen=True)
class ErrorLevels:
    """The error probabilities of one question."""

    not_worse: float = 0.05  # of calling something not worse that lost the margin
    worse: float = 0.002  # of calling something worse that did not change

    @property
    def quantiles(self) -> tuple[float, float]:
        """The normal quantiles of both levels."""
        return normal_quantile(self.not_worse), normal_quantile(self.worse)


def judge_classes(changes: ClassChanges, margin: float, levels: ErrorLevels) -> list[Judgment | None]:
    """Judge of each class whether its recall fell; None for a class without images.

    That "no loss" is excluded means that Tango's upper limit is below 0, which is McNemar's test.
    """
    z_not_worse, z_worse = levels.quantiles
    present = changes.images > 0
    better, worse, images = changes.better, changes.worse, np.where(present, changes.images, 1)
    lower = cautious_lower_limit(better, worse, images, z_not_worse)
    fell = worse - better > z_worse * np.sqrt(better + worse)
    changed = (better + worse + 1) / (images + 1)  # with one changed image more, as in the lower limit
    needed = changed * ((z_not_worse + z_worse) / margin) ** 2 if margin else np.zeros_like(changed)
    return [
        Judgment(
            _outcome(bool(lower[c] > -margin), bool(fell[c])),
            float((better[c] - worse[c]) / images[c]),
            float(lower[c]),
            math.ceil(needed[c]),
        )
        if present[c]
        else None
        for c in range(len(images))
    ]


def judge_macro_f1(answers: PairedAnswers, margin: float, levels: ErrorLevels) -> Judgment:
    """Judge whether the macro-F1 fell."""
    bound = macro_f1_bound(answers, levels.not_worse)
    fell = macro_f1_bound(answers.swapped(), levels.worse).lower > 0
    error = (bound.difference - bound.lower) / levels.quantiles[0]
    return Judgment(
        _outcome(bound.lower > -margin, fell),
        bound.difference,
        bound.lower,
        _needed(len(answers.labels), error, margin, levels),
    )


def judge_mean(gains: NDArray[np.float64], groups: NDArray[Any], margin: float, levels: ErrorLevels) -> Judgment:
    """Judge whether the mean of the images' ``gains``, ``(N,)``, is below 0, by Student's t over groups of images."""
    mean = float(gains.mean())
    _, codes = np.unique(groups, return_inverse=True)
    sums = np.bincount(codes, weights=gains - mean)
    if len(sums) < 2:
        return Judgment(Outcome.TOO_FEW_IMAGES, mean, -math.inf, 2)
    error = float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1))) / len(gains)
    lower = mean - float(t.isf(levels.not_worse, len(sums) - 1)) * error
    fell = mean + float(t.isf(levels.worse, len(sums) - 1)) * error < 0
    return Judgment(_outcome(lower > -margin, fell), mean, lower, _needed(len(gains), error, margin, levels))


def _outcome(excluded_loss: bool, fell: bool) -> Outcome:
    if excluded_loss:
        return Outcome.HOLDS
    return Outcome.FAILS if fell else Outcome.TOO_FEW_IMAGES


def _needed(images: int, standard_error: float, margin: float, levels: ErrorLevels) -> int:
    return math.ceil(images * (sum(levels.quantiles) * standard_error / margin) ** 2) if margin else 0
