"""A lower confidence bound of the difference of two models' macro-F1 that keeps its level with rare classes.

A bootstrap, and any other estimate of the spread from the data alone, takes a class that did not change on its 3 images
for one that cannot change. ``docs/gate.md`` compares the candidates that were simulated.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion.evaluation.probabilities import Ints
from lesion.promotion.paired_answers import Bools, Floats64, PairedAnswers, class_changes
from lesion.promotion.paired_tests import count_by_group, f1_scores
from lesion.promotion.score_limits import cautious_lower_limit, normal_quantile


@dataclass(frozen=True)
class MacroF1Bound:
    """The difference of macro-F1, challenger minus champion, and what it is above with confidence."""

    difference: float
    lower: float
    # The index of the class that lowers the bound by more than its changed images explain, since it has so few; None if
    # there is no such class.
    uncertain_class: int | None


def macro_f1_bound(answers: PairedAnswers, level: float) -> MacroF1Bound:
    """Compute the one-sided lower bound; the probability that the true difference is below it is ``level``.

    The variance is that of the difference's linear approximation, summed over groups of images and stratified by class
    (the classes' numbers of images are taken as given). To it comes one class's uncertainty that the data do not show:
    the squared distance from the class's observed change to the lower limit of its change (Tango's score limit with one
    more lost image), as far as it exceeds what the variance has for this class already. Only the class with the
    greatest excess counts, since the errors of many classes cancel out. Distances are combined as in the method of
    variance estimates recovery (Zou and Donner, 2008).
    """
    z = normal_quantile(level)
    counts = count_by_group(answers.labels, answers.groups, answers.champion, answers.challenger, answers.classes)
    support, champion_hits, champion_predicted, challenger_hits, challenger_predicted = counts.sum(axis=0)
    present = support > 0
    before = f1_scores(support, champion_hits, champion_predicted)
    after = f1_scores(support, challenger_hits, challenger_predicted)
    difference = float((after - before)[present].mean())
    influences = _influence(answers.labels, answers.challenger, after, support + challenger_predicted, present)
    influences -= _influence(answers.labels, answers.champion, before, support + champion_predicted, present)
    whole, by_class = _variances(answers, influences, support)
    # What the macro-F1 loses if a class's recall falls from 1 to 0.
    weight = (2 - after) / np.maximum(support + challenger_predicted, 1) * support / present.sum()
    excess = (weight * _possible_losses(answers, z)) ** 2 - z**2 * by_class
    worst = int(excess.argmax())
    lower = difference - float(np.sqrt(z**2 * whole + max(excess[worst], 0.0)))
    return MacroF1Bound(difference, lower, worst if excess[worst] > z**2 * whole else None)


def _influence(labels: Ints, predicted: Ints, f1: Floats64, size: NDArray[np.int64], present: Bools) -> Floats64:
    """Return how much each image adds to a model's macro-F1, to first order, ``(N,)``.

    A class's F1 is twice its hits divided by ``size``, its images plus its predictions.
    """
    hits, classes = predicted == labels, present.sum()
    penalty = np.where(present, f1 / np.maximum(size, 1), 0)[predicted]
    return np.asarray((2 * hits / size[labels] - penalty) / classes)


def _variances(answers: PairedAnswers, influences: Floats64, support: NDArray[np.int64]) -> tuple[float, Floats64]:
    """Return the variance of the summed influences, and the part of each class, ``(C,)``."""
    labels, classes = answers.labels, answers.classes
    means = np.bincount(labels, weights=influences, minlength=classes) / np.maximum(support, 1)
    correction = np.sqrt(support / np.maximum(support - 1, 1))
    residuals = (influences - means[labels]) * correction[labels]
    _, codes = np.unique(answers.groups, return_inverse=True)
    cells, cell = np.unique(codes * classes + labels, return_inverse=True)
    in_cells = np.bincount(cell, weights=residuals) ** 2
    by_class = np.bincount(cells % classes, weights=in_cells, minlength=classes).astype(float)
    return float((np.bincount(codes, weights=residuals) ** 2).sum()), by_class


def _possible_losses(answers: PairedAnswers, z: float) -> Floats64:
    """Return how much lower than observed the change of each class's recall may be, ``(C,)``; 0 without images."""
    labels = answers.labels
    changes = class_changes(
        labels, answers.groups, answers.champion == labels, answers.challenger == labels, answers.classes
    )
    images = np.maximum(changes.images, 1)
    observed = (changes.better - changes.worse) / images
    limits = cautious_lower_limit(changes.better, changes.worse, images, z)
    return np.where(changes.images > 0, np.maximum(observed - limits, 0), 0)
