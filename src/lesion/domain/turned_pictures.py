"""Whether a picture lies as the training images do: the directions of its edges, and where it is bright.

The description of a turned picture has the same numbers in another order. So the training images need not be turned to
learn what tells them from turned ones: for each turn, a linear discriminant (Fisher's, with a ridge) of the difference
between the description of a picture and that of the picture turned. Each training image is also taken mirrored, left
for right, which makes them twice as many; so mirrored images are not told from others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lesion.domain.reduction import SIDE, area_means, gray_levels

TURNS = ("upside_down", "quarter_left", "quarter_right")  # half a turn is upside down and mirrored
_MIRRORED = "mirrored"
_CELL = 6  # its side, for the directions of edges
_DIRECTIONS = 8
_LAYOUT = 4  # side of the cells of gray
_LAYOUT_WEIGHT, _EDGE_WEIGHT = 0.25, 2.0
_FLAT = 1e-2  # deviation of gray, in [0, 1], below which a picture counts as blank
_RIDGE = 3.0  # times the mean variance of the differences
# Which direction a direction of the turned picture was before; angles grow from right to down.
_EARLIER_DIRECTION: dict[str, Callable[[int], int]] = {
    "upside_down": lambda direction: -direction,
    "quarter_left": lambda direction: direction + _DIRECTIONS // 4,
    "quarter_right": lambda direction: direction - _DIRECTIONS // 4,
    _MIRRORED: lambda direction: _DIRECTIONS // 2 - direction,
}
_TURN_GRIDS: dict[str, Callable[[NDArray[np.int64]], NDArray[np.int64]]] = {  # of (N, G, G)
    "upside_down": lambda grids: grids[:, ::-1],
    "quarter_left": lambda grids: np.rot90(grids, 1, (1, 2)),
    "quarter_right": lambda grids: np.rot90(grids, -1, (1, 2)),
    _MIRRORED: lambda grids: grids[:, :, ::-1],
}
WIDTH = _DIRECTIONS * (SIDE // _CELL) ** 2 + (SIDE // _LAYOUT) ** 2

Floats = NDArray[np.floating[Any]]


def describe_orientation(reduced: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the descriptions of pictures, ``(B, R, R, 3)`` uint8 RGB, as ``(B, 656)`` float32.

    They are the same for a picture and for what :func:`lesion.domain.reduction.reduce_pictures` makes of it.
    """
    gray = area_means(gray_levels(reduced) / np.float32(255), SIDE)
    normal = gray - gray.mean(axis=(1, 2), keepdims=True)
    normal /= gray.std(axis=(1, 2), keepdims=True) + np.float32(_FLAT)
    edges = area_means(_edge_channels(normal).reshape(-1, SIDE, SIDE), SIDE // _CELL)
    layout = area_means(normal, SIDE // _LAYOUT)
    count = len(gray)
    return np.concatenate(
        [_EDGE_WEIGHT * edges.reshape(count, -1), _LAYOUT_WEIGHT * layout.reshape(count, -1)], axis=1
    ).astype(np.float32, copy=False)


@dataclass(frozen=True, eq=False, slots=True)
class OrientationDiscriminant:
    """For each turn, the weights whose sum over a picture's description is high where it seems to be turned."""

    weights: NDArray[np.float32]  # (656, T)

    @classmethod
    def fit(cls, training: NDArray[np.float32]) -> Self:
        """Fit the descriptions of training images, ``(N, 656)``, of one or more, which all lie right."""
        from scipy.linalg import solve  # here, since a server reads discriminants and fits none

        training = np.concatenate([training, training[:, _order(_MIRRORED)]])
        columns = []
        for turn in TURNS:
            order = _order(turn)
            differences = training - training[:, order]
            products = differences.T @ differences / np.float32(len(differences))
            ridge = _RIDGE * max(float(np.trace(products)) / WIDTH, 1e-9)
            products[np.diag_indices(WIDTH)] += np.float32(ridge)
            direction = solve(products.astype(np.float64), differences.mean(axis=0), assume_a="pos")
            # direction · (x − x[order]), with the numbers of x gathered and the sign changed
            columns.append(direction[np.argsort(order)] - direction)
        return cls(np.stack(columns, axis=1).astype(np.float32))

    def __call__(self, descriptions: NDArray[np.float32]) -> Floats:
        """Return how much images, ``(B, 656)``, seem to be turned in some way, ``(B,)``: about −1 if they are not."""
        highest: Floats = (descriptions @ self.weights).max(axis=1)
        return highest


def _edge_channels(gray: Floats) -> Floats:
    """Return the part of the gradient that points in each direction, (B, 8, 48, 48), none below 0."""
    down, right = (np.asarray(gradient)[:, None] for gradient in np.gradient(gray, axis=(1, 2)))
    angles = np.arange(_DIRECTIONS, dtype=np.float32)[:, None, None] * np.float32(2 * np.pi / _DIRECTIONS)
    channels: Floats = np.maximum(np.cos(angles) * right + np.sin(angles) * down, 0)
    return channels


def turned(descriptions: NDArray[np.float32], turn: str) -> NDArray[np.float32]:
    """Return the descriptions, ``(N, 656)``, that the same pictures have after one of ``TURNS``, or ``mirrored``."""
    return descriptions[:, _order(turn)]


@lru_cache(maxsize=len(TURNS) + 1)
def _order(turn: str) -> NDArray[np.int64]:
    """Return from which place each number of a turned picture's description comes."""
    places = np.arange(WIDTH)
    cells = SIDE // _CELL
    edges = places[: _DIRECTIONS * cells**2].reshape(_DIRECTIONS, cells, cells)
    layout = places[_DIRECTIONS * cells**2 :].reshape(1, SIDE // _LAYOUT, -1)
    edges = edges[[_EARLIER_DIRECTION[turn](direction) % _DIRECTIONS for direction in range(_DIRECTIONS)]]
    return np.concatenate([_TURN_GRIDS[turn](edges).ravel(), _TURN_GRIDS[turn](layout).ravel()])
