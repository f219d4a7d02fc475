"""Whether an image is like the training images: three measures, combined into one p-value.

The measures are the distance of the network's features from those of the training images, the distance of the
picture's plain numbers from those of its nearest training images, and how much nearer it is to turned training images
than to upright ones. Each is put on a common scale by the calibration images, the largest counts, and its rank among
theirs gives a conformal p-value (Vovk, Gammerman and Shafer, 2005; Bates, Candès, Lei, Romano and Sesia, "Testing for
outliers with conformal p-values", 2023): of images like the calibration images a share ``level`` is called foreign.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import BundleError
from lesion.domain.appearance import describe_appearance
from lesion.domain.feature_distance import FeatureDistance
from lesion.domain.neighbors import mean_distance
from lesion.domain.orientation import TURNS, describe_orientation, turned

LEVEL = 0.05
REFERENCES = 400  # training images whose appearance and orientation are kept
_APPEARANCE_NEIGHBORS, _ORIENTATION_NEIGHBORS = 5, 3
_FLAT = 1e-3  # a deviation of a number among the training images that counts as none
_TAIL, _TAIL_DEVIATIONS = 0.95, 1.645  # a quantile, and where a normal distribution has it
_FENCE = 3.0  # interquartile ranges above the upper quartile: a calibration image beyond is a stray
_MOST_STRAYS = 0.02

Floats = NDArray[np.floating[Any]]


class Views(NamedTuple):
    """What is looked at of images."""

    features: NDArray[np.float32]  # (N, D) the network's pooled features
    appearance: NDArray[np.float32]  # (N, 53)
    orientation: NDArray[np.float32]  # (N, WIDTH)

    @classmethod
    def of(cls, features: NDArray[np.float32], images: NDArray[np.uint8]) -> Self:
        """Describe images, (N, S, S, 3) uint8, whose features are (N, D)."""
        return cls(features, describe_appearance(images), describe_orientation(images))


class Judgement(NamedTuple):
    """Whether images are like the training images."""

    p_values: NDArray[np.float64]  # (B,) in (0, 1]: the share of calibration images that are at least as unusual
    distances: NDArray[np.float64]  # (B,) 1 at the border of the domain; the larger, the less alike


@dataclass(frozen=True, eq=False)
class Domain:
    """The training images, and how the calibration images lie among them."""

    features: FeatureDistance
    center: NDArray[np.float32]  # (53,) of the appearance of training images
    scale: NDArray[np.float32]  # (53,)
    appearance: NDArray[np.float32]  # (R, 53) centered and scaled
    orientation: NDArray[np.float32]  # (R, WIDTH)
    middles: NDArray[np.float64]  # (3,) medians of the calibration images' measures
    spreads: NDArray[np.float64]  # (3,) their deviations, as their upper tails have them
    scores: NDArray[np.float64]  # (M,) of the calibration images, ascending
    strays: int = 0  # calibration images that were left out, since they are unlike all others

    @classmethod
    def fit(cls, training: Views, calibration: Views) -> Self:
        """Fit training images and rank calibration images among them.

        Too few images, or features that are not finite, are a BundleError (``domain_unfit``).
        """
        counts = len(training.features), len(calibration.features)
        finite = all(np.isfinite(array).all() for array in (*training, *calibration))
        if counts[0] < 2 or counts[1] < 1 or not finite:
            raise BundleError(
                f"The domain cannot be fitted on {counts[0]} training and {counts[1]} calibration images: finite "
                "features of at least 2 and 1 are needed. Did the training diverge?",
                code="domain_unfit",
            )
        rows = np.unique(np.linspace(0, counts[0] - 1, min(counts[0], REFERENCES)).round().astype(int))
        center = training.appearance.mean(axis=0)
        scale = training.appearance.std(axis=0) + np.float32(_FLAT)
        kept = (training.appearance[rows] - center) / scale, training.orientation[rows]
        none = np.zeros(3), np.ones(3), np.zeros(0)
        unranked = cls(FeatureDistance.fit(training.features), center, scale, *kept, *none)
        measures = unranked.measure(calibration)
        middles, tails = np.quantile(measures, [0.5, _TAIL], axis=0)
        spreads = np.maximum((tails - middles) / _TAIL_DEVIATIONS, 1e-6)
        scores = np.sort(((measures - middles) / spreads).max(axis=1))
        strays = _count_strays(scores)
        kept_scores = scores[: len(scores) - strays]
        return cls(unranked.features, center, scale, *kept, middles, spreads, kept_scores, strays)

    def measure(self, views: Views) -> NDArray[np.float64]:
        """Return the three measures of images as logarithms, (B, 3); the larger, the less alike."""
        normal = (views.appearance - self.center) / self.scale
        upright = mean_distance(views.orientation, self.orientation, _ORIENTATION_NEIGHBORS)
        other = np.min(
            [
                mean_distance(views.orientation, turned(self.orientation, turn), _ORIENTATION_NEIGHBORS)
                for turn in TURNS
            ],
            axis=0,
        )
        near = np.stack(
            [
                self.features(views.features),
                mean_distance(normal, self.appearance, _APPEARANCE_NEIGHBORS),
                (upright + _FLAT) / (other + _FLAT),
            ],
            axis=1,
        )
        return np.log(near.astype(np.float64) + 1e-12)

    def judge(self, views: Views, level: float = LEVEL) -> Judgement:
        """Judge images: with a p-value above ``level`` they are in the domain, and their distance is at most 1.

        With M calibration images the smallest p-value is 1 / (M + 1): where it is above the level, the most unusual
        calibration image is the border.
        """
        measures = self.measure(views)
        scores = ((measures - self.middles) / self.spreads).max(axis=1)
        count = len(self.scores)
        above = count - np.searchsorted(self.scores, scores, side="left")
        # as many calibration images may lie above the border as the level allows
        border = self.scores[count - max(int(np.floor(level * (count + 1) + 1e-9)), 1)]
        distances = np.exp((measures - (self.middles + border * self.spreads)).max(axis=1))
        return Judgement((1 + above) / (count + 1), distances)


def _count_strays(scores: Floats) -> int:
    """Return how many of sorted scores lie far above all others; at most one in fifty, and at least one may."""
    low, high = np.quantile(scores, [0.25, 0.75])
    beyond = int((scores > high + _FENCE * (high - low)).sum())
    return min(beyond, max(1, int(_MOST_STRAYS * len(scores))), len(scores) - 1)
