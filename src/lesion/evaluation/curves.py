"""The curves of an evaluation as numbers, for the report's figures and for ``metrics.json``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from lesion.evaluation.intervals.confidence import consistency_bars
from lesion.evaluation.probabilities import Floats, Ints
from lesion.evaluation.reliability import reliability

POINTS = 200  # stored per curve; a screen shows no more
_DECIMALS = 5


@dataclass(frozen=True, eq=False)
class Curve:
    """The curve of a class against the rest."""

    x: NDArray[np.float64]  # ``(P,)`` in [0, 1]
    y: NDArray[np.float64]  # ``(P,)`` in [0, 1]
    area: float  # the area under the curve, or the average precision

    def to_json(self, points: int = POINTS) -> dict[str, list[float]]:
        """Return the curve's points, at most ``points`` of them, spread evenly along it."""
        length = np.r_[0.0, np.cumsum(np.abs(np.diff(self.x)) + np.abs(np.diff(self.y)))]
        even = np.searchsorted(length, np.linspace(0, length[-1], points))
        chosen = np.unique(even) if len(self.x) > points else slice(None)
        return {"x": self.x[chosen].round(_DECIMALS).tolist(), "y": self.y[chosen].round(_DECIMALS).tolist()}


def roc(probabilities: Floats, labels: Ints) -> dict[int, Curve]:
    """Compute each class's true over its false positive rate, from 0 to 1, and the area under it.

    The probabilities are ``(N, C)``, the labels ``(N,)``. The curves are by the class's index, without classes that no
    image or every image has.
    """
    curves = {}
    for c in range(probabilities.shape[1]):
        of_class, scores = labels == c, probabilities[:, c]
        if 0 < of_class.sum() < len(labels):
            false, true, _ = roc_curve(of_class, scores)
            curves[c] = Curve(false, true, float(roc_auc_score(of_class, scores)))
    return curves


def precision_recall(probabilities: Floats, labels: Ints) -> dict[int, Curve]:
    """Compute each class's precision over its recall, from 1 to 0, and the average precision, as :func:`roc`.

    A point's precision applies to all recalls down to the next point's: the curve is a step function.
    """
    curves = {}
    for c in range(probabilities.shape[1]):
        of_class, scores = labels == c, probabilities[:, c]
        if of_class.any():
            precision, recall, _ = precision_recall_curve(of_class, scores, drop_intermediate=True)
            curves[c] = Curve(recall, precision, float(average_precision_score(of_class, scores)))
    return curves


def curves_json(classes: Sequence[str], labels: Ints, groups: Ints, before: Floats, after: Floats) -> dict[str, Any]:
    """Return all curves, JSON-ready: ``roc`` and ``pr`` by class, and ``reliability`` by stage of calibration.

    ``before`` and ``after`` are the probabilities before and after it, ``(N, C)``. The bins of ``reliability`` have the
    limits, ``low`` and ``high``, within which a calibrated model's accuracy lies in 95 % of samples.
    """
    return {
        "roc": {classes[c]: curve.to_json() for c, curve in roc(after, labels).items()},
        "pr": {classes[c]: curve.to_json() for c, curve in precision_recall(after, labels).items()},
        "reliability": {name: _bins(each, labels, groups) for name, each in (("before", before), ("after", after))},
    }


def _bins(probabilities: Floats, labels: Ints, groups: Ints) -> list[dict[str, float]]:
    """Return the bins that hold images, from the lowest to the highest confidence."""
    diagram = reliability(probabilities, labels)
    low, high = consistency_bars(probabilities, labels, groups)
    return [
        {
            "confidence": float(diagram.confidence[b]),
            "accuracy": float(diagram.accuracy[b]),
            "images": int(diagram.count[b]),
            "low": float(low[b]),
            "high": float(high[b]),
        }
        for b in np.flatnonzero(diagram.count)
    ]
