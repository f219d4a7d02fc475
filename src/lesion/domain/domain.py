"""Whether an image is like the training images: three measures, each ranked among those of known images.

The measures are the distance of the network's features from those of the training images, the distance of the
picture's plain numbers from those of its nearest training images, and how much it seems to be turned. Its rank among
the measures of images that took no part in fitting them gives each a conformal p-value (Vovk, Gammerman and Shafer,
2005; Bates, Candès, Lei, Romano and Sesia, "Testing for outliers with conformal p-values", 2023). Each measure has a
share of the level (Bonferroni, weighted), so that of images like the training images at most ``level`` are called
foreign. The pictures of the training images are ranked too, by measures that were fitted without their groups
(cross-conformal prediction: Vovk, 2015): with few calibration images, these alone would leave the border to chance.
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
# The share of the level that features, appearance and orientation have. Pictures of another kind have distances far
# beyond all known ones, turned ones do not: so most of it is left for the third measure.
SHARES = (0.2, 0.2, 0.6)
_FOLDS = 5
_LEAST_DISTANCE = 1e-12  # so that it has a logarithm
_FENCE = 3.0  # interquartile ranges above the upper quartile: a known image beyond is a stray
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

    p_values: NDArray[np.float64]  # (B,) in (0, 1]: at most this share of images like the training images is so unusual
    distances: NDArray[np.float64]  # (B,) 1 at the border of the domain; the larger, the less alike

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Whether each image is in the domain, (B,)."""
        return self.distances <= 1


@dataclass(frozen=True, eq=False, slots=True)
class Domain:
    """The training images, and how known images lie among them.

    Bundles of formats 2 and 3 measured features alone, and kept the border: their domains have no ``pictures``. Those
    of format 4 put the three measures on one ``scale`` and ranked the largest.
    """

    features: FeatureDistance
    pictures: tuple[AppearanceDistance, OrientationDiscriminant] | None
    known: tuple[NDArray[np.float64], ...]  # K arrays: each measure of images that did not fit it, ascending
    shares: tuple[float, ...]  # K: what each measure has of the level; together 1
    strays: int = 0  # known images that were left out, since they are unlike all others
    scale: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None  # middles and spreads, (3,) each

    @classmethod
    def fit(
        cls, training: Descriptions, calibration: Descriptions, groups: NDArray[np.integer[Any]] | None = None
    ) -> Self:
        """Fit training images, and rank calibration images and the pictures of training images among them.

        ``groups`` has an equal number, (N,), for training images that belong together; each is alone without it. Too
        few images, or features that are not finite, are a BundleError (``domain_unfit``).
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
        measures = [_measure_features(features, calibration), *_measure_pictures(pictures, calibration)]
        numbers = np.arange(counts[0]) if groups is None else np.unique(groups, return_inverse=True)[1]
        for place, held_out in enumerate(_measure_held_out(training, numbers), start=1):
            measures[place] = np.concatenate([measures[place], held_out])
        known = [np.sort(values) for values in measures]
        strays = [_count_strays(values) for values in known]
        kept = tuple(values[: len(values) - count] for values, count in zip(known, strays, strict=True))
        return cls(features, pictures, kept, SHARES, max(strays))

    @property
    def calibration_images(self) -> int:
        """The number of images that the border of the features comes from."""
        return len(self.known[0])

    def judge(self, features: NDArray[np.float32], images: NDArray[np.uint8], level: float = LEVEL) -> Judgement:
        """Judge images, (B, S, S, 3) uint8, by their features, (B, D), and pictures.

        An image with a p-value above ``level`` is in the domain. Where the images that a measure is ranked among are
        too few for its share of the level, the most unusual of them is the border.
        """
        if self.pictures is not None:
            return self.judge_descriptions(Descriptions.of(features, images), level)
        return self._judge_measures(_logarithms(self.features(features))[:, None], level)

    def judge_descriptions(self, images: Descriptions, level: float = LEVEL) -> Judgement:
        """Judge images by their descriptions; see :meth:`judge`. Domains of formats 2 and 3 cannot."""
        assert self.pictures is not None
        measures = [_measure_features(self.features, images), *_measure_pictures(self.pictures, images)]
        return self._judge_measures(np.stack(measures, axis=1), level)

    def _judge_measures(self, measures: NDArray[np.float64], level: float) -> Judgement:
        """Judge images by their measures, (B, K)."""
        if self.scale is not None:
            middles, spreads = self.scale
            measures = ((measures - middles) / spreads).max(axis=1, keepdims=True)
        p_values, beyond = np.ones(len(measures)), np.full(len(measures), -np.inf)
        for values, known, share in zip(measures.T, self.known, self.shares, strict=True):
            above = len(known) - np.searchsorted(known, values, side="left")
            p_values = np.minimum(p_values, (1 + above) / (len(known) + 1) / share)
            # as many known images may lie above the border as the level allows
            allowed = max(int(np.floor(level * share * (len(known) + 1) + 1e-9)), 1)
            beyond = np.maximum(beyond, values - known[len(known) - allowed])
        return Judgement(p_values, np.exp(beyond))


def _measure_features(features: FeatureDistance, images: Descriptions) -> NDArray[np.float64]:
    """Return the logarithms of the distances of images' features, (B,)."""
    return _logarithms(features(images.features))


def _measure_pictures(
    pictures: tuple[AppearanceDistance, OrientationDiscriminant], images: Descriptions
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the logarithms of the distances of images' appearance, and how much they seem to be turned, (B,) each."""
    appearance, orientation = pictures
    return _logarithms(appearance(images.appearance)), orientation(images.orientation).astype(np.float64)


def _logarithms(distances: Floats) -> NDArray[np.float64]:
    return np.log(distances.astype(np.float64) + _LEAST_DISTANCE)


def _measure_held_out(
    training: Descriptions, groups: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the measures of training pictures under fits without their groups; of less than two groups, none."""
    parts: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    folds = groups % _FOLDS
    for fold in np.unique(folds):
        rest = Descriptions(*(part[folds != fold] for part in training))
        if len(rest.features):
            fitted = AppearanceDistance.fit(rest.appearance), OrientationDiscriminant.fit(rest.orientation)
            parts.append(_measure_pictures(fitted, Descriptions(*(part[folds == fold] for part in training))))
    if not parts:
        return np.empty(0), np.empty(0)
    appearance, orientation = (np.concatenate(each) for each in zip(*parts, strict=True))
    return appearance, orientation


def _count_strays(known: Floats) -> int:
    """Return how many of sorted measures lie far above all others; at most one in fifty, and at least one may."""
    low, high = np.quantile(known, [0.25, 0.75])
    beyond = int((known > high + _FENCE * (high - low)).sum())
    return min(beyond, max(1, int(_MOST_STRAYS * len(known))), len(known) - 1)
