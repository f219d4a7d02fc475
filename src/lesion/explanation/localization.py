"""Whether a heat map points at a mask: the pointing game, the overlap, the share of heat inside."""

import numpy as np
from numpy.typing import NDArray

_TIE = 1e-5  # of the highest heat: what is as high belongs to the plateau


def hottest_point(heat: NDArray[np.floating]) -> tuple[float, float]:
    """Return the row and column of the middle of the highest plateau of a map, (H, W).

    Where several places are equally high, the middle of them all may lie between them; then it is the one next to it.
    """
    rows, columns = np.nonzero(heat >= heat.max() - _TIE * abs(heat.max()))
    middle = rows.mean(), columns.mean()
    nearest = int(np.argmin((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2))
    apart = np.hypot(rows[nearest] - middle[0], columns[nearest] - middle[1])
    return (float(rows[nearest]), float(columns[nearest])) if apart > 1 else (float(middle[0]), float(middle[1]))


def distance_to_mask(heat: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Return how many pixels the hottest point lies from the nearest pixel of a mask, (H, W), which is not empty.

    The pointing game (Zhang et al., "Top-down neural attention by excitation backprop", 2018) counts a hit up to 15
    pixels in an image of about 224.
    """
    row, column = hottest_point(heat)
    rows, columns = np.nonzero(mask)
    return float(np.hypot(rows - row, columns - column).min())


def overlap(heat: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Return the intersection over union of a mask and as many of the hottest pixels, ties left out, in [0, 1]."""
    area = int(mask.sum())
    threshold = np.partition(heat.ravel(), -area)[-area]
    hot = heat >= threshold
    if hot.sum() > 2 * area:  # most of the map is one plateau
        hot = heat > threshold
    return float((hot & mask).sum() / (hot | mask).sum())


def share_inside(heat: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Return the share of the heat inside a mask, in [0, 1]; 0 for a map without heat."""
    total = float(heat.sum())
    return float(heat[mask].sum()) / total if total else 0.0
