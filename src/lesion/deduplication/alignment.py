"""Batched registration of small pictures: the affine map from one to another, and their correlation under it."""

import numpy as np
from numpy.typing import NDArray

from lesion.deduplication.pictures import SIDE, Floats, cell_sums, centers, sample

_RIDGE = 1e-3  # of the Hessian's mean diagonal: makes pictures with structure in only one direction solvable
_GAIN = (0.5, 2.0)
_OUTLIER = 1.0  # difference, in units of the contrast, from which a point (of burnt-in text) counts less
_MAX_STEP = 0.1
_BLOCK = 8  # pixels: the parts of a picture that are compared separately
_KEPT = 0.8  # share of the blocks that must agree; the others may be covered by text
# Height and width in pixels of the largest text box: 40 % x 12 % of a bordered picture, and what filters see of it.
_TEXT = (12, 30)
_SURE_SHARE, _LEAST_SHARE = 0.8, 0.5  # of all differences in the box: it is text; it is as likely anything else
_LEAST_DOUBT, _MOST_DOUBT = 0.005, 0.035  # what the correlation without the box loses then
_GRID = 2  # pixels between the places of a box that are tried


def align(template: Floats, moving: Floats, start: Floats, *, iterations: int, step: int) -> Floats:
    """Find the affine maps from template to moving coordinates by inverse-compositional Lucas-Kanade with a free gain.

    The template's gradients are computed once; each iteration only samples ``moving`` again, and gives points that
    do not fit less weight (Baker and Matthews, "Lucas-Kanade 20 years on", 2004).

    Args:
        template: (P, S, S), about zero mean and unit variance.
        moving: (P, S, S), the same.
        start: (P, 2, 3) first guess; coordinates are (x, y) in [-1, 1] from edge to edge.
        iterations: Gauss-Newton steps.
        step: Distance in pixels between the points at which the error is sampled.

    Returns:
        (P, 2, 3) maps; a map that diverged stays finite, and the pictures do not correlate under it.
    """
    pairs, side, _ = template.shape
    rows = np.arange(step // 2, side, step)
    points = centers(side, step)
    target = template[:, rows][:, :, rows].reshape(pairs, -1)
    descent = _steepest_descent(template, rows, points)
    warp = _square(start)
    for _ in range(iterations):
        sampled, inside = sample(moving, warp[:, :2], points)
        gain = _ratio((target * sampled * inside).sum(axis=1), (sampled * sampled * inside).sum(axis=1))
        error = np.clip(gain, *_GAIN)[:, None] * sampled - target
        weighted = descent * (inside / (1 + (error / np.float32(_OUTLIER)) ** 2))[:, None]
        hessian = weighted @ descent.transpose(0, 2, 1)
        ridge = _RIDGE / 6 * np.trace(hessian, axis1=1, axis2=2) + np.float32(1e-4)
        hessian += ridge[:, None, None] * np.eye(6, dtype=np.float32)
        change = np.linalg.solve(hessian, weighted @ error[:, :, None])[:, :, 0]
        update = np.clip(change, -_MAX_STEP, _MAX_STEP).reshape(pairs, 2, 3)
        warp = warp @ np.linalg.inv(_square(update + np.eye(2, 3, dtype=np.float32)))
    return np.ascontiguousarray(warp[:, :2])


def block_correlation(one: Floats, other: Floats, inside: NDArray[np.bool_]) -> Floats:
    """Return the correlation (P,) of pictures (P, S, S) where they overlap, in the blocks that agree best.

    Args:
        one: (P, S, S) of about zero mean everywhere.
        other: The same.
        inside: (P, S, S), which pixels both pictures have.
    """
    block = _BLOCK * one.shape[1] // SIDE
    both, left, right = (
        cell_sums(product * inside, block).reshape(len(one), -1) for product in (one * other, one * one, other * other)
    )
    lost = _difference(both, left, right)
    order = np.argsort(lost, axis=1)[:, : round(_KEPT * lost.shape[1])]
    return _correlation(*(np.take_along_axis(part, order, axis=1).sum(axis=1) for part in (both, left, right)))


def correlation_with_text(one: Floats, other: Floats, inside: NDArray[np.bool_]) -> Floats:
    """Return the correlation (P,) of pictures (P, S, S) where they overlap, without a box of text if there seems one.

    The box is the one, lying or standing, in which the pictures differ most. A small finding makes two pictures differ
    in one place too, so the correlation without the box counts less, the smaller a part of all differences is in it.
    The arguments are those of :func:`block_correlation`.
    """
    sums = [_summed(product * inside) for product in (one * other, one * one, other * other)]
    whole = [each[:, -1, -1] for each in sums]
    best = _correlation(*whole)
    cells = _TEXT[0] // _GRID, _TEXT[1] // _GRID
    for height, width in (cells, cells[::-1]):
        boxes = [_box_sums(each, height, width) for each in sums]
        difference = _difference(*boxes)
        worst = difference.argmax(axis=1)[:, None]
        without = [each - np.take_along_axis(box, worst, 1)[:, 0] for each, box in zip(whole, boxes, strict=True)]
        share = np.take_along_axis(difference, worst, 1)[:, 0] / np.maximum(_difference(*whole), 1e-6)
        doubt = np.clip((_SURE_SHARE - share) / (_SURE_SHARE - _LEAST_SHARE), 0, 1)
        best = np.maximum(best, _correlation(*without) - (_LEAST_DOUBT + (_MOST_DOUBT - _LEAST_DOUBT) * doubt))
    return np.asarray(best, np.float32)


def _correlation(both: Floats, left: Floats, right: Floats) -> Floats:
    return np.asarray(both / np.sqrt(np.maximum(left * right, 1e-6)), np.float32)


def _difference(both: Floats, left: Floats, right: Floats) -> Floats:
    """Return half the sum of the squared differences."""
    return np.asarray((left + right) / 2 - both, np.float32)


def _summed(pictures: Floats) -> Floats:
    """Return the sum (P, C + 1, C + 1) of all above and left of each corner of a cell of _GRID x _GRID pixels."""
    cells = cell_sums(pictures, _GRID)
    return np.asarray(np.pad(cells, ((0, 0), (1, 0), (1, 0))).cumsum(axis=1).cumsum(axis=2), np.float32)


def _box_sums(summed: Floats, height: int, width: int) -> Floats:
    """Return the sum in each box of a size, (P, boxes)."""
    lower, upper = summed[:, height:], summed[:, :-height]
    boxes = lower[:, :, width:] - lower[:, :, :-width] - upper[:, :, width:] + upper[:, :, :-width]
    return boxes.reshape(len(boxes), -1)


def is_plausible(warp: Floats, *, zoom: float, shift: float) -> NDArray[np.bool_]:
    """Return which maps (P, 2, 3) neither stretch by more than ``zoom`` nor shift by more than a share of the side."""
    stretch = np.linalg.svd(warp[:, :, :2], compute_uv=False)
    near = np.abs(warp[:, :, 2]).max(axis=1) <= 2 * shift
    result: NDArray[np.bool_] = near & (stretch[:, 0] <= zoom) & (stretch[:, 1] >= 1 / zoom)
    return result


def inverse(warp: Floats) -> Floats:
    """Return the maps (P, 2, 3) back."""
    return np.ascontiguousarray(np.linalg.inv(_square(warp))[:, :2])


def _ratio(top: Floats, bottom: Floats) -> Floats:
    return np.asarray(top / np.maximum(bottom, np.float32(1e-6)), np.float32)


def _square(warp: Floats) -> Floats:
    """Extend affine maps (P, 2, 3) to matrices (P, 3, 3)."""
    last = np.broadcast_to(np.array([[0, 0, 1]], np.float32), (len(warp), 1, 3))
    return np.concatenate([warp, last], axis=1)


def _steepest_descent(template: Floats, rows: NDArray[np.int64], points: Floats) -> Floats:
    """Return how the template's values change with each of the six numbers of an affine map, (P, 6, Q)."""
    pairs, side, _ = template.shape
    after, before = np.minimum(rows + 1, side - 1), np.maximum(rows - 1, 0)
    per_unit = np.float32(side / 2) / (after - before).astype(np.float32)
    along_y = ((template[:, after] - template[:, before]) * per_unit[:, None])[:, :, rows].reshape(pairs, -1)
    along_x = ((template[:, :, after] - template[:, :, before]) * per_unit)[:, rows].reshape(pairs, -1)
    return np.concatenate([along_x[:, None] * points, along_y[:, None] * points], axis=1)
