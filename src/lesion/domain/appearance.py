"""How far the plain numbers of a picture are from those of a network's training images.

Gray levels, colors, layout, edges and frequencies tell pictures of another kind from the training images where the
features of a small network do not: of a network trained on a few hundred images, noise, blank pictures and leaves can
have the features of a scan.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NUMBERS = 53
REFERENCES = 400  # training images that are kept; more hardly change the distances
_NEIGHBORS = 5
_FLAT = 1e-3  # a deviation of a number among the training images that counts as none
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's
_REDUCED = 48  # pixels, at least, of the reduced side
_CELLS = 6  # of the layout, per side
_LINES = 32  # rows, and as many columns, whose frequencies and edges are measured
_BANDS = 6
_SILENCE = 1e-2  # energy of a band that is taken to be empty: a blank picture has none in any

Floats = NDArray[np.floating[Any]]


def describe_appearance(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the numbers of pictures, ``(B, S, S, 3)`` uint8 RGB, as ``(B, 53)``.

    They are 5 quantiles of gray, 4 differences of colors, the mean gray of 6 × 6 cells, 2 mean edges, across rows and
    across columns, and the energy in 6 bands of frequencies, each an octave or less.
    """
    return np.stack([_describe(image) for image in images])


@dataclass(frozen=True, eq=False, slots=True)
class AppearanceDistance:
    """Some training images' numbers, to which those of other images are compared."""

    center: NDArray[np.float32]  # (53,) the means of all training images
    scale: NDArray[np.float32]  # (53,) their deviations
    references: NDArray[np.float32]  # (R, 53) the numbers of some of them, centered and scaled

    @classmethod
    def fit(cls, training: NDArray[np.float32]) -> Self:
        """Fit the numbers of training images, ``(N, 53)``, of one or more."""
        center = training.mean(axis=0)
        scale = training.std(axis=0) + np.float32(_FLAT)
        rows = np.unique(np.linspace(0, len(training) - 1, min(len(training), REFERENCES)).round().astype(int))
        return cls(center, scale, (training[rows] - center) / scale)

    def __call__(self, numbers: NDArray[np.float32]) -> Floats:
        """Return the mean distance of images' numbers, ``(B, 53)``, to the 5 nearest training images', ``(B,)``.

        With fewer training images, all are taken.
        """
        points = (numbers - self.center) / self.scale
        lengths = np.square(points).sum(axis=1)[:, None] + np.square(self.references).sum(axis=1)
        squared = lengths - 2 * points @ self.references.T
        count = min(_NEIGHBORS, len(self.references))
        nearest = np.partition(squared, count - 1, axis=1)[:, :count]
        distances: Floats = np.sqrt(np.maximum(nearest, 0)).mean(axis=1)
        return distances


def _describe(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    size = image.shape[0]
    small = np.asarray(Image.fromarray(image).reduce(max(1, size // _REDUCED)), np.float32)
    gray = small @ _GRAY
    cells = Image.fromarray(gray).resize((_CELLS, _CELLS), Image.Resampling.BOX)
    step = max(1, size // _LINES)
    rows = image[step // 2 :: step, :, 1].astype(np.float32)
    columns = image[:, step // 2 :: step, 1].T.astype(np.float32, order="C")
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


def _band_energies(lines: NDArray[np.float32]) -> Floats:
    """Return the logarithms of the mean energy of lines of pixels in each band, the lowest frequencies first."""
    spectrum = np.fft.rfft(lines)
    energy = (np.square(spectrum.real) + np.square(spectrum.imag)).mean(axis=0)[1:] / lines.shape[1]
    edges = np.round(np.geomspace(1, len(energy), _BANDS + 1)).astype(int) - 1
    edges[-1] = len(energy)
    bands = [energy[low : max(high, low + 1)].mean() for low, high in pairwise(edges)]  # of few numbers, some share one
    return np.log(np.array(bands) + _SILENCE)
