"""All metrics of an evaluation with their 95 % intervals, one vote a group of images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import DataError
from lesion.evaluation.intervals.averages import macro
from lesion.evaluation.intervals.calibration_error import (
    BinnedGaps,
    binned_gaps,
    calibration_error,
    consistent_accuracies,
)
from lesion.evaluation.intervals.estimates import Estimate, Sample
from lesion.evaluation.intervals.losses import brier_losses, log_losses, mean_loss
from lesion.evaluation.intervals.proportions import f1, share, worth_of
from lesion.evaluation.intervals.rankings import average_precision, roc_auc
from lesion.evaluation.probabilities import Floats, Ints

_MACRO = ("precision", "recall", "f1")  # their averages have keys of their own


def estimate_metrics(
    probabilities: Floats,
    labels: Ints,
    groups: Ints,
    classes: Sequence[str],
    prevalence: Sequence[float] | None = None,
) -> dict[str, Estimate]:
    """Estimate every metric, with an interval where the images are enough for one.

    Images of one patient, or copies of one picture, are not independent: every group has one vote, shared by its
    images, and the intervals are those of the groups.

    Args:
        probabilities: ``(N, C)`` in [0, 1], rows summing to 1.
        labels: ``(N,)`` indices below C.
        groups: ``(N,)`` any integers; equal ones belong together.
        classes: C names.
        prevalence: C shares of the classes where the model is used; None for those of the images.

    Returns:
        ``{"acc": …, "f1_macro": …, "recall/<class>": …}``.

    Raises:
        DataError: The arrays do not fit together.
    """
    probabilities, labels, groups = np.asarray(probabilities), np.asarray(labels), np.asarray(groups)
    if not (len(probabilities) == len(labels) == len(groups)) or probabilities.shape[1:] != (len(classes),):
        raise DataError(
            f"{len(classes)} classes came with probabilities of shape {probabilities.shape}, labels of shape "
            f"{labels.shape} and groups of shape {groups.shape}; they must be (images, classes), (images,), (images,)."
        )
    sample = Sample.of(groups, importance(labels, groups, prevalence))
    predicted = probabilities.argmax(axis=1)
    correct = predicted == labels
    worth = worth_of(sample, correct)
    per_class = [
        _of_class(sample, probabilities[:, c], labels == c, predicted == c, worth) for c in range(len(classes))
    ]
    averages = {
        f"{key}_macro" if key in _MACRO else key: macro([values[key] for values in per_class]) for key in per_class[0]
    }
    recall = averages.pop("recall_macro")
    del averages["specificity"], averages["npv"]
    return {
        "acc": share(sample, correct, np.ones_like(correct)),
        "balanced_acc": recall,
        "recall_macro": recall,
        **averages,
        **_estimate_calibration(sample, probabilities, labels),
        **{f"{key}/{classes[c]}": estimate for c, values in enumerate(per_class) for key, estimate in values.items()},
    }


def consistency_bars(probabilities: Floats, labels: Ints, groups: Ints) -> tuple[Floats, Floats]:
    """Return the accuracies, two ``(BINS,)``, that the bins of a reliability diagram have if the model is calibrated.

    They are the limits of 95 % of samples; NaN in empty bins. The arguments are those of :func:`estimate_metrics`.
    """
    correct = probabilities.argmax(axis=1) == labels
    return consistent_accuracies(binned_gaps(Sample.of(groups), probabilities.max(axis=1), correct))


def estimate_calibration(
    probabilities: Floats, labels: Ints, groups: Ints, prevalence: Sequence[float] | None = None
) -> dict[str, Estimate]:
    """Estimate the metrics that a calibration changes: log-loss, Brier score and calibration errors.

    The arguments, and the keys of the result, are those of :func:`estimate_metrics`.
    """
    return _estimate_calibration(Sample.of(groups, importance(labels, groups, prevalence)), probabilities, labels)


def _estimate_calibration(sample: Sample, probabilities: Floats, labels: Ints) -> dict[str, Estimate]:
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    return {
        "nll": mean_loss(sample, log_losses(probabilities, labels), correct, confidence),
        "brier": mean_loss(sample, brier_losses(probabilities, labels), correct, confidence),
        "ece": calibration_error(binned_gaps(sample, confidence, correct), sample.groups),
        "ece_classwise": _classwise(sample, probabilities, labels),
    }


def importance(labels: Ints, groups: Ints, prevalence: Sequence[float] | None) -> NDArray[np.float64] | None:
    """Return weights, ``(N,)``, that give the classes of the images the shares of a prevalence; None without one."""
    if prevalence is None:
        return None
    votes = np.bincount(labels, Sample.of(groups).weight, len(prevalence))
    factor = np.asarray(prevalence) * votes.sum() / np.where(votes > 0, votes, 1)
    return np.asarray(factor[labels])


def _of_class(
    sample: Sample, score: Floats, labeled: NDArray[np.bool_], predicted: NDArray[np.bool_], worth: float
) -> dict[str, Estimate]:
    """Estimate the metrics of one class against the rest; without images of it, only those of the rest are defined."""
    of_rest = {
        "specificity": share(sample, ~labeled & ~predicted, ~labeled, worth),
        "npv": share(sample, ~labeled & ~predicted, ~predicted, worth),
    }
    if not labeled.any():
        return dict.fromkeys(("precision", "recall", "f1", "roc_auc", "pr_auc"), Estimate(float("nan"))) | of_rest
    return of_rest | {
        "precision": share(sample, labeled & predicted, predicted, worth) if predicted.any() else Estimate(0.0),
        "recall": share(sample, labeled & predicted, labeled, worth),
        "f1": f1(sample, labeled, predicted, worth),
        "roc_auc": roc_auc(sample, score, labeled),
        "pr_auc": average_precision(sample, score, labeled),
    }


def _classwise(sample: Sample, probabilities: Floats, labels: Ints) -> Estimate:
    """Estimate the calibration error of each class's probability, averaged over the classes (Kull et al., 2019)."""
    classes = probabilities.shape[1]
    parts = [binned_gaps(sample, probabilities[:, c], labels == c) for c in range(classes)]
    names = ("gap", "deviation", "expected", "share")
    joined = BinnedGaps(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
    return calibration_error(joined, sample.groups, classes)
