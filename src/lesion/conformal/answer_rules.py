"""What decides, besides its probabilities, how a model answers: its prediction sets and when it abstains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from lesion.conformal.abstention import Abstention
from lesion.conformal.prediction_sets import PredictionSets
from lesion.conformal.ranks import Floats, Ints


@dataclass(frozen=True)
class AnswerRules:
    """The prediction sets and the abstention of a model."""

    sets: PredictionSets
    abstention: Abstention | None  # None: the share of wrong answers cannot be known; see :meth:`fit`

    @classmethod
    def fit(cls, probabilities: Floats, labels: Ints, groups: Ints, *, same_shares: bool = True) -> Self:
        """Fit both on images that neither trained nor test the model.

        Args:
            probabilities: ``(N, C)``, calibrated.
            labels: ``(N,)`` indices below C.
            groups: ``(N,)`` integers; images that belong together share one.
            same_shares: Whether the classes are as frequent where the model is used. If not, the share of wrong
                answers is another one there, and nothing is promised about it; the sets hold for each class by itself.
                Nor is anything where a class has no images.
        """
        known = same_shares and len(np.unique(labels)) == probabilities.shape[1]
        abstention = Abstention.fit(probabilities, labels, groups) if known else None
        return cls(PredictionSets.fit(probabilities, labels, groups), abstention)

    def notes(self, classes: Sequence[str]) -> list[str]:
        """Return sentences about what the calibration images are too few for."""
        return [*self.sets.notes(classes), *(self.abstention.notes() if self.abstention else ())]

    def to_json(self) -> dict[str, Any]:
        """Return both, JSON-ready."""
        return {"sets": self.sets.to_json(), "abstention": self.abstention and self.abstention.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_json` wrote; anything else is a ValueError, TypeError or KeyError."""
        abstention = value["abstention"]
        sets = PredictionSets.from_json(value["sets"])
        return cls(sets, None if abstention is None else Abstention.from_json(abstention))
