"""Prediction sets: the classes that an image may have, so that the right one is rarely missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lesion.conformal.ranks import Floats, Ints, conformal_quantile, fewest_groups
from lesion.core.errors import InvalidValueError
from lesion.core.text import format_count, format_percent, join_names

COVERAGES = (0.8, 0.9, 0.95, 0.99)
DEFAULT_COVERAGE = 0.9


@dataclass(frozen=True, eq=False)
class PredictionSets:
    """For each coverage, the probability of each class from which on the class is in an image's set.

    Among images of a class, of every class, the set contains that class for at least a share ``coverage`` (class-
    conditional split conformal prediction: Vovk, "Conditional validity of inductive conformal predictors", 2012).
    """

    thresholds: Mapping[float, NDArray[np.float32]]  # by coverage, ``(C,)``; 0: always in the set
    groups: tuple[int, ...]  # of calibration images, for each class

    @classmethod
    def fit(cls, probabilities: Floats, labels: Ints, groups: Ints) -> Self:
        """Fit the thresholds on images that neither trained nor test the model.

        Args:
            probabilities: ``(N, C)``, calibrated.
            labels: ``(N,)`` indices below C.
            groups: ``(N,)`` integers; images that belong together share one, and one vote.
        """
        labels, groups = np.asarray(labels), np.asarray(groups)
        classes = range(probabilities.shape[1])
        rows = [labels == c for c in classes]

        def threshold(c: int, coverage: float) -> float:
            bound = conformal_quantile(-probabilities[rows[c], c], groups[rows[c]], coverage)
            return 0.0 if bound is None else -bound

        fitted = {
            coverage: np.array([threshold(c, coverage) for c in classes], dtype=np.float32) for coverage in COVERAGES
        }
        return cls(fitted, tuple(len(np.unique(groups[each])) for each in rows))

    def check_coverage(self, coverage: float) -> None:
        """Raise an InvalidValueError (``coverage_unknown``) if a coverage was not fitted."""
        if coverage not in self.thresholds:
            fitted = ", ".join(map(str, self.thresholds))
            raise InvalidValueError(
                f"The model has no prediction sets of coverage {coverage}; it has those of {fitted}.",
                code="coverage_unknown",
            )

    def members(self, probabilities: Floats, coverage: float = DEFAULT_COVERAGE) -> NDArray[np.bool_]:
        """Return which classes are in the sets of images with these probabilities, ``(..., C)`` of that shape.

        A coverage that was not fitted is a KeyError.
        """
        return np.asarray(probabilities >= self.thresholds[coverage])

    def listed(self, probabilities: Floats, coverage: float = DEFAULT_COVERAGE) -> NDArray[np.bool_]:
        """Return the members of the sets and, in each, the most probable class: an answer is among what it lists."""
        best = np.asarray(probabilities).argmax(axis=-1)[..., None]
        return np.asarray(self.members(probabilities, coverage) | (np.arange(len(self.groups)) == best))

    def notes(self, classes: Sequence[str], coverage: float = DEFAULT_COVERAGE) -> list[str]:
        """Return, as at most one sentence, which classes are in every set because their images are too few."""
        least = fewest_groups(coverage)
        few = [f"{name} ({count})" for name, count in zip(classes, self.groups, strict=True) if count < least]
        if not few:
            return []
        return [
            f"To leave a class out of a prediction set with {format_percent(coverage)} coverage, "
            f"{format_count(least, 'group')} of its calibration images are needed; these classes have fewer and are in "
            f"every set: {join_names(few, len(few))}."
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the thresholds and counts, JSON-ready."""
        thresholds = {str(coverage): values.tolist() for coverage, values in self.thresholds.items()}
        return {"thresholds": thresholds, "groups": list(self.groups)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_json` wrote; anything else is a ValueError, TypeError or KeyError."""
        thresholds = {
            float(coverage): np.array(values, dtype=np.float32) for coverage, values in value["thresholds"].items()
        }
        groups = tuple(int(count) for count in value["groups"])
        fits = all(row.shape == (len(groups),) and bool(np.all((row >= 0) & (row <= 1))) for row in thresholds.values())
        if DEFAULT_COVERAGE not in thresholds or not fits:
            raise ValueError(f"a probability of each class is needed for a coverage of {DEFAULT_COVERAGE}")
        return cls(thresholds, groups)
