"""Pictures reduced to about 48 pixels a side, from which their colors, layout and orientation are described."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 48
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's

Floats = NDArray[np.floating[Any]]


def reduce_pictures(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the means of blocks of pixels of ``(B, S, S, 3)`` pictures: ``(B, R, R, 3)``, R at least 48 if S is.

    All blocks are of one size, or a turned picture could be told by where the smaller ones are.
    """
    side = images.shape[1]
    factor = max((factor for factor in range(1, side // SIDE + 1) if side % factor == 0), default=1)
    if factor == 1:
        return images
    return np.stack([np.asarray(Image.fromarray(image).reduce(factor)) for image in images])


def gray_levels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the gray levels, 0 to 255, of ``(B, R, R, 3)`` pictures as ``(B, R, R)``."""
    return np.asarray(images.astype(np.float32) @ _GRAY)


def area_means(values: Floats, parts: int) -> Floats:
    """Return the means over ``parts`` × ``parts`` cells of equal size of ``(B, R, R)``, as ``(B, parts, parts)``.

    A pixel that lies in several cells counts in each with the share of it that is there.
    """
    if values.shape[1] == parts:
        return values
    weights = _area_weights(values.shape[1], parts)
    means: Floats = weights @ values @ weights.T
    return means


@lru_cache(maxsize=32)
def _area_weights(side: int, parts: int) -> NDArray[np.float32]:
    """Return the share that each of ``side`` pixels in a row has in the mean of each part, ``(parts, side)``."""
    edges = np.linspace(0, side, parts + 1)
    pixels = np.arange(side)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.maximum(covered, 0) * parts / side, np.float32)
