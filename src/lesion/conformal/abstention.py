"""Abstention: answers that are not given, so that of those that are given few are wrong."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from lesion.conformal.ranks import Floats, Ints
from lesion.core.text import format_count, format_percent

AbstentionReason = Literal["not_recognized", "unsure"]  # the image is not in the domain, or its class is unsure
ERROR = 0.05  # the highest share of wrong answers among those that are given
LEAST_CONFIDENCE = 0.6  # below it every answer is withheld, whatever the calibration images show
RISK = 0.05  # the probability that a calibration set gives a threshold that does not keep to it
# The shares of answers that are tried, from the most confident ones to all, and where a part of the risk is kept for a
# new start, so that one unlucky error among the most confident answers does not end the search.
_SHARES = tuple(percent / 100 for percent in range(30, 101, 2))
_STARTS = (0.5, 0.74, 0.9, 1.0)


@dataclass(frozen=True)
class Abstention:
    """From which confidence on an answer is given, so that at most a share ``error`` of the given ones is wrong."""

    confidence: float | None  # None: the images are too few, or too many answers are wrong, for any promise
    error: float = ERROR
    risk: float = RISK
    groups: int = 0  # of calibration images

    @classmethod
    def fit(
        cls,
        probabilities: Floats,
        labels: Ints,
        groups: Ints,
        error: float = ERROR,
        risk: float = RISK,
        seed: int = 0,
    ) -> Self:
        """Choose the lowest confidence that keeps the promise, on images that neither trained nor test the model.

        Growing shares of the most confident answers are tested, each by an exact binomial test of whether more than
        ``error`` of them are wrong (Geifman and El-Yaniv, "Selective classification for deep neural networks", 2017;
        Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then test", 2021). A share that passes hands its risk on to
        the next one; at four of the shares a quarter of the risk is added (Wiens and Dmitrienko, "The fallback
        procedure", 2005). Images of a group are not independent, so that one of each, drawn at random, takes part.

        Args:
            probabilities: ``(N, C)``, calibrated.
            labels: ``(N,)`` indices below C.
            groups: ``(N,)`` integers; images that belong together share one.
            error: In (0, 1).
            risk: The probability, over calibration sets, that the promise is not kept; in (0, 1).
            seed: Of the draw.
        """
        from scipy.stats import binom  # here, since a server needs no more than the threshold

        rows = _one_per_group(np.asarray(groups), seed)
        confidence = np.asarray(probabilities[rows].max(axis=1), dtype=np.float64)
        wrong = np.asarray(probabilities[rows].argmax(axis=1) != np.asarray(labels)[rows])
        lowest, at_risk = None, 0.0
        for share in _SHARES:
            at_risk += risk / len(_STARTS) if share in _STARTS else 0.0
            candidate = 0.0 if share == 1 else float(np.quantile(confidence, 1 - share, method="lower"))
            candidate = max(candidate, LEAST_CONFIDENCE)
            answered = confidence >= candidate
            if binom.cdf(wrong[answered].sum(), answered.sum(), error) <= at_risk:
                lowest = candidate
            else:
                at_risk = 0.0
        return cls(lowest, error, risk, len(rows))

    def abstains(self, confidence: float) -> bool:
        """Return whether an answer of this confidence is withheld."""
        return confidence < max(LEAST_CONFIDENCE, self.confidence or 0.0)

    def notes(self) -> list[str]:
        """Return, as at most one sentence, that nothing is promised about the given answers."""
        if self.confidence is not None:
            return []
        return [
            f"Nothing is promised about the share of wrong answers: {format_count(self.groups, 'group')} of "
            f"calibration images do not show, for any confidence, that at most {format_percent(self.error)} are wrong."
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the fields, JSON-ready."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_json` wrote; anything else is a ValueError, TypeError or KeyError."""
        confidence = None if value["confidence"] is None else float(value["confidence"])
        error, risk = float(value["error"]), float(value["risk"])
        if not all(0 <= number <= 1 for number in (confidence or 0.0, error, risk)):
            raise ValueError("the confidence, error and risk of an abstention are between 0 and 1")
        return cls(confidence, error, risk, int(value["groups"]))


def _one_per_group(groups: NDArray[np.integer[Any]], seed: int) -> NDArray[np.int64]:
    """Return one row of each group, drawn at random."""
    shuffled = np.random.default_rng(seed).permutation(len(groups))
    _, first = np.unique(groups[shuffled], return_index=True)
    return np.asarray(np.sort(shuffled[first]), dtype=np.int64)
