"""Operations on batches of small square pictures: blur, even contrast, resampling, orientation and uniform borders."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Numbers = NDArray[np.floating[Any]]

SIDE = 48
ORIENTATIONS = 8  # bit 2: rows and columns are exchanged, then bit 0: left and right, and bit 1: top and bottom

_MAX_BORDER = 10  # pixels: two borders of 10 % of the picture are about 8
_BORDER_SIDES = 3
_BORDER_TOLERANCE = 25.0  # gray levels around the color of a border
_FLAT, _CONTENT = 0.1, 0.75


def orient(pictures: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """Return a view of pictures (..., S, S) in one of the eight orientations."""
    if orientation & 4:
        pictures = pictures.swapaxes(-1, -2)
    if orientation & 1:
        pictures = pictures[..., ::-1]
    return pictures[..., ::-1, :] if orientation & 2 else pictures


def oriented_entries(side: int) -> Ints:
    """Return for each orientation (8, S * S) which entry of the flat picture stands at each place."""
    entries = np.arange(side * side).reshape(side, side)
    return np.stack([orient(entries, number).ravel() for number in range(ORIENTATIONS)]).astype(np.int64)


def blur(pictures: Floats, sigma: float) -> Floats:
    """Blur (N, S, S) as two matrix products, several times faster than a filter for pictures this small."""
    weights = _blur_weights(pictures.shape[-1], sigma)
    return np.asarray(weights @ pictures @ weights.T, np.float32)


@cache
def _blur_weights(side: int, sigma: float) -> Floats:
    """Return the (S, S) matrix that blurs columns by a Gaussian."""
    from scipy.ndimage import gaussian_filter1d  # 0.4 s to import, which a server's start need not wait for

    return np.asarray(gaussian_filter1d(np.eye(side, dtype=np.float32), sigma, axis=0), np.float32)


def even_contrast(gray: Floats, sigma: float, *, reach: float = 3.0, floor: float = 0.3, limit: float = 3.0) -> Floats:
    """Return band-passed pictures (N, S, S) of the same contrast everywhere; what is flat stays near zero.

    Args:
        gray: (N, S, S).
        sigma: Of the finest detail, in pixels.
        reach: Of the neighborhood that gives the contrast, in pixels.
        floor: Contrast, as a share of the picture's mean one, below which a neighborhood counts as flat.
        limit: Multiple of the mean contrast at which a pixel is cut off, so that text does not outweigh the picture.
    """
    band = blur(gray, sigma) - blur(gray, 2.5 * sigma)
    mean = np.abs(band).mean(axis=(1, 2), keepdims=True) + np.float32(0.05)
    band = np.clip(band / mean, -limit, limit)
    result: Floats = band / np.sqrt(blur(band * band, reach) + np.float32(floor**2))
    return result


def centers(side: int, step: int = 1) -> Floats:
    """Return the coordinates (3, Q) ``x, y, 1`` of every ``step``-th pixel, from -1 to 1 between the edges."""
    middle = ((np.arange(step // 2, side, step) + 0.5) * 2 / side - 1).astype(np.float32)
    y, x = np.meshgrid(middle, middle, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), np.ones(x.size, np.float32)])


def sample(pictures: Floats, warp: Floats, points: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return bilinear samples (P, Q) of (P, S, S) at points (3, Q) mapped by (P, 2, 3), and which lie inside."""
    side = pictures.shape[1]
    pixels = (warp @ points + 1) * np.float32(side / 2) - np.float32(0.5)
    inside = ((pixels >= -0.5) & (pixels <= side - 0.5)).all(axis=1)
    np.clip(pixels, 0, side - 1.001, out=pixels)
    whole = pixels.astype(np.int32)
    part = pixels - whole
    corner = whole[:, 1] * side + whole[:, 0]
    corner += (np.arange(len(pictures), dtype=np.int32) * (side * side))[:, None]
    flat = pictures.ravel()
    upper = flat.take(corner)
    upper += part[:, 0] * (flat.take(corner + 1) - upper)
    corner += side
    lower = flat.take(corner)
    lower += part[:, 0] * (flat.take(corner + 1) - lower)
    upper += part[:, 1] * (lower - upper)
    return upper, inside


def resample(pictures: Floats, warp: Floats) -> Floats:
    """Return pictures (N, S, S) under maps (N, 2, 3) from the new to the old coordinates."""
    return sample(pictures, warp, centers(pictures.shape[1]))[0].reshape(pictures.shape)


def shrink(pictures: Numbers, side: int) -> Floats:
    """Return pictures (N, SIDE, SIDE) as means of squares, (N, side, side)."""
    cell = SIDE // side
    return cell_sums(np.asarray(pictures, np.float32), cell) / np.float32(cell * cell)


def cell_sums(pictures: Floats, cell: int) -> Floats:
    """Return the sum of each cell of cell x cell pixels of pictures (N, S, S), (N, S / cell, S / cell)."""
    weights = _cell_matrix(pictures.shape[1], cell)
    return np.asarray(weights @ pictures @ weights.T, np.float32)


