"""Signatures: how strong the edges of each direction are in each part of a picture, as numbers that can be compared.

An edge's direction is the same in the negative, and the eight orientations of a picture only exchange the numbers of
its signature. To allow for other changes, an image has several signatures: of the whole picture and of its middle, of
the picture around the center of its edges and of the middle of that, some of them also turned a little to both sides.
"""

from functools import cache

import numpy as np

from lesion.deduplication.pictures import ORIENTATIONS, SIDE, Floats, Ints, blur, orient, resample

SIZE = 159  # of a signature; one more would be half of two numbers that turn into each other
# The parts of a picture that have a signature: whether they lie around the center of the edges, their zoom and turn.
_TURN = np.deg2rad(4.5)
_FRAMES = (
    *((False, 1.0, turn) for turn in (-_TURN, 0.0, _TURN)),
    (False, 1.2, 0.0),
    *((True, 1.0, turn) for turn in (-_TURN, 0.0, _TURN)),
    *((True, 1.2, turn) for turn in (-_TURN, 0.0, _TURN)),
)
FRAMES = len(_FRAMES)
# Which signatures of two images are compared: both ways, and turned against each other.
COMPARED = (
    *((0, 2), (1, 1), (2, 0), (1, 3), (3, 1)),
    *((4, 6), (5, 5), (6, 4)),
    *((4, 9), (5, 8), (6, 7), (9, 4), (8, 5), (7, 6)),
)

_CELLS, _DIRECTIONS = 8, 8
_SIGMA, _REACH, _FLOOR = 1.5, 3.0, 0.7
_TEXTURES, _RIDGE = 200, 0.1


def raw_signatures(gray: Floats) -> Floats:
    """Return the strength of the edges by direction and cell, (N, FRAMES, 512), of trimmed pictures (N, SIDE, SIDE)."""
    pictures = len(gray)
    raw = np.empty((pictures, FRAMES, _DIRECTIONS * _CELLS**2), np.float32)
    center = np.zeros((pictures, 2), np.float32)
    for angle in (0.0, -_TURN, _TURN):  # the picture as it is gives the center of its edges
        turn = _rotation(angle)
        warp = np.concatenate([turn, np.zeros((2, 1), np.float32)], axis=1)
        edges = _edges(resample(gray, np.tile(warp, (pictures, 1, 1))) if angle else gray)
        center = center if angle else _center(edges)
        for frame, (centered, zoom, frame_angle) in enumerate(_FRAMES):
            if frame_angle == angle:
                middle = (center @ turn if centered else np.zeros_like(center))[:, :, None]
                raw[:, frame] = _pool(edges, _cell_weights(middle[:, 0], zoom), _cell_weights(middle[:, 1], zoom))
    return raw


def project(raw: Floats) -> Floats:
    """Return the signatures (..., SIZE) of unit length for raw ones (..., 512)."""
    mean, variance, directions = _statistics()
    result = (raw - mean) @ (directions / np.sqrt(variance)).astype(np.float32)
    result /= np.maximum(np.linalg.norm(result, axis=-1, keepdims=True), 1e-6)
    return np.asarray(result, np.float32)


def oriented(signatures: Floats) -> Floats:
    """Return the signatures (8, ...) of the pictures in each orientation, from those as they are (..., SIZE)."""
    return signatures @ _turning_matrices().reshape(ORIENTATIONS, *[1] * (signatures.ndim - 2), SIZE, SIZE)


def prepare_signatures() -> None:
    """Compute once what all signatures need, before threads do it all at the same time."""
    _statistics()
    _turning_matrices()


@cache
def _turning_matrices() -> Floats:
    """Return the orthogonal matrix (8, SIZE, SIZE) that each orientation of a picture applies to its signature."""
    _, _, directions = _statistics()
    return np.stack([directions[order].T @ directions for order in _oriented_numbers()]).astype(np.float32)


@cache
def _oriented_numbers() -> Ints:
    """Return for each orientation (8, 512) which number of a raw signature stands at each place."""
    numbers = np.arange(_DIRECTIONS * _CELLS**2).reshape(_DIRECTIONS, _CELLS, _CELLS)
    direction = np.arange(_DIRECTIONS)
    result = []
    for orientation in range(ORIENTATIONS):
        before = _DIRECTIONS // 2 - direction if orientation & 4 else direction
        order = direction if orientation in (0, 3, 4, 7) else -direction
        result.append(orient(numbers[before % _DIRECTIONS][order % _DIRECTIONS], orientation).ravel())
    return np.stack(result).astype(np.int64)


