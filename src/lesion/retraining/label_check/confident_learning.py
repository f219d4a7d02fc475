"""Find labels that are probably wrong, by confident learning on predictions of models that did not see the image.

Each image gets the class probabilities of a logistic regression on the champion's features that was fitted without the
image's group, and those of the champion itself where it has not learned from the image. Confident learning (Northcutt,
Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021; the package cleanlab) compares
the mean of the two with the labels: it estimates how often each class was labeled as each other one, without assuming
that the probabilities are calibrated, and names the images that are most likely to be those.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.data.splits import assign_folds
from lesion.evaluation.probabilities import Floats, Ints

FOLDS = 5  # a class needs as many groups of images to be judged
_INVERSE_PENALTY = 0.1  # of the regression's weights, on features of unit variance
_STEPS = 200  # of the regression's solver at most; it need not converge to rank images

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """N images with their labels, which may be wrong, and what a champion of C classes makes of them."""

    labels: Ints  # (N,) indices below C
    groups: NDArray[Any]  # (N,) of any type; equal ones belong together
    features: NDArray[np.float32]  # (N, D) the champion's pooled features
    champion: Floats  # (N, C) its calibrated probabilities
    learned: Bools  # (N,) whether the champion was trained on the image, so that its own opinion says nothing
    held_out: Bools  # (N,) whether the image is held out for the gate: nothing is fitted on it
    trusted: Bools  # (N,) whether the label is known to be right

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in self.__dataclass_fields__}
        assert len(lengths) == 1, f"arrays of one length are needed, not of {sorted(lengths)}"


@dataclass(frozen=True, eq=False)
class LabelDoubts:
    """How doubtful each of N labels is."""

    judged: Bools  # (N,) whether the label could be judged: its class has enough groups of images
    doubts: NDArray[np.float64]  # (N,) in [0, 1]: 1 minus the probability of the label; NaN if not judged
    doubted: Bools  # (N,) whether the label is probably wrong
    suggested: Ints  # (N,) the most probable class
    confidences: NDArray[np.float64]  # (N,) its probability
    unjudged: tuple[int, ...]  # classes with too few groups of images to judge their labels


def doubt_labels(images: LabeledImages) -> LabelDoubts:
    """Judge labels; those of a class with fewer than ``FOLDS`` groups to fit on are not judged, nor is it suggested.

    With fewer than two other classes no label is judged.
    """
    total, classes = images.champion.shape
    known = _classes_with_groups(images)
    unjudged = tuple(sorted({*range(classes)} - {*known.tolist()}))
    judged = np.isin(images.labels, known)
    doubts, confidences = np.full(total, np.nan), np.full(total, np.nan)
    doubted, suggested = np.zeros(total, np.bool_), images.labels.copy()
    if len(known) < 2:
        return LabelDoubts(np.zeros(total, np.bool_), doubts, doubted, suggested, confidences, unjudged)
    labels = np.searchsorted(known, images.labels[judged])
    votes = _vote(images, judged, labels, known)
    doubts[judged] = np.clip(1 - votes[np.arange(len(labels)), labels], 0, 1)
    doubted[judged] = _find_issues(labels, votes, images.held_out[judged]) & ~images.trusted[judged]
    suggested[judged], confidences[judged] = known[votes.argmax(axis=1)], votes.max(axis=1)
    return LabelDoubts(judged, doubts, doubted, suggested, confidences, unjudged)


def _classes_with_groups(images: LabeledImages) -> Ints:
    """Return the classes with enough groups to fit on, in ascending order."""
    fitted = ~images.held_out
    labels, groups = images.labels[fitted], images.groups[fitted]
    present = np.unique(labels)
    enough = [len(np.unique(groups[labels == label])) >= FOLDS for label in present]
    return np.asarray(present[np.array(enough, np.bool_)])


def _vote(images: LabeledImages, judged: Bools, labels: Ints, known: Ints) -> NDArray[np.float64]:
    """Return the probabilities of the ``known`` classes for the judged images, whose ``labels`` count those."""
    regression = _out_of_fold(images.features[judged], labels, images.groups[judged], images.held_out[judged])
    champion = images.champion[judged][:, known].astype(np.float64)
    champion = champion / np.maximum(champion.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    silent = images.learned[judged] | ~(champion.sum(axis=1) > 0.5)  # it may give all to classes that are not judged
    return np.where(silent[:, None], regression, (regression + champion) / 2)


def _out_of_fold(features: Floats, labels: Ints, groups: NDArray[Any], held_out: Bools) -> NDArray[np.float64]:
    """Return class probabilities, (N, C), by regressions without the image's group; a held-out image has their mean."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = np.flatnonzero(~held_out)
    numbers = np.unique(groups[fitted], return_inverse=True)[1]
    folds = assign_folds(labels[fitted].astype(np.int64), numbers, FOLDS, seed=0)
    probabilities = np.zeros((len(labels), int(labels.max()) + 1))
    for fold in range(FOLDS):
        rest, tested = fitted[folds != fold], fitted[folds == fold]
        regression = make_pipeline(StandardScaler(), LogisticRegression(C=_INVERSE_PENALTY, max_iter=_STEPS))
        regression.fit(features[rest], labels[rest])
        columns = regression.classes_
        probabilities[np.ix_(tested, columns)] = regression.predict_proba(features[tested])
        if held_out.any():
            probabilities[np.ix_(held_out, columns)] += regression.predict_proba(features[held_out]) / FOLDS
    return probabilities


def _find_issues(labels: Ints, probabilities: NDArray[np.float64], held_out: Bools) -> Bools:
    """Return which labels are probably wrong, (N,); what is held out has no part in judging the others."""
    from cleanlab.filter import find_label_issues

    def issues(rows: Bools) -> Bools:
        found: Bools = find_label_issues(labels[rows], probabilities[rows], filter_by="prune_by_class", n_jobs=1)
        return found

    doubted = np.zeros(len(labels), np.bool_)
    doubted[~held_out] = issues(~held_out)
    if held_out.any():
        doubted[held_out] = issues(np.ones(len(labels), np.bool_))[held_out]
    return doubted
