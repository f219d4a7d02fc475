"""How much covering each place of an image changes its answer: occlusion at two resolutions, without gradients.

Squares of the image are covered with a heavily blurred copy of it, one after the other (Zeiler and Fergus, "Visualizing
and understanding convolutional networks", 2014; the blur is that of Fong and Vedaldi, 2017): large ones everywhere,
then small ones where the large ones changed the answer most. What counts is by how much the logarithm of the class's
odds falls. So a map is made of 72 further passes through the network, whatever its architecture.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GRID = 12  # places per side of the map
_COARSE_PLACES, _COARSE_SIDE = 6, 0.3  # per side; the side of a square as a share of the image's
_FINE_SIDE = 1 / 6
_FINE_SQUARES = 36
PASSES = _COARSE_PLACES**2 + _FINE_SQUARES
_BLUR = 6  # pixels per side of the image that, enlarged, is the cover
_LEAST = 1e-30  # added to probabilities before their logarithm is taken

Image8 = NDArray[np.uint8]  # (S, S, 3) RGB
Boxes = NDArray[np.int64]  # (N, 4): the top, bottom, left and right of squares; bottom and right are not part of them
Odds = NDArray[np.float64]  # (N, 2): the probability of the class and the sum of all others


@dataclass(frozen=True, eq=False, slots=True)
class OcclusionMap:
    """What covering an image's places did to the answer for one class."""

    heat: NDArray[np.float32]  # (S, S) in [0, 1]; all zeros where no square lowered the odds
    effect: float  # by how much the logarithm of the odds fell at most; 0 if it never did
    probability: float  # of the class, uncovered
    covered_probability: float  # of the class, under the square with the largest effect


def occlusion_map(image: Image8, odds: Callable[[NDArray[np.uint8]], Odds]) -> OcclusionMap:
    """Map an image; ``odds`` returns those of some images, (N, S, S, 3) uint8."""
    coarse = coarse_boxes(len(image))
    before, after = odds(image[None]), odds(cover(image, coarse))
    fine = fine_boxes(len(image), effects(before, after))
    return combine(len(image), before, after, fine, odds(cover(image, fine)))


def coarse_boxes(size: int) -> Boxes:
    """Return the large squares, (36, 4), of an image of this side."""
    places = np.arange(_COARSE_PLACES**2)
    return _boxes(size, places, _COARSE_PLACES, _COARSE_SIDE)


def fine_boxes(size: int, coarse_effects: NDArray[np.float64]) -> Boxes:
    """Return the small squares, (36, 4), that lie where the large ones, (36,), had the largest effects."""
    cells = _cell_means(_mean_effects(size, coarse_boxes(size), coarse_effects)).ravel()
    places = np.sort(np.argsort(-cells, kind="stable")[:_FINE_SQUARES])
    return _boxes(size, places, GRID, _FINE_SIDE)


def cover(image: Image8, boxes: Boxes) -> NDArray[np.uint8]:
    """Return copies of an image, (N, S, S, 3), each with one square blurred."""
    small = Image.fromarray(image).resize((_BLUR, _BLUR), Image.Resampling.BOX)
    blurred = np.asarray(small.resize((len(image), len(image)), Image.Resampling.BICUBIC))
    copies = np.repeat(image[None], len(boxes), axis=0)
    for copy, (top, bottom, left, right) in zip(copies, boxes, strict=True):
        copy[top:bottom, left:right] = blurred[top:bottom, left:right]
    return copies


def effects(before: Odds, after: Odds) -> NDArray[np.float64]:
    """Return by how much the logarithm of the odds fell, (N,), from before, (1, 2), to after, (N, 2); 0 if it rose."""
    fallen: NDArray[np.float64] = np.maximum(_log_odds(before) - _log_odds(after), 0)
    return fallen


def combine(size: int, before: Odds, coarse_odds: Odds, fine: Boxes, fine_odds: Odds) -> OcclusionMap:
    """Make the map from what was measured.

    A place's heat is the mean effect of the small squares that cover it, times the square root of that of the large
    ones. Where no small square lay, the least heat of those places stands for it.
    """
    large, small = effects(before, coarse_odds), effects(before, fine_odds)
    every, every_odds = np.concatenate([large, small]), np.concatenate([coarse_odds, fine_odds])
    strongest = int(every.argmax())
    wide, near = _mean_effects(size, coarse_boxes(size), large), _mean_effects(size, fine, small)
    heat = np.where(np.isnan(near), np.nanmin(near), near) * np.sqrt(wide)
    smooth = Image.fromarray(_cell_means(heat)).resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(smooth, np.float32)
    return OcclusionMap(
        heat=pixels / max(np.float32(pixels.max()), np.float32(_LEAST)),
        effect=float(every[strongest]),
        probability=float(before[0, 0]),
        covered_probability=float(every_odds[strongest, 0]),
    )


def _boxes(size: int, places: NDArray[np.int64], grid: int, side: float) -> Boxes:
    centers = np.stack([places // grid, places % grid], axis=1) * (size / grid) + size / grid / 2
    low = np.clip(np.round(centers - side * size / 2), 0, size - 1).astype(np.int64)
    high = np.clip(np.round(centers + side * size / 2), low + 1, size).astype(np.int64)
    return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)


def _mean_effects(size: int, boxes: Boxes, fallen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each pixel, (S, S), the mean effect of the squares that cover it; NaN where none does."""
    total, count = np.zeros((size, size)), np.zeros((size, size))
    for (top, bottom, left, right), effect in zip(boxes, fallen, strict=True):
        total[top:bottom, left:right] += effect
        count[top:bottom, left:right] += 1
    with np.errstate(invalid="ignore"):
        means: NDArray[np.float64] = total / count
    return means


def _cell_means(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the means of an image's cells, (12, 12)."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((GRID, GRID), Image.Resampling.BOX))


def _log_odds(odds: Odds) -> NDArray[np.float64]:
    logarithms = np.log(odds + _LEAST)
    return np.asarray(logarithms[:, 0] - logarithms[:, 1])
