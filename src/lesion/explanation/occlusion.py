"""How much covering each place of an image changes its answer: occlusion at two resolutions, without gradients.

Squares of the image are covered, one after the other (Zeiler and Fergus, "Visualizing and understanding convolutional
networks", 2014): large ones everywhere, then small ones where the large ones changed the answer most. A cover
continues what surrounds its square, so that it adds nothing that was not there. What counts is by how much the
logarithm of the class's odds falls; within a square it counts where the cover changed the picture, which it hardly does
in the dark next to a head. So a map is made of 40 further passes through the network, whatever its architecture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion.explanation.foreground import foreground

GRID = 12  # places per side of the map
_COARSE_PLACES, _COARSE_SIDE = 4, 0.4  # per side; the side of a square as a share of the image's
_FINE_SIDE = 1 / 6
_FINE_SQUARES = 24
PASSES = _COARSE_PLACES**2 + _FINE_SQUARES
_MARGIN = 1 / 48  # of the image's side: how far around a square its cover is taken from
_CHANGED = 8  # gray levels: where a cover changes the picture as much or more, its effect counts in full
_CHANGED_PLACES = 48  # per side: how finely it is told which pixels the covers changed
_MOSTLY = 0.5
_LEAST = 1e-30  # added to probabilities before their logarithm is taken

Image8 = NDArray[np.uint8]  # (S, S, 3) RGB
Mask = NDArray[np.bool_]  # (S, S)
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
    return combine(image, before, after, fine, odds(cover(image, fine)))


def coarse_boxes(size: int) -> Boxes:
    """Return the large squares, (16, 4), of an image of this side."""
    places = np.arange(_COARSE_PLACES**2)
    return _boxes(size, places, _COARSE_PLACES, _COARSE_SIDE)


def fine_boxes(size: int, coarse_effects: NDArray[np.float64]) -> Boxes:
    """Return the small squares, (24, 4), that lie where the large ones, (16,), had the largest effects."""
    cells = _cell_means(_mean_effects(size, coarse_boxes(size), coarse_effects)).ravel()
    places = np.sort(np.argsort(-cells, kind="stable")[:_FINE_SQUARES])
    return _boxes(size, places, GRID, _FINE_SIDE)


def cover(image: Image8, boxes: Boxes) -> NDArray[np.uint8]:
    """Return copies of an image, (N, S, S, 3), each with one square covered."""
    copies, background = np.repeat(image[None], len(boxes), axis=0), ~foreground(image)
    for copy, box in zip(copies, boxes, strict=True):
        top, bottom, left, right = box
        copy[top:bottom, left:right] = _cover_of(image, background, box)
    return copies


def effects(before: Odds, after: Odds) -> NDArray[np.float64]:
    """Return by how much the logarithm of the odds fell, (N,), from before, (1, 2), to after, (N, 2); 0 if it rose."""
    fallen: NDArray[np.float64] = np.maximum(_log_odds(before) - _log_odds(after), 0)
    return fallen


def combine(image: Image8, before: Odds, coarse_odds: Odds, fine: Boxes, fine_odds: Odds) -> OcclusionMap:
    """Make the map from what was measured.

    A place's heat is the mean effect of the small squares that cover it, as far as the covers changed it, times the
    square root of that of the large ones. Where no small square lay, the least heat of those places stands for it.
    Within a place the heat lies on the pixels that the covers changed, and not in the dark beside them.
    """
    size = len(image)
    large, small = effects(before, coarse_odds), effects(before, fine_odds)
    every, every_odds = np.concatenate([large, small]), np.concatenate([coarse_odds, fine_odds])
    strongest = int(every.argmax())
    wide = _mean_effects(size, coarse_boxes(size), large)
    background = ~foreground(image)
    changes = [_changed(image, background, box) for box in fine]
    near = _mean_effects(size, fine, [effect * change for effect, change in zip(small, changes, strict=True)])
    heat = np.where(np.isnan(near), np.nanmin(near), near) * np.sqrt(wide)
    smooth = Image.fromarray(_cell_means(heat)).resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(smooth, np.float32) * _changed_pixels(image, background, fine, changes)
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


def _cover_of(image: Image8, background: Mask, box: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return what covers a square, (H, W, 3): what surrounds it, the nearer side more, without the rest of the image.

    Across and down, the means of the pixels beyond two opposite sides are interpolated. At the image's border there is
    only one side; where the square's own last pixels are background, they stand for the other, so that the cover does
    not draw what is pictured into the dark.
    """
    top, bottom, left, right = (int(edge) for edge in box)
    margin = max(2, round(_MARGIN * len(image)))
    rows, columns = slice(top, bottom), slice(left, right)
    down, across = (_places(high - low) for low, high in ((top, bottom), (left, right)))
    turned, dark = image[:, columns].swapaxes(0, 1), background[:, columns].T
    first, last = _sides(turned, dark, top, bottom, margin)  # (W, 3) each
    vertical = first[None] * (1 - down)[:, None, None] + last[None] * down[:, None, None]
    first, last = _sides(image[rows], background[rows], left, right, margin)  # (H, 3) each
    horizontal = first[:, None] * (1 - across)[None, :, None] + last[:, None] * across[None, :, None]
    nearness = [1 / np.minimum(places, 1 - places) for places in (down, across)]
    weight = (nearness[0][:, None] / (nearness[0][:, None] + nearness[1][None, :]))[..., None]
    return np.asarray(vertical * weight + horizontal * (1 - weight) + 0.5, np.uint8)


