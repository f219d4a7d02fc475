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
    the squared distance from the class's F1 to that at the lower limit of its change (Tango's score limit with one more
    lost image), and to that without the luck with one large group, as far as they exceed what the variance has for this
    class already. Only the class with the greatest excess counts, since the errors of many classes cancel out, and in
    full those worth less than two images. Distances are combined as in the method of variance estimates recovery (Zou
    and Donner, 2008).
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
    losses, images = _possible_losses(answers, z)
    unseen = _unseen_losses(counts.sum(axis=0), losses) ** 2 + _errors_of_one_group(counts) ** 2
    excess = np.maximum(unseen / present.sum() ** 2 - z**2 * by_class, 0)
    # Nothing is known of the spread of a class that is worth less than two images, so that these count in full.
    single = images < 2
    beyond = np.sqrt(excess[single]).sum() ** 2 + excess[~single].max(initial=0)
    worst = int(excess.argmax())
    lower = difference - float(np.sqrt(z**2 * whole + beyond))
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


def _possible_losses(answers: PairedAnswers, z: float) -> tuple[Floats64, Floats64]:
    """Return how much lower than observed the change of each class's recall may be, ``(C,)``; 0 without images.

    Return with it the images that each class is worth, ``(C,)``. One image excludes no loss: it may be right by luck.
    """
    labels = answers.labels
    changes = class_changes(
        labels, answers.groups, answers.champion == labels, answers.challenger == labels, answers.classes
    )
    images = np.maximum(changes.images, 1)
    observed = (changes.better - changes.worse) / images
    limits = np.where(changes.images < 2, -1, cautious_lower_limit(changes.better, changes.worse, images, z))
    return np.where(changes.images > 0, np.maximum(observed - limits, 0), 0), changes.images


def _unseen_losses(counts: NDArray[np.int64], losses: Floats64) -> Floats64:
    """Return how much of the difference of each class's F1 is lost if its recall changed by ``losses`` less, ``(C,)``.

    Either the challenger has fewer hits than were seen, each of which costs more than the one before; or the champion
    has more, each of which adds at most what the first one does. If it had no luck in several classes of two or three
    images, that limit is large enough for all of them.
    """
    labels, champion_hits, champion_predicted, challenger_hits, challenger_predicted = counts
    fewer = np.minimum(losses * labels, challenger_hits)
    fall = f1_scores(labels, challenger_hits, challenger_predicted)
    fall -= f1_scores(labels, challenger_hits - fewer, challenger_predicted - fewer)
    before = f1_scores(labels, champion_hits, champion_predicted)
    rise = losses * labels * (2 - before) / np.maximum(labels + champion_predicted, 1)
    return np.asarray(np.maximum(fall, rise))


def _errors_of_one_group(counts: NDArray[np.int64]) -> Floats64:
    """Return how much of the difference of each class's F1 may be the luck with one group of another class, ``(C,)``.

    All images of a group may get the same wrong class, and a class of fewer images than that loses its F1 at a stroke.
    So it may be luck that the challenger did not give the class to the largest group, and that the champion gave it to
    one. Both are 0 where groups have one image, since a single error of this kind is not counted.

    Args:
        counts: Those of :func:`count_by_group`, ``(G, 5, C)``.
    """
    labels, champion_hits, champion_predicted, challenger_hits, challenger_predicted = counts.sum(axis=0)
    others = counts[:, 0].sum(axis=1, keepdims=True) - counts[:, 0]
    unseen = np.maximum(others.max(axis=0) - 1, 0)
    seen = np.maximum((counts[:, 2] - counts[:, 1]).max(axis=0) - 1, 0)
    after = f1_scores(labels, challenger_hits, challenger_predicted)
    before = f1_scores(labels, champion_hits, champion_predicted)
    fall = after - f1_scores(labels, challenger_hits, challenger_predicted + unseen)
    rise = f1_scores(labels, champion_hits, champion_predicted - seen) - before
    return np.where(labels > 0, np.maximum(fall, rise), 0)
