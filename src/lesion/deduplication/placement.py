"""Find how one picture lies on another, roughly: try many maps and the eight orientations on coarse pictures."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lesion.deduplication.batches import in_threads
from lesion.deduplication.pictures import ORIENTATIONS, Floats, Ints, centers, oriented_entries, shrink, similarity_maps

COARSE, MIDDLING = 16, 24  # sides of the pictures that are compared, and of those that are sampled for it

_ZOOMS, _ANGLES = (0.8, 0.9, 1.0, 1.12, 1.25), (-13.0, -6.5, 0.0, 6.5, 13.0)
_NEAR_SHIFTS, _FAR_SHIFTS = (-0.2, -0.1, 0.0, 0.1, 0.2), (-0.15, 0.0, 0.15)  # where the side is 2 long
_BATCH = 32
_CANDIDATES = 3  # orientations of each pair that are registered: a head fits nearly as well on its mirror image
_CLOSE = 0.12  # how much worse than the best they may fit


class Placements(NamedTuple):
    """How P pairs fit in their K best ways: the first picture under ``warp`` is the second in ``orientation``."""

    warp: Floats  # (P, K, 2, 3), from the coordinates of the oriented second picture to those of the first
    orientation: Ints  # (P, K)
    correlation: Floats  # (P, K) of coarse pictures, best first; negative if one is the negative of the other; 0: none

    def part(self, rows: slice | Ints | tuple[Ints, Ints]) -> "Placements":
        """Return some of the pairs, or, by a row and a column of each, single ways (P, ...)."""
        return Placements(self.warp[rows], self.orientation[rows], self.correlation[rows])


def place(fine: NDArray[np.float16], pairs: Ints) -> Placements:
    """Find the best placements of each pair of rows (P, 2) of pictures (N, SIDE, SIDE) with even contrast."""
    best = np.zeros((len(pairs), _CANDIDATES), np.int64)
    correlation = np.zeros((len(pairs), _CANDIDATES), np.float32)
    order = np.argsort(pairs[:, 0], kind="stable")
    rows, starts = np.unique(pairs[order, 0], return_index=True)
    members = np.split(order, starts[1:])
    coarse = shrink(fine, COARSE).reshape(len(fine), COARSE * COARSE)

    def fill(batch: slice) -> None:
        for maps, chosen in zip(_moved(shrink(fine[rows[batch]], MIDDLING)), members[batch], strict=True):
            best[chosen], correlation[chosen] = _best(maps, coarse[pairs[chosen, 1]])

    in_threads(fill, [slice(start, start + _BATCH) for start in range(0, len(rows), _BATCH)])
    index, orientation = np.divmod(best, ORIENTATIONS)
    return Placements(_maps()[index], orientation, correlation)


def _best(moved: Floats, second: Floats) -> tuple[Ints, Floats]:
    """Return the best maps and orientations, as one number each, and their correlations, (K, candidates) each.

    ``moved`` is the first picture under each of the maps, (V, COARSE²), zero outside; ``second`` (K, COARSE²).
    """
    count = len(second)
    oriented = second[:, oriented_entries(COARSE)].reshape(count * ORIENTATIONS, -1).T
    energy = _inside() @ (oriented * oriented) * (moved * moved).sum(axis=1, keepdims=True)
    correlation = (moved @ oriented) / np.sqrt(np.maximum(energy, 1e-6))
    each = correlation.reshape(len(moved), count, ORIENTATIONS)
    maps = np.concatenate([each.argmax(axis=0), each.argmin(axis=0)], axis=1)  # as it is, and as a negative
    values = np.concatenate([each.max(axis=0), each.min(axis=0)], axis=1)
    order = np.argsort(-np.abs(values), axis=1, kind="stable")[:, :_CANDIDATES]
    values = np.take_along_axis(values, order, axis=1)
    close = np.abs(values) >= np.abs(values[:, :1]) - _CLOSE
    best = np.take_along_axis(maps, order, axis=1) * ORIENTATIONS + order % ORIENTATIONS
    return best, np.where(close, values, 0)


@cache
def _maps() -> Floats:
    """Return the maps (V, 2, 3) that are tried: every two of zoom, rotation and shift."""
    near = [(1.0, 0.0, x, y) for x in _NEAR_SHIFTS for y in _NEAR_SHIFTS if x or y]
    far = [(x, y) for x in _FAR_SHIFTS for y in _FAR_SHIFTS if x or y]
    zoomed = [(zoom, 0.0, x, y) for zoom in (_ZOOMS[0], _ZOOMS[-1]) for _, _, x, y in near]
    turned = [(1.0, angle, x, y) for angle in (-10.0, 10.0) for x, y in far]
    both = [(zoom, angle, 0.0, 0.0) for zoom in _ZOOMS for angle in _ANGLES]
    zoom, angle, x, y = np.array([*both, *near, *zoomed, *turned]).T
    return similarity_maps(zoom, np.deg2rad(angle), x, y)


@cache
def _pixels() -> tuple[Floats, NDArray[np.bool_]]:
    """Return where each map takes each pixel, (V, 2, COARSE²) in middling pixels, and whether that is inside."""
    pixels = (_maps() @ centers(COARSE) + 1) * np.float32(MIDDLING / 2) - np.float32(0.5)
    inside: NDArray[np.bool_] = np.all((pixels >= -0.5) & (pixels <= MIDDLING - 0.5), axis=1)
    return np.asarray(pixels, np.float32), inside


@cache
def _inside() -> Floats:
    return _pixels()[1].astype(np.float32)


@cache
def _sampler() -> Callable[[Floats], Floats]:
    """Return what samples pictures, (MIDDLING², N), under each map, (V * COARSE², N): a sparse matrix."""
    from scipy.sparse import csr_array  # here, since a server's start need not wait for SciPy

    pixels, inside = _pixels()
    x, y = np.clip(pixels.transpose(1, 0, 2).reshape(2, -1), 0, MIDDLING - 1.001)
    column, row = x.astype(np.int64), y.astype(np.int64)
    right, down, weight = x - column, y - row, inside.ravel()
    corner, target = row * MIDDLING + column, np.arange(len(x))
    values = [(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down]
    places = [corner, corner + 1, corner + MIDDLING, corner + MIDDLING + 1]
    matrix = csr_array(
        (np.concatenate([value * weight for value in values]), (np.tile(target, 4), np.concatenate(places))),
        shape=(len(x), MIDDLING * MIDDLING),
    )
    return lambda pictures: np.asarray(matrix @ pictures, np.float32)


def _moved(first: Floats) -> Floats:
    """Return pictures (N, MIDDLING, MIDDLING) under each of the maps, (N, V, COARSE²), zero outside."""
    sampled = _sampler()(first.reshape(len(first), -1).T)
    return np.ascontiguousarray(sampled.T).reshape(len(first), len(_maps()), -1)