def _places(count: int) -> NDArray[np.float64]:
    """Return where the middles of so many pixels lie between 0 and 1."""
    return (np.arange(count) + 0.5) / count


def _sides(
    lines: NDArray[np.uint8], dark: Mask, low: int, high: int, margin: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means, (N, 3) each, of the pixels beyond two ends of a part of N lines of an image, (N, S, 3).

    Args:
        lines: The lines that the part is of, from one border of the image to the other.
        dark: Which of their pixels are background, (N, S).
        low: Where the part begins.
        high: Where it ends.
        margin: How many pixels are looked at.
    """
    beyond = [lines[:, max(low - margin, 0) : low], lines[:, high : high + margin]]
    own = [slice(low, min(low + margin, high)), slice(max(high - margin, low), high)]
    means = [pixels.mean(axis=1) if pixels.shape[1] else None for pixels in beyond]
    known = means[0] if means[1] is None else means[1]
    if known is None:  # the part is as wide as the image
        known = lines.mean(axis=1)
    found = []
    for mean, pixels in zip(means, own, strict=True):
        is_dark = dark[:, pixels].mean(axis=1) > _MOSTLY
        found.append(mean if mean is not None else np.where(is_dark[:, None], lines[:, pixels].mean(axis=1), known))
    return found[0], found[1]


def _changed(image: Image8, background: Mask, box: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return for each pixel of a square, (H, W), whether its cover changes it, from 0 to 1."""
    top, bottom, left, right = box
    change = np.abs(_cover_of(image, background, box) - image[top:bottom, left:right].astype(np.float64)).mean(axis=2)
    return np.asarray(np.minimum(change / _CHANGED, 1))


def _changed_pixels(
    image: Image8, background: Mask, fine: Boxes, changes: Sequence[NDArray[np.float64]]
) -> NDArray[np.float32]:
    """Return for each pixel, (S, S), whether covers change it, from 0 to 1; large ones where there is no small one."""
    size, large = len(image), coarse_boxes(len(image))
    near, wide = (
        _mean_effects(size, boxes, found)
        for boxes, found in ((fine, changes), (large, [_changed(image, background, box) for box in large]))
    )
    changed = Image.fromarray(np.where(np.isnan(near), wide, near).astype(np.float32))
    reduced = changed.resize((_CHANGED_PLACES, _CHANGED_PLACES), Image.Resampling.BOX)
    return np.asarray(reduced.resize((size, size), Image.Resampling.BILINEAR))


def _mean_effects(
    size: int, boxes: Boxes, fallen: NDArray[np.float64] | Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return for each pixel, (S, S), the mean effect of the squares that cover it; NaN where none does.

    The effect of a square is a number, or one for each of its pixels, (H, W).
    """
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
