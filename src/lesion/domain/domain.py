"""Whether an image is like the training images: three measures, combined into one p-value.

The measures are the distance of the network's features from those of the training images, the distance of the
picture's plain numbers from those of its nearest training images, and how much it seems to be turned. Each is put on a
common scale by the calibration images, the largest counts, and its rank among theirs gives a conformal p-value (Vovk,
Gammerman and Shafer, 2005; Bates, Candès, Lei, Romano and Sesia, "Testing for outliers with conformal p-values",
2023): of images like the calibration images a share ``level`` is called foreign.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import BundleError
from lesion.domain.appearance import AppearanceDistance, describe_appearance
from lesion.domain.feature_distance import FeatureDistance
from lesion.domain.reduction import reduce_pictures
from lesion.domain.turned_pictures import OrientationDiscriminant, describe_orientation

LEVEL = 0.05  # the share of images like the training images that are called foreign
MEASURES = 3
# Deviations that the two distances may be larger: pictures of another kind lie far beyond, turned ones do not. So most
# of the level is left for the third measure.
_MARGINS = np.array([0.7, 0.7, 0.0])
_TAIL, _TAIL_DEVIATIONS = 0.95, 1.645  # a quantile, and where a normal distribution has it
_LEAST_SPREAD = 1e-6
_FENCE = 3.0  # interquartile ranges above the upper quartile: a calibration image beyond is a stray
_MOST_STRAYS = 0.02

Floats = NDArray[np.floating[Any]]


class Descriptions(NamedTuple):
    """What is compared of images."""

    features: NDArray[np.float32]  # (N, D) the network's pooled features
    appearance: NDArray[np.float32]  # (N, 53)
    orientation: NDArray[np.float32]  # (N, 656)

    @classmethod
    def of(cls, features: NDArray[np.float32], images: NDArray[np.uint8]) -> Self:
        """Describe images, (N, S, S, 3) uint8, whose features are (N, D)."""
        reduced = reduce_pictures(images)
        return cls(features, describe_appearance(images, reduced), describe_orientation(reduced))


class Judgement(NamedTuple):
    """Whether images are like the training images."""

    p_values: NDArray[np.float64]  # (B,) in (0, 1]: the share of calibration images that are at least as unusual
    distances: NDArray[np.float64]  # (B,) 1 at the border of the domain; the larger, the less alike

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Whether each image is in the domain, (B,)."""
        return self.distances <= 1


@dataclass(frozen=True, eq=False, slots=True)
class Domain:
    """The training images, and how the calibration images lie among them.

    Bundles of formats 2 and 3 measured features alone, and kept of their calibration images the border: their domains
    have no ``pictures``, and one score.
    """

    features: FeatureDistance
    pictures: tuple[AppearanceDistance, OrientationDiscriminant] | None
    middles: NDArray[np.float64]  # (K,) where the scale of each measure begins
    spreads: NDArray[np.float64]  # (K,) the calibration images' deviations, as their upper tails have them
    scores: NDArray[np.float64]  # (M,) of the calibration images, ascending
    strays: int = 0  # calibration images that were left out, since they are unlike all others

    @classmethod
    def fit(cls, training: Descriptions, calibration: Descriptions) -> Self:
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
        features = FeatureDistance.fit(training.features)
        pictures = AppearanceDistance.fit(training.appearance), OrientationDiscriminant.fit(training.orientation)
        measures = _measure(features, pictures, calibration)
        medians, tails = np.quantile(measures, [0.5, _TAIL], axis=0)
        spreads = np.maximum((tails - medians) / _TAIL_DEVIATIONS, _LEAST_SPREAD)
        middles = medians + _MARGINS * spreads
        scores = np.sort(((measures - middles) / spreads).max(axis=1))
        strays = _count_strays(scores)
        return cls(features, pictures, middles, spreads, scores[: len(scores) - strays], strays)

    def judge(self, features: NDArray[np.float32], images: NDArray[np.uint8], level: float = LEVEL) -> Judgement:
        """Judge images, (B, S, S, 3) uint8, by their features, (B, D), and pictures.

        An image with a p-value above ``level`` is in the domain. With M calibration images the smallest p-value is
        1 / (M + 1): where this is above the level, the most unusual calibration image is the border.
        """
        if self.pictures is None:
            measures = np.log(self.features(features).astype(np.float64) + 1e-12)[:, None]
        else:
            measures = _measure(self.features, self.pictures, Descriptions.of(features, images))
        return self.judge_measures(measures, level)

    def judge_measures(self, measures: NDArray[np.float64], level: float = LEVEL) -> Judgement:
        """Judge images by their measures, (B, K); see :meth:`judge`."""
        scores = ((measures - self.middles) / self.spreads).max(axis=1)
        count = len(self.scores)
        above = count - np.searchsorted(self.scores, scores, side="left")
        # as many calibration images may lie above the border as the level allows
        border = self.scores[count - max(int(np.floor(level * (count + 1) + 1e-9)), 1)]
        distances = np.exp((measures - (self.middles + border * self.spreads)).max(axis=1))
        return Judgement((1 + above) / (count + 1), distances)


def _measure(
    features: FeatureDistance, pictures: tuple[AppearanceDistance, OrientationDiscriminant], images: Descriptions
) -> NDArray[np.float64]:
    """Return the measures of images, (B, 3), the distances as logarithms; the larger, the less alike."""
    appearance, orientation = pictures
    distances = np.stack([features(images.features), appearance(images.appearance)], axis=1).astype(np.float64)
    return np.column_stack([np.log(distances + 1e-12), orientation(images.orientation)])


def _count_strays(scores: Floats) -> int:
    """Return how many of sorted scores lie far above all others; at most one in fifty, and at least one may."""
    low, high = np.quantile(scores, [0.25, 0.75])
    beyond = int((scores > high + _FENCE * (high - low)).sum())
    return min(beyond, max(1, int(_MOST_STRAYS * len(scores))), len(scores) - 1)
