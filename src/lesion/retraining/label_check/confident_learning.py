"""Find labels that are probably wrong, by confident learning on predictions of models that did not see the image.

Each image gets the class probabilities of a logistic regression on the champion's features that was fitted without the
image's group, and those of the champion itself where it has not learned from the image. Confident learning (Northcutt,
Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021; the package cleanlab) compares
the mean of the two with the labels of uploads, and so estimates how often each class is labeled as each other one. With
that, Bayes' rule gives the probability that a label is wrong.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.data.splits import assign_folds
from lesion.evaluation.probabilities import Floats, Ints

FOLDS = 5  # a class needs as many groups of images to be judged
# A label that is more probably wrong is reviewed: to take a wrong one is worse than to look at some that are right.
REVIEWED_FROM = 0.2
_LOGIT_VARIANCE = 10.0  # that the regression's prior gives to the logits: its weights shrink with more features
_STEPS = 200  # of the regression's solver at most; it need not converge to rank images
# Before any upload: of 100 labels, 3 are wrong, as Northcutt, Athalye and Mueller found in ten public test sets
# ("Pervasive label errors in test sets destabilize machine learning benchmarks", 2021).
_USUAL_ERRORS = 0.03
_USUAL_IMAGES = 20  # that this counts as, for each class

Bools = NDArray[np.bool_]
Floats64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """N images with their labels, which may be wrong, and what a champion of C classes makes of them."""

    labels: Ints  # (N,) indices below C
    groups: NDArray[Any]  # (N,) of any type; equal ones belong together
    features: NDArray[np.float32]  # (N, D) the champion's pooled features
    champion: Floats  # (N, C) its calibrated probabilities
    learned: Bools  # (N,) whether the champion was trained on the image, so that its own opinion says nothing
    held_out: Bools  # (N,) whether the image is held out for the gate: its label has no part in judging others
    waiting: Bools  # (N,) whether the image was never accepted: nothing is fitted on it
    trusted: Bools  # (N,) whether the label is known to be right

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in self.__dataclass_fields__}
        assert len(lengths) == 1, f"arrays of one length are needed, not of {sorted(lengths)}"


@dataclass(frozen=True, eq=False)
class LabelDoubts:
    """How doubtful each of N labels is."""

    judged: Bools  # (N,) whether the label could be judged: its class has enough groups of images
    doubts: Floats64  # (N,) in [0, 1]: the probability that the label is wrong; NaN if not judged
    doubted: Bools  # (N,) whether the label must be reviewed; never a trusted one
    suggested: Ints  # (N,) the most probable other class; the label itself if not judged
    confidences: Floats64  # (N,) its probability
    unjudged: tuple[int, ...]  # classes with too few groups of images to judge their labels


def doubt_labels(images: LabeledImages) -> LabelDoubts:
    """Judge labels; those of a class with fewer than ``FOLDS`` groups to fit on are not judged, nor is it suggested.

    With fewer than two other classes no label is judged.
    """
    total, classes = images.champion.shape
    known = _classes_with_groups(images)
    unjudged = tuple(sorted({*range(classes)} - {*known.tolist()}))
    judged = np.isin(images.labels, known) & (len(known) > 1)
    doubts, confidences, suggested = np.full(total, np.nan), np.full(total, np.nan), images.labels.copy()
    if judged.any():
        labels = np.searchsorted(known, images.labels[judged])
        votes = _vote(images, judged, labels, known)
        sent = ~(images.trusted | images.held_out)[judged]
        right = votes * _label_shares(labels[sent], votes[sent])[labels]
        right /= right.sum(axis=1, keepdims=True)
        given = np.arange(len(labels)), labels
        doubts[judged], right[given] = np.clip(1 - right[given], 0, 1), -1
        suggested[judged], confidences[judged] = known[right.argmax(axis=1)], right.max(axis=1)
    doubted = judged & ~images.trusted & (doubts > REVIEWED_FROM)
    return LabelDoubts(judged, doubts, doubted, suggested, confidences, unjudged)


def _classes_with_groups(images: LabeledImages) -> Ints:
    """Return the classes with enough groups to fit on, in ascending order."""
    fitted = ~(images.held_out | images.waiting)
    labels, groups = images.labels[fitted], images.groups[fitted]
    present = np.unique(labels)
    enough = [len(np.unique(groups[labels == label])) >= FOLDS for label in present]
    return np.asarray(present[np.array(enough, np.bool_)])


def _vote(images: LabeledImages, judged: Bools, labels: Ints, known: Ints) -> Floats64:
    """Return the probabilities of the ``known`` classes for the judged images, whose ``labels`` count those."""
    fitted = ~(images.held_out | images.waiting)[judged]
    regression = _out_of_fold(images.features[judged], labels, images.groups[judged], fitted)
    champion = images.champion[judged][:, known].astype(np.float64)
    champion = champion / np.maximum(champion.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    silent = images.learned[judged] | ~(champion.sum(axis=1) > 0.5)  # it may give all to classes that are not judged
    return np.where(silent[:, None], regression, (regression + champion) / 2)


def _out_of_fold(features: Floats, labels: Ints, groups: NDArray[Any], fitted: Bools) -> Floats64:
    """Return class probabilities, (N, C), by regressions on fitted images of other groups.

    An image whose group is in no fold has the mean of all regressions.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    numbers = np.unique(groups, return_inverse=True)[1]
    fold_of_group = np.full(numbers.max() + 1, -1)
    fold_of_group[numbers[fitted]] = assign_folds(labels[fitted].astype(np.int64), numbers[fitted], FOLDS, seed=0)
    folds = fold_of_group[numbers]
    probabilities = np.zeros((len(labels), int(labels.max()) + 1))
    inverse_penalty = _LOGIT_VARIANCE / features.shape[1]  # for features of unit variance
    for fold in range(FOLDS):
        regression = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=_STEPS))
        others = fitted & (folds != fold)
        regression.fit(features[others], labels[others])
        for tested, share in ((folds == fold, 1.0), (folds < 0, 1 / FOLDS)):
            if tested.any():
                found = share * regression.predict_proba(features[tested])
                probabilities[np.ix_(tested, regression.classes_)] += found
    return probabilities


def _label_shares(labels: Ints, votes: Floats64) -> Floats64:
    """Return how often an image of each class is labeled as each class, (C labels, C classes); each column sums to 1.

    ``labels``, (M,), and ``votes``, (M, C), are those of uploads. They are counted by confident learning, together with
    the usual errors, so that few uploads change little.
    """
    from cleanlab.count import compute_confident_joint

    classes = votes.shape[1]
    usual = np.full((classes, classes), _USUAL_ERRORS / (classes - 1))
    np.fill_diagonal(usual, 1 - _USUAL_ERRORS)
    counts = _USUAL_IMAGES * usual
    if len(labels):
        counts = counts + compute_confident_joint(labels, votes)
    return np.asarray(counts / counts.sum(axis=0))