@cache
def _cell_matrix(side: int, cell: int) -> Floats:
    return np.repeat(np.eye(side // cell, dtype=np.float32), cell, axis=1)


def similarity_maps(zoom: Numbers, angle: Numbers, x: Numbers, y: Numbers) -> Floats:
    """Return maps (N, 2, 3) that zoom, turn by an angle in radians, and shift; all (N,)."""
    cosine, sine = zoom * np.cos(angle), zoom * np.sin(angle)
    return np.stack([cosine, -sine, x, sine, cosine, y], axis=1).reshape(-1, 2, 3).astype(np.float32)


def identity(count: int) -> Floats:
    """Return maps (N, 2, 3) that change nothing."""
    return np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1))


def trim(gray: Floats) -> Floats:
    """Enlarge what a border of one color surrounds to the whole picture (N, SIDE, SIDE).

    A border ends in sharp straight edges on at least three sides, the fourth may have text on it; the dark around a
    skull does not count.
    """
    heights = np.stack([_border(each) for each in _from_each_edge(gray)])
    found = (heights > 0).sum(axis=0) >= _BORDER_SIDES
    rows = np.flatnonzero(found)
    if not len(rows):
        return gray
    height = np.where(heights > 0, heights, SIDE).min(axis=0)[rows]
    trimmed = gray.copy()
    trimmed[rows] = resample(
        gray[rows], identity(len(rows)) * (1 - 2 * height / SIDE).astype(np.float32)[:, None, None]
    )
    return trimmed


def content_bounds(gray: Floats) -> Floats:
    """Return the part of each picture without bands of one color at single edges: x and y from and to, (N, 2, 2)."""
    return _bounds(*(_border(each) for each in _from_each_edge(gray)))


def inner_bounds(gray: Floats) -> Floats:
    """Return the part of each picture within rows and columns of one color at its edges, (N, 2, 2), as content_bounds.

    Whether these belong to the picture, as the dark around a head, or are a border of a cut head cannot be told.
    """
    return _bounds(*(_flat_rows(each) for each in _from_each_edge(gray)))


def extend(gray: Floats, bounds: Floats) -> Floats:
    """Continue the edges of the content (N, 2, 2) over the bands beside it, so that no edge is between them."""
    pixels = np.rint((bounds + 1) * (SIDE / 2)).astype(np.int64)
    rows = np.flatnonzero((pixels != [0, SIDE]).any(axis=(1, 2)))
    place = np.clip(np.arange(SIDE), pixels[rows, :, :1], pixels[rows, :, 1:] - 1)
    extended = gray.copy()
    extended[rows] = gray[rows[:, None, None], place[:, 1, :, None], place[:, 0, None, :]]
    return extended


def oriented_bounds(bounds: Floats, orientation: Ints) -> Floats:
    """Return bounds (P, 2, 2) of pictures after each is brought into its orientation (P,)."""
    result = bounds.copy()
    for bit, change in ((4, lambda each: each[:, ::-1]), (1, _mirrored_x), (2, _mirrored_y)):
        rows = np.flatnonzero(orientation & bit)
        result[rows] = change(result[rows])
    return result


def within(points: Floats, bounds: Floats) -> NDArray[np.bool_]:
    """Return which points (2, Q) or (P, 2, Q) lie in bounds (P, 2, 2): (P, Q)."""
    result: NDArray[np.bool_] = np.all((points >= bounds[:, :, :1]) & (points <= bounds[:, :, 1:]), axis=1)
    return result


def _mirrored_x(bounds: Floats) -> Floats:
    return np.stack([-bounds[:, 0, ::-1], bounds[:, 1]], axis=1)


def _mirrored_y(bounds: Floats) -> Floats:
    return np.stack([bounds[:, 0], -bounds[:, 1, ::-1]], axis=1)


def _from_each_edge(gray: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return pictures (N, S, S) so that their left, right, top and bottom edge is the top."""
    turned = gray.transpose(0, 2, 1)
    return turned, turned[:, ::-1], gray, gray[:, ::-1]


def _bounds(left: Ints, right: Ints, top: Ints, bottom: Ints) -> Floats:
    """Return x and y from and to, (N, 2, 2), within margins (N,) in pixels."""
    edges = np.array([[left, SIDE - right], [top, SIDE - bottom]], np.float32).transpose(2, 0, 1)
    return edges * np.float32(2 / SIDE) - 1


def _differing(gray: Floats) -> Floats:
    """Return the share of each row near the top, (N, rows), that has not the color of the first row."""
    color = np.median(gray[:, 0], axis=1)[:, None, None]
    return np.asarray((np.abs(gray[:, : _MAX_BORDER + 4] - color) > _BORDER_TOLERANCE).mean(axis=2))


def _flat_rows(gray: Floats) -> Ints:
    """Return how many rows (N,) of one color each picture has at its top, and one more, which may be half of it."""
    flat = _differing(gray) <= _FLAT
    flat[:, -1] = False
    height = np.argmin(flat, axis=1)
    return np.where(height > 0, height + 1, 0).astype(np.int64)


def _border(gray: Floats) -> Ints:
    """Return the height (N,) in pixels of the border at the top of each picture, 0 without one."""
    other = _differing(gray)
    flat = other <= _FLAT
    height = np.argmin(flat, axis=1)
    height[height > _MAX_BORDER] = 0
    pictures = np.arange(len(gray))
    edge, behind = other[pictures, height], other[pictures, height + 1]
    found = (height > 0) & (np.maximum(edge, behind) >= _CONTENT)
    return np.where(found, height + 1, 0).astype(np.int64)  # the next row may be half border