def _edges(gray: Floats) -> Floats:
    """Return the strength of the edges of each direction at each pixel, (N, 8, SIDE, SIDE)."""
    smooth = blur(gray, _SIGMA)
    x, y = np.zeros_like(smooth), np.zeros_like(smooth)
    x[:, :, 1:-1] = (smooth[:, :, 2:] - smooth[:, :, :-2]) / 2
    y[:, 1:-1] = (smooth[:, 2:] - smooth[:, :-2]) / 2
    strength = np.sqrt(x * x + y * y)
    mean = strength.mean(axis=(1, 2), keepdims=True)
    strength /= blur(strength, _REACH) + np.float32(_FLOOR) * mean + np.float32(1e-3)
    place = np.arctan2(y, x) * np.float32(_DIRECTIONS / np.pi)
    low = np.floor(place)
    far = (place - low) * strength
    near = strength - far
    direction = low.astype(np.int8) % _DIRECTIONS
    edges = np.empty((len(gray), _DIRECTIONS, SIDE, SIDE), np.float32)
    for number in range(_DIRECTIONS):
        np.multiply(near, direction == number, out=edges[:, number])
        edges[:, number] += far * (direction == (number - 1) % _DIRECTIONS)
    return edges


def _pool(edges: Floats, across: Floats, down: Floats) -> Floats:
    """Return the raw signature (N, 512) in cells given by weights (N or 1, _CELLS, SIDE): roots, of unit length."""
    sums = down[:, None] @ (edges @ across[:, None].swapaxes(2, 3))
    roots = np.sqrt(sums.reshape(len(edges), -1))
    roots -= roots.mean(axis=1, keepdims=True)
    roots /= np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), 1e-6)
    return np.asarray(roots, np.float32)


def _center(edges: Floats) -> Floats:
    """Return the center (N, 2) of the edges, x and y in [-1, 1]."""
    place = ((np.arange(SIDE) + 0.5) * 2 / SIDE - 1).astype(np.float32)
    strength = edges.sum(axis=1)
    total = strength.sum(axis=(1, 2)) + np.float32(1e-6)
    return np.stack([strength.sum(axis=1) @ place / total, strength.sum(axis=2) @ place / total], axis=1)


def _rotation(angle: float) -> Floats:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)


def _cell_weights(middle: Floats, zoom: float) -> Floats:
    """Return how much each pixel belongs to each cell along one axis, (N, _CELLS, SIDE); middles are (N, 1)."""
    pixel = ((np.arange(SIDE) + 0.5) * 2 / SIDE - 1).astype(np.float32)
    cell = ((np.arange(_CELLS) + 0.5) * 2 / _CELLS - 1).astype(np.float32)
    place = (pixel - middle) * np.float32(zoom)
    distance = np.abs(place[:, None] - cell[:, None])
    return np.asarray(np.maximum(1 - distance * np.float32(_CELLS / 2), 0), np.float32)


@cache
def _statistics() -> tuple[Floats, Floats, Floats]:
    """Return mean (512,), variances (SIZE,) and their directions (512, SIZE) of the raw signatures of any picture.

    Numbers of neighboring cells and directions vary together in every picture. How they do is measured on random
    textures, so that it is the same for all data; the eight orientations have equal shares in it.
    """
    random = np.random.default_rng(0)
    textures = []
    for sigma in (1.0, 1.7, 3.0, 5.0):
        fine, coarse = random.normal(size=(2, _TEXTURES, SIDE, SIDE)).astype(np.float32)
        field = blur(coarse, sigma) + np.float32(0.5 * sigma) * blur(fine, sigma / 2.5)
        textures.append(120 + 40 * field / field.std(axis=(1, 2), keepdims=True))
    whole = _cell_weights(np.zeros((1, 1), np.float32), 1.0)
    raw = _pool(_edges(np.concatenate(textures)), whole, whole).astype(np.float64)
    raw = np.concatenate([raw[:, order] for order in _oriented_numbers()])
    mean = raw.mean(axis=0)
    variance, directions = np.linalg.eigh(np.cov((raw - mean).T))
    variance += _RIDGE * variance.max()
    return mean.astype(np.float32), variance[-SIZE:], directions[:, -SIZE:]
