"""Plain numbers of a picture: gray levels, colors, layout, edges and frequencies.

They tell pictures of another kind from the training images where the features of a small network do not: of a network
trained on a few hundred images, noise, blank pictures and leaves can have the features of a scan.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NUMBERS = 53
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's
_REDUCED = 48  # pixels, at least, of the reduced side
_CELLS = 6  # of the layout, per side
_LINES = 32  # rows, and as many columns, whose frequencies and edges are measured
_BANDS = 6
_SILENCE = 1e-2  # energy of a band that is taken to be empty: a blank picture has none in any


def describe_appearance(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the numbers of pictures, ``(B, S, S, 3)`` uint8 RGB, as ``(B, 53)``.

    They are 5 quantiles of gray, 4 differences of colors, the mean gray of 6 × 6 cells, 2 mean edges, across rows and
    across columns, and the energy in 6 bands of frequencies, each an octave or less.
    """
    return np.stack([_describe(image) for image in images])


def _describe(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    size = image.shape[0]
    small = np.asarray(Image.fromarray(image).reduce(max(1, size // _REDUCED)), np.float32)
    gray = small @ _GRAY
    cells = Image.fromarray(gray).resize((_CELLS, _CELLS), Image.Resampling.BOX)
    step = max(1, size // _LINES)
    rows = image[step // 2 :: step, :, 1].astype(np.float32)
    columns = image[:, step // 2 :: step, 1].astype(np.float32).T
    edges = [np.abs(np.diff(lines)).mean() for lines in (rows, columns)]
    parts = (
        np.sort(gray, axis=None)[_places(gray.size)],
        _color_differences(small),
        np.asarray(cells).ravel(),
        np.log1p(edges),
        _band_energies(np.concatenate([rows, columns])),
    )
    return np.concatenate(parts).astype(np.float32)


def _places(count: int) -> NDArray[np.int64]:
    """Return where the quantiles of sorted values stand."""
    return np.round(np.multiply(_QUANTILES, count - 1)).astype(np.int64)


def _color_differences(pixels: NDArray[np.float32]) -> list[Any]:
    """Return the means of red minus green and of green minus blue, with their signs and without."""
    differences = pixels[..., 0] - pixels[..., 1], pixels[..., 1] - pixels[..., 2]
    return [*(each.mean() for each in differences), *(np.abs(each).mean() for each in differences)]


def _band_energies(lines: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
    """Return the logarithms of the mean energy of lines of pixels in each band, the lowest frequencies first."""
    energy = np.square(np.abs(np.fft.rfft(lines))).mean(axis=0)[1:] / lines.shape[1]
    edges = np.round(np.geomspace(1, len(energy), _BANDS + 1)).astype(int) - 1
    edges[-1] = len(energy)
    return np.log(np.array([energy[low:high].mean() for low, high in pairwise(edges)]) + _SILENCE)
