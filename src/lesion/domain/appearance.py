"""How far the plain numbers of a picture are from those of a network's training images.

Gray levels, colors, layout, edges and frequencies tell pictures of another kind from the training images where the
features of a small network do not: of a network trained on a few hundred images, noise, blank pictures and leaves can
have the features of a scan.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lesion.domain.reduction import area_means, gray_levels

NUMBERS = 53
REFERENCES = 400  # training images that are kept; more hardly change the distances
_NEIGHBORS = 5
_FLAT = 1e-3  # a deviation of a number among the training images that counts as none
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_COLOR_DIFFERENCES = np.array([[1, 0], [-1, 1], [0, -1]], np.float32)  # red minus green, and green minus blue
_CELLS = 6  # of the layout, per side
_LINES = 32  # rows, and as many columns, whose frequencies and edges are measured
_BANDS = 6
_SILENCE = 1e-2  # energy of a band that is taken to be empty: a blank picture has none in any

Floats = NDArray[np.floating[Any]]


def describe_appearance(images: NDArray[np.uint8], reduced: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the numbers of pictures, ``(B, S, S, 3)`` uint8 RGB, as ``(B, 53)``.

    They are 5 quantiles of gray, 4 differences of colors, the mean gray of 6 × 6 cells, 2 mean edges, across rows and
    across columns, and the energy in 6 bands of frequencies, each an octave or less. ``reduced`` are the same pictures,
    see :func:`lesion.domain.reduction.reduce_pictures`; quantiles, colors and cells are theirs.
    """
    count, side = reduced.shape[:2]
    gray = gray_levels(reduced)
    colors = reduced.reshape(count, -1, 3).astype(np.float32) @ _COLOR_DIFFERENCES
    lines = _lines(images)
    edges = np.abs(np.diff(lines)).reshape(count, 2, -1).mean(axis=2)
    parts = (
        np.sort(gray.reshape(count, -1), axis=1)[:, _places(side**2)],
        colors.mean(axis=1),
        np.abs(colors).mean(axis=1),
        area_means(gray, _CELLS).reshape(count, -1),
        np.log1p(edges),
        _band_energies(lines),
    )
    return np.concatenate(parts, axis=1).astype(np.float32)


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


@lru_cache(maxsize=8)
def _places(count: int) -> NDArray[np.int64]:
    """Return where the quantiles of sorted values stand."""
    return np.round(np.multiply(_QUANTILES, count - 1)).astype(np.int64)


def _lines(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return about 32 rows and as many columns of each picture's green, (B, L, S), the rows first."""
    step = max(1, images.shape[1] // _LINES)
    rows = images[:, step // 2 :: step, :, 1]
    columns = images[:, :, step // 2 :: step, 1].transpose(0, 2, 1)
    return np.concatenate([rows, columns], axis=1).astype(np.float32)


def _band_energies(lines: NDArray[np.float32]) -> Floats:
    """Return the logarithms of the mean energy of lines, (B, L, S), in each band, (B, 6), the lowest first."""
    spectrum = np.fft.rfft(lines)
    energy = (np.square(spectrum.real) + np.square(spectrum.imag)).mean(axis=1)[:, 1:] / lines.shape[2]
    starts, counts = _bands(energy.shape[1])
    return np.asarray(np.log(np.add.reduceat(energy, starts, axis=1) / counts + _SILENCE))


@lru_cache(maxsize=8)
def _bands(frequencies: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each band begins and how many frequencies it has; of few frequencies, bands share some."""
    starts = np.round(np.geomspace(1, frequencies, _BANDS + 1)).astype(int)[:-1] - 1
    return starts, np.maximum(np.diff([*starts, frequencies]), 1)
