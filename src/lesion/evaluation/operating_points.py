"""Operating points: from which probability on an image is taken for a class, so that a specificity is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lesion.conformal.ranks import conformal_quantile
from lesion.core.errors import ConfigError
from lesion.evaluation.intervals.confidence import importance
from lesion.evaluation.intervals.estimates import Estimate, Sample
from lesion.evaluation.intervals.proportions import share, worth_of
from lesion.evaluation.probabilities import Floats, Ints

TITLES = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity reached",
    "ppv": "Positive predictive value",
    "npv": "Negative predictive value",
}


@dataclass(frozen=True)
class OperatingPoints:
    """The probability of each class from which on an image is taken for that class, whatever the other classes get."""

    specificity: float  # the share of images of other classes that shall stay below the threshold
    thresholds: Mapping[str, float]  # by class; classes with too few calibration images of other classes are missing

    def to_json(self) -> dict[str, Any]:
        """Return the specificity and the thresholds, JSON-ready."""
        return {"specificity": self.specificity, "thresholds": dict(self.thresholds)}


def parse_specificity(value: object) -> float | None:
    """Return the share that ``evaluation.specificity`` states, None if it states nothing; raise a ConfigError."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.5 <= value < 1:
        raise ConfigError(f"evaluation.specificity={value} must be null or a share from 0.5 to below 1, such as 0.95.")
    return float(value)


def choose_thresholds(
    probabilities: Floats, labels: Ints, groups: Ints, classes: Sequence[str], specificity: float
) -> OperatingPoints:
    """Choose each class's threshold on calibration images, so that a new image of another class rarely reaches it.

    A new group of another class stays below the threshold with at least the probability ``specificity``, on average
    over calibration sets; see :func:`lesion.conformal.ranks.conformal_quantile`. Every group has one vote.

    Args:
        probabilities: ``(N, C)`` calibrated, of images that neither trained nor test the model.
        labels: ``(N,)`` indices below C.
        groups: ``(N,)`` integers; images that belong together share one.
        classes: C names.
        specificity: In [0.5, 1).
    """
    thresholds = {}
    for c, name in enumerate(classes):
        others = np.asarray(labels) != c
        highest_below = conformal_quantile(probabilities[others, c], np.asarray(groups)[others], specificity)
        if highest_below is not None:
            thresholds[name] = float(np.nextafter(np.float32(highest_below), np.float32(2)))
    return OperatingPoints(specificity, thresholds)


def estimate_at(
    points: OperatingPoints,
    probabilities: Floats,
    labels: Ints,
    groups: Ints,
    classes: Sequence[str],
    prevalence: Sequence[float] | None = None,
) -> dict[str, Estimate]:
    """Estimate sensitivity, specificity and predictive values of each class at its operating point.

    The arguments are those of :func:`lesion.evaluation.intervals.confidence.estimate_metrics`. The keys of the result
    are ``operating/sensitivity/<class>`` and so on; a class without a threshold has none.
    """
    sample = Sample.of(groups, importance(labels, groups, prevalence))
    result = {}
    for name, threshold in points.thresholds.items():
        c = list(classes).index(name)
        labeled, taken = np.asarray(labels) == c, np.asarray(probabilities[:, c] >= threshold)
        counted = {"sensitivity": labeled, "specificity": ~labeled, "ppv": taken, "npv": ~taken}
        right = labeled == taken
        worth = worth_of(sample, right)
        for key, images in counted.items():
            result[f"operating/{key}/{name}"] = share(sample, right & images, images, worth)
    return result
