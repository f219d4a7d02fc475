"""The scores of several trainings on different parts of the same data, and how far they hold for the next one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lesion.evaluation.findings import TITLES, UNBOUNDED
from lesion.evaluation.intervals.estimates import ALPHA


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """Repeated k-fold cross-validation: every image is tested once in each repeat, by a model that did not see it."""

    folds: int
    repeats: int
    scores: tuple[Mapping[str, float], ...]  # of each training, by key of ``TITLES``; NaN where undefined
    test_images: tuple[int, ...]  # of each training
    ratio: float  # of test to training images

    def mean(self, key: str) -> float:
        """Return the mean of a score over the trainings."""
        return float(np.mean([scores[key] for scores in self.scores]))

    def interval(self, key: str) -> tuple[float, float]:
        """Return the 95 % interval of a score's mean, for a training on other data of this size; NaN if undefined.

        The trainings share most of their images, so that their scores vary less than those of independent data would.
        The variance is therefore enlarged by the ratio of test to training images (Nadeau and Bengio, "Inference for
        the generalization error", 2003).
        """
        from scipy.stats import t

        values = np.array([scores[key] for scores in self.scores])
        if len(values) < 2 or np.isnan(values).any():
            return float("nan"), float("nan")
        variance = (1 / len(values) + self.ratio) * float(values.var(ddof=1))
        reach = float(t.ppf(1 - ALPHA / 2, len(values) - 1) * np.sqrt(variance))
        middle = float(values.mean())
        return max(middle - reach, 0.0), middle + reach if key in UNBOUNDED else min(middle + reach, 1.0)

    def metrics(self) -> dict[str, float]:
        """Return means and limits as one flat table: ``folds/<key>``, ``folds/<key>_low`` and ``folds/<key>_high``."""
        flat: dict[str, float] = {}
        for key in TITLES:
            low, high = self.interval(key)
            flat |= {f"folds/{key}": self.mean(key), f"folds/{key}_low": low, f"folds/{key}_high": high}
        return flat

    def finding(self) -> str:
        """Return the accuracies as a sentence."""
        low, high = self.interval("acc")
        accuracies = [scores["acc"] for scores in self.scores]
        text = (
            f"Trained {len(self.scores)} times, each time without another fold of {self.folds} and tested on it, the "
            f"accuracy is {self.mean('acc'):.3f} on average, from {min(accuracies):.3f} to {max(accuracies):.3f}"
        )
        if np.isnan(low):
            return f"{text}."
        return f"{text}; the mean's 95 % interval, corrected for what the trainings share, is {low:.3f} to {high:.3f}."

    def to_json(self) -> dict[str, Any]:
        """Return everything, JSON-ready but for NaN."""
        return {
            "folds": self.folds,
            "repeats": self.repeats,
            "scores": [dict(scores) for scores in self.scores],
            "test_images": list(self.test_images),
            "mean": {key: self.mean(key) for key in TITLES},
            "interval": {key: list(self.interval(key)) for key in TITLES},
        }
