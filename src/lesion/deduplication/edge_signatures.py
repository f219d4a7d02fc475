"""Signatures: how strong the edges of each direction are in each part of a picture, as numbers that can be compared.

An edge's direction is the same in the negative, and the eight orientations of a picture only exchange the numbers of
its signature. To allow for other changes, an image has several signatures: of the whole picture, of parts of it, and of
the picture around the center of its edges, also turned a little to both sides.

The numbers are weighted by linear discriminant analysis (Rao, 1948): those that differ much between pictures and little
between a picture and its shifted, turned, zoomed and written-on copies count most. Both are measured on random
textures, so that the weights are the same for all data.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lesion.deduplication.pictures import ORIENTATIONS, SIDE, Floats, Ints, blur, orient, resample, similarity_maps

SIZE = 112  # of a signature; 113 would be half of two numbers that turn into each other


class _Frame(NamedTuple):
    """A part of a picture that has a signature."""

    x: float  # of its middle, from the picture's or from the center of its edges; the picture is 2 long
    y: float
    zoom: float
    turn: float  # in radians
    around_edges: bool = False


_TURN = np.deg2rad(4.5)
_AWAY = 0.11
_FRAMES = (
    _Frame(0, 0, 1.0, 0),
    _Frame(0, 0, 1.2, 0),
    *(_Frame(0, 0, 1.0, turn, around_edges=True) for turn in (-_TURN, 0.0, _TURN)),
    _Frame(0, 0, 1.2, 0, around_edges=True),
    *(_Frame(x, y, 1.2, 0) for y in (-_AWAY, _AWAY) for x in (-_AWAY, _AWAY)),
)
FRAMES = len(_FRAMES)
# Which signatures of two images are compared: both as they are, zoomed, turned against each other, a part with the
# whole, and parts from opposite and from neighboring sides.
COMPARED = (
    *((0, 0), (0, 1), (1, 0)),
    *((2, 4), (4, 2), (3, 5), (5, 3)),
    *((0, 6), (0, 7), (0, 8), (0, 9), (6, 0), (7, 0), (8, 0), (9, 0)),
    *((6, 9), (9, 6), (7, 8), (8, 7)),
    *((6, 7), (7, 6), (6, 8), (8, 6), (9, 7), (7, 9), (9, 8), (8, 9)),
)

_CELLS, _DIRECTIONS = 8, 8
_SIGMA, _REACH, _FLOOR = 1.5, 3.0, 0.7
_TEXTURES = 80  # of each of four kinds
_RIDGE = 0.02  # of the mean variance between a texture and its copies
_EVENNESS = 0.7  # 1: all kept numbers count alike; 0: those that tell more count more
_TEXT = (6, 19)  # height and width in pixels of the written-on part of a copy


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
        for number, frame in enumerate(_FRAMES):
            if frame.turn == angle:
                middle = (center @ turn) * np.float32(frame.around_edges) + np.array([frame.x, frame.y], np.float32)
                across, down = (_cell_weights(middle[:, axis, None], frame.zoom) for axis in (0, 1))
                raw[:, number] = _pool(edges, across, down)
    return raw


def project(raw: Floats) -> Floats:
    """Return the signatures (..., SIZE) of unit length for raw ones (..., 512)."""
    mean, weights, _ = _statistics()
    result = (raw - mean) @ weights
    result /= np.maximum(np.linalg.norm(result, axis=-1, keepdims=True), 1e-6)
    return np.asarray(result, np.float32)


def oriented(signatures: Floats) -> Floats:
    """Return the signatures (8, N, FRAMES, SIZE) of the pictures in each orientation, from those as they are."""
    return np.stack(
        [signatures[:, order] @ matrix for order, matrix in zip(_oriented_frames(), turning_matrices(), strict=True)]
    )


def prepare_signatures() -> None:
    """Compute once what all signatures need, before threads do it all at the same time."""
    _statistics()
    turning_matrices()


@cache
def turning_matrices() -> Floats:
    """Return the orthogonal matrix (8, SIZE, SIZE) that each orientation of a picture applies to its signature."""
    _, _, directions = _statistics()
    return np.stack([directions[order].T @ directions for order in _oriented_numbers()]).astype(np.float32)


@cache
def _oriented_frames() -> Ints:
    """Return for each orientation (8, FRAMES) which frame of a picture is each frame of the oriented one."""
    result = []
    for orientation in range(ORIENTATIONS):
        places = [_oriented_frame(frame, orientation) for frame in _FRAMES]
        result.append([places.index(frame) for frame in _FRAMES])
    return np.array(result, np.int64)


def _oriented_frame(frame: _Frame, orientation: int) -> _Frame:
    """Return where a frame is after the picture is brought into an orientation; each step is a reflection."""
    if orientation & 4:
        frame = frame._replace(x=frame.y, y=frame.x, turn=-frame.turn)
    if orientation & 1:
        frame = frame._replace(x=-frame.x, turn=-frame.turn)
    return frame._replace(y=-frame.y, turn=-frame.turn) if orientation & 2 else frame


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
    """Return mean (512,), weights (512, SIZE) and directions (512, SIZE) for the raw signatures of any picture.

    The weights are the directions, stretched by how little copies differ. All eight orientations have equal shares in
    both, so that an orientation never mixes a direction that is kept with one that is not.
    """
    random = np.random.default_rng(0)
    textures = _textures(random)
    raw, copies = _raw_whole(textures), _raw_whole(_changed(textures, random))
    orders = _oriented_numbers()
    change = np.concatenate([(copies - raw)[:, order] for order in orders])
    raw = np.concatenate([raw[:, order] for order in orders])
    mean = raw.mean(axis=0)
    within = change.T @ change / (2 * len(change))
    within += _RIDGE * np.trace(within) / len(within) * np.eye(len(within))
    variance, axes = np.linalg.eigh(within)
    whitened = (axes / np.sqrt(variance)) @ axes.T
    ratio, directions = np.linalg.eigh(whitened @ np.cov((raw - mean).T) @ whitened)
    ratio, directions = ratio[-SIZE:], directions[:, -SIZE:]
    weights = whitened @ directions / ratio ** (_EVENNESS / 2)
    return mean.astype(np.float32), weights.astype(np.float32), directions.astype(np.float32)


def _textures(random: np.random.Generator) -> Floats:
    """Return random pictures (N, SIDE, SIDE) of coarse and fine detail."""
    textures = []
    for sigma in (1.0, 1.7, 3.0, 5.0):
        fine, coarse = random.normal(size=(2, _TEXTURES, SIDE, SIDE)).astype(np.float32)
        field = blur(coarse, sigma) + np.float32(0.5 * sigma) * blur(fine, sigma / 2.5)
        textures.append(120 + 40 * field / field.std(axis=(1, 2), keepdims=True))
    return np.concatenate(textures).astype(np.float32)


def _changed(pictures: Floats, random: np.random.Generator) -> Floats:
    """Return the pictures (N, SIDE, SIDE) a little zoomed, turned and shifted, and with text on a box."""
    count = len(pictures)
    angle, zoom = random.uniform(-_TURN, _TURN, count), np.exp(random.uniform(-0.1, 0.1, count))
    x, y = random.uniform(-_AWAY, _AWAY, (2, count))
    changed = resample(pictures, similarity_maps(zoom, angle, x, y))
    for picture in changed:
        height, width = random.permutation(_TEXT)
        top, left = random.integers(SIDE - height + 1), random.integers(SIDE - width + 1)
        box = np.where(random.random((height, width)) < 0.5, 0.0, 150.0)
        picture[top : top + height, left : left + width] = np.abs(random.choice([0, 255]) - box)
    return changed


def _raw_whole(pictures: Floats) -> NDArray[np.float64]:
    """Return the raw signatures (N, 512) of whole pictures."""
    whole = _cell_weights(np.zeros((1, 1), np.float32), 1.0)
    parts = [_pool(_edges(part), whole, whole) for part in np.array_split(pictures, 8)]
    return np.concatenate(parts).astype(np.float64)
