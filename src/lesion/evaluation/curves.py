"""The curves of an evaluation as numbers: what the report draws, and what ``metrics.json`` keeps for other pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from lesion.evaluation.calibration import Reliability, reliability

POINTS = 200  # of a curve in a file; a screen shows no more
_DECIMALS = 5


@dataclass(frozen=True, eq=False)
class Curve:
    """A class against the rest.

    Attributes:
        x: ``(P,)`` in [0, 1].
        y: ``(P,)`` in [0, 1].
        area: What the curve is summed up to.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    area: float

    def to_json(self, points: int = POINTS) -> dict[str, list[float]]:
        """Return the curve's points, of many a choice spread evenly along it."""
        travelled = np.r_[0.0, np.cumsum(np.abs(np.diff(self.x)) + np.abs(np.diff(self.y)))]
        even = np.searchsorted(travelled, np.linspace(0, travelled[-1], points))
        kept = np.unique(even) if len(self.x) > points else slice(None)
        return {"x": self.x[kept].round(_DECIMALS).tolist(), "y": self.y[kept].round(_DECIMALS).tolist()}


def roc(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> dict[int, Curve]:
    """Compute each class's true over its false positive rate, from 0 to 1, and the area under it.

    Args:
        probabilities: ``(N, C)``.
        labels: ``(N,)`` indices below C.

    Returns:
        By the class's index; without classes that lack images, or that all images have.
    """
    found = {}
    for c in range(probabilities.shape[1]):
        of_class, scores = labels == c, probabilities[:, c]
        if 0 < of_class.sum() < len(labels):
            false, true, _ = roc_curve(of_class, scores)
            found[c] = Curve(false, true, float(roc_auc_score(of_class, scores)))
    return found


def precision_recall(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> dict[int, Curve]:
    """Compute each class's precision over its recall, from 1 to 0, and the average precision.

    A point's precision holds for all recalls down to the next point's: the curve goes across first, then up or down.

    Args:
        probabilities: ``(N, C)``.
        labels: ``(N,)`` indices below C.

    Returns:
        By the class's index; without classes that lack images.
    """
    found = {}
    for c in range(probabilities.shape[1]):
        of_class, scores = labels == c, probabilities[:, c]
        if of_class.any():
            precision, recall, _ = precision_recall_curve(of_class, scores, drop_intermediate=True)
            found[c] = Curve(recall, precision, float(average_precision_score(of_class, scores)))
    return found


def curves_json(
    classes: Sequence[str],
    labels: NDArray[np.integer[Any]],
    before: NDArray[np.floating[Any]],
    after: NDArray[np.floating[Any]],
) -> dict[str, Any]:
    """Return all curves, JSON-ready: ``roc`` and ``pr`` by class, and ``reliability`` by stage of calibration.

    Args:
        classes: C names.
        labels: ``(N,)`` indices below C.
        before: Probabilities that are not calibrated, ``(N, C)``.
        after: Calibrated ones, ``(N, C)``.
    """
    return {
        "roc": {classes[c]: curve.to_json() for c, curve in roc(after, labels).items()},
        "pr": {classes[c]: curve.to_json() for c, curve in precision_recall(after, labels).items()},
        "reliability": {
            "before": _bins(reliability(before, labels)),
            "after": _bins(reliability(after, labels)),
        },
    }


def _bins(found: Reliability) -> list[dict[str, float]]:
    """The bins that hold images, from the least to the greatest confidence."""
    return [
        {
            "confidence": float(found.confidence[b]),
            "accuracy": float(found.accuracy[b]),
            "images": int(found.count[b]),
        }
        for b in np.flatnonzero(found.count)
    ]
