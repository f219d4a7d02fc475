"""How a picture lies: histograms of the directions of its edges, as they are and as they would be if it were turned.

The descriptor of a turned picture has the same numbers in another order, so that the references need not be described
again for each way to turn them.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE = 48  # of the reduced picture
_CELL = 6
_DIRECTIONS = 8
_LAYOUT = 4  # side of the cells of gray
_LAYOUT_WEIGHT, _EDGE_WEIGHT = 0.25, 2.0
_FLAT = 1e-2  # deviation of gray, in [0, 1], below which a picture counts as blank
WIDTH = _DIRECTIONS * (_SIDE // _CELL) ** 2 + (_SIDE // _LAYOUT) ** 2
TURNS = ("upside_down", "half_turn", "quarter_left", "quarter_right")

Floats = NDArray[np.floating[Any]]


def describe_orientation(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the descriptors of pictures, ``(B, S, S, 3)`` uint8 RGB, as ``(B, WIDTH)`` float32."""
    gray = np.stack(
        [
            np.asarray(Image.fromarray(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX))
            for image in images
        ]
    )
    return _describe(gray.astype(np.float32) / 255)


def _describe(gray: Floats) -> NDArray[np.float32]:
    deviation = gray.std(axis=(1, 2), keepdims=True)
    normal = (gray - gray.mean(axis=(1, 2), keepdims=True)) / (deviation + _FLAT)
    down, right = np.gradient(normal, axis=(1, 2))
    strength = np.hypot(down, right)
    turn = (np.arctan2(down, right) / (2 * np.pi)) % 1 * _DIRECTIONS
    low = np.floor(turn).astype(int) % _DIRECTIONS
    upper = turn - np.floor(turn)
    cells = [
        _cell_means(
            strength * ((low == direction) * (1 - upper) + ((low + 1) % _DIRECTIONS == direction) * upper), _CELL
        )
        for direction in range(_DIRECTIONS)
    ]
    edges = np.stack(cells, axis=1).reshape(len(gray), -1)
    layout = _cell_means(normal, _LAYOUT).reshape(len(gray), -1)
    return np.concatenate([_EDGE_WEIGHT * edges, _LAYOUT_WEIGHT * layout], axis=1).astype(np.float32)


def _cell_means(values: Floats, side: int) -> Floats:
    count, height, width = values.shape
    means: Floats = values.reshape(count, height // side, side, width // side, side).mean(axis=(2, 4))
    return means


def turned(descriptors: NDArray[np.float32], turn: str) -> NDArray[np.float32]:
    """Return the descriptors, ``(N, WIDTH)``, that the same pictures have after one of ``TURNS``."""
    return descriptors[:, _order(turn)]


@lru_cache(maxsize=len(TURNS))
def _order(turn: str) -> NDArray[np.int64]:
    """Return from which place each number of a turned picture's descriptor comes."""
    places = np.arange(WIDTH)
    cells = _SIDE // _CELL
    edges = places[: _DIRECTIONS * cells**2].reshape(_DIRECTIONS, cells, cells)
    layout = places[_DIRECTIONS * cells**2 :].reshape(1, _SIDE // _LAYOUT, -1)
    # direction d of the turned picture was this direction before; angles grow from right to down
    source = {
        "upside_down": lambda d: -d,
        "half_turn": lambda d: d + _DIRECTIONS // 2,
        "quarter_left": lambda d: d + _DIRECTIONS // 4,
        "quarter_right": lambda d: d - _DIRECTIONS // 4,
    }[turn]
    edges = edges[[source(direction) % _DIRECTIONS for direction in range(_DIRECTIONS)]]
    move = {
        "upside_down": lambda grid: grid[:, ::-1],
        "half_turn": lambda grid: grid[:, ::-1, ::-1],
        "quarter_left": lambda grid: np.rot90(grid, 1, (1, 2)),
        "quarter_right": lambda grid: np.rot90(grid, -1, (1, 2)),
    }[turn]
    return np.concatenate([move(edges).ravel(), move(layout).ravel()])
