"""What is pictured in an image, in contrast to a dark background, such as that of a scan."""

import numpy as np
from numpy.typing import NDArray

_DARK = 0.08  # of the brightest gray: what is darker, at the image's border, is background
_LEAST_BACKGROUND = 0.05  # of the image: with less, it is all foreground


def has_background(pictured: NDArray[np.bool_]) -> bool:
    """Return whether an image has a background that a map can wrongly point at; ``pictured`` is its `foreground`."""
    return bool(pictured.mean() <= 1 - _LEAST_BACKGROUND)


def foreground(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return what is pictured, (S, S): all but the dark rest at the ends of the rows and columns of an image.

    Dark places inside, such as the ventricles of a brain, belong to it.
    """
    gray = image.mean(axis=2)
    bright = gray > _DARK * gray.max()
    across, down = (_between_ends(bright, axis) for axis in (1, 0))
    return across & down


def _between_ends(bright: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Return what lies between the first and the last bright pixel of each line along an axis."""
    after_first = np.maximum.accumulate(bright, axis)
    before_last = np.flip(np.maximum.accumulate(np.flip(bright, axis), axis), axis)
    return np.asarray(after_first & before_last)
