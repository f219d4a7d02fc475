"""Thumbnails of images, and the features by which the search for near-duplicates compares them."""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion.deduplication.alignment import Floats

Thumbnails = NDArray[np.uint8]  # (N, SIDE, SIDE) grayscale

SIDE = 48
ZOOM = 1.05  # between the two coarse pictures of an image
MIN_DETAIL = 1.0  # gray levels; a blank or black image has only the noise of its compression

_COARSE_SIGMA, _COARSE_STEP = 1.5, 3
_FINE_SIGMA = 1.0
_CONTRAST_SIGMA, _CONTRAST_FLOOR = 3.0, 0.25
_CHUNK = 256


def make_thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the grayscale thumbnail (SIDE, SIDE) by which a uint8 (H, W, 3) image is compared, stretched to a square.

    It takes about 0.3 ms for an image of 224 × 224 pixels.
    """
    gray = Image.fromarray(image).convert("L")
    return np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0))


class Features(NamedTuple):
    """The pictures of N images that the search compares.

    The coarse ones have zero mean and unit length, so that the product of two is their correlation; without detail in
    an image they are zero.
    """

    plain: Floats  # (N, 16, 16) coarse picture of the whole image
    zoomed: Floats  # (N, 16, 16) coarse picture of the middle: the part that a crop of a few percent leaves
    fine: NDArray[np.float16]  # (N, SIDE, SIDE) for the registration

    def rows(self, rows: slice) -> "Features":
        """Return some of the images, without copying."""
        return Features(self.plain[rows], self.zoomed[rows], self.fine[rows])


def extract_features(thumbnails: Thumbnails) -> Features:
    """Compute the features of thumbnails."""
    coarse_shape = (len(thumbnails), SIDE // _COARSE_STEP, SIDE // _COARSE_STEP)
    features = Features(
        np.empty(coarse_shape, np.float32), np.empty(coarse_shape, np.float32), np.empty(thumbnails.shape, np.float16)
    )
    for rows in chunks(len(thumbnails)):
        gray = thumbnails[rows].astype(np.float32)
        features.plain[rows] = _coarse(gray)
        features.zoomed[rows] = _coarse(_zoom_in(gray))
        features.fine[rows], _ = _normalize(gray, _FINE_SIGMA)
    return features


def chunks(n: int) -> Iterator[slice]:
    """Divide n rows into slices of at most 256, for which temporary arrays stay small."""
    return (slice(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK))


def _normalize(gray: Floats, sigma: float) -> tuple[Floats, Floats]:
    """Return band-passed pictures (N, SIDE, SIDE) of even contrast, and the detail (N,) before, in gray levels."""
    band = _blur(gray, sigma) - _blur(gray, 2.5 * sigma)
    detail = band.std(axis=(1, 2))
    band /= np.maximum(detail, 1e-6)[:, None, None]
    return band / np.sqrt(_blur(band * band, _CONTRAST_SIGMA) + _CONTRAST_FLOOR**2), detail


def _blur(gray: Floats, sigma: float) -> Floats:
    """Blur as two matrix products, several times faster than a filter for pictures this small."""
    weights = _blur_weights(sigma)
    return np.asarray(weights @ gray @ weights.T, np.float32)


@cache
def _blur_weights(sigma: float) -> Floats:
    """Return the (SIDE, SIDE) matrix that blurs columns by a Gaussian."""
    from scipy.ndimage import gaussian_filter1d  # 0.4 s to import, which a server's start need not wait for

    return np.asarray(gaussian_filter1d(np.eye(SIDE, dtype=np.float32), sigma, axis=0), np.float32)


def _coarse(gray: Floats) -> Floats:
    picture, detail = _normalize(gray, _COARSE_SIGMA)
    picture = picture[:, _COARSE_STEP // 2 :: _COARSE_STEP, _COARSE_STEP // 2 :: _COARSE_STEP]
    picture = picture - picture.mean(axis=(1, 2), keepdims=True)
    length = np.linalg.norm(picture, axis=(1, 2), keepdims=True)
    return np.where(detail[:, None, None] >= MIN_DETAIL, picture / np.maximum(length, 1e-6), 0)


def _zoom_in(gray: Floats) -> Floats:
    """Enlarge the middle of each picture by ``ZOOM`` with linear interpolation."""
    middle = (SIDE - 1) / 2
    position = (np.arange(SIDE) - middle) / ZOOM + middle
    weights = np.maximum(1 - np.abs(position[:, None] - np.arange(SIDE)), 0).astype(np.float32)
    enlarged: Floats = weights @ gray @ weights.T
    return enlarged
