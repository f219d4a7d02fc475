"""Batched registration of small pictures: the affine map from one to another, and their correlation under it."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_RIDGE = 1e-3  # of the Hessian's mean diagonal: makes pictures with structure in only one direction solvable
_GAIN = (0.5, 2.0)


def align(template: Floats, moving: Floats, start: Floats, *, iterations: int, step: int) -> Floats:
    """Find the affine maps from template to moving coordinates by inverse-compositional Lucas-Kanade with a free gain.

    The template's gradients and Hessian are computed once; each iteration only samples ``moving`` again
    (Baker and Matthews, "Lucas-Kanade 20 years on", 2004).

    Args:
        template: (P, S, S), about zero mean and unit variance.
        moving: (P, S, S), the same.
        start: (P, 2, 3) first guess; coordinates are (x, y) in [-1, 1] from edge to edge.
        iterations: Gauss-Newton steps.
        step: Distance in pixels between the points at which the error is sampled.

    Returns:
        (P, 2, 3) maps; a map that diverged stays finite and has a large displacement.
    """
    pairs, side, _ = template.shape
    rows = np.arange(step // 2, side, step)
    x, y = _grid(side, step)
    target = template[:, rows][:, :, rows].reshape(pairs, len(x))
    descent = _steepest_descent(template, rows, x, y)
    hessian = descent.transpose(0, 2, 1) @ descent
    ridge = _RIDGE / 6 * np.trace(hessian, axis1=1, axis2=2) + np.float32(1e-6)
    inverse = np.linalg.inv(hessian + ridge[:, None, None] * np.eye(6, dtype=np.float32))
    warp = _square(start)
    for _ in range(iterations):
        sampled, inside = _sample(moving, warp, x, y, margin=0.0)
        sampled *= inside
        gain = (target * sampled).sum(axis=1) / np.maximum((sampled * sampled).sum(axis=1), 1e-6)
        error = (np.clip(gain, *_GAIN)[:, None] * sampled - target) * inside
        change = (inverse @ (error[:, None] @ descent).transpose(0, 2, 1))[:, :, 0]
        update = np.clip(change, -0.1, 0.1).reshape(pairs, 2, 3)
        warp = warp @ np.linalg.inv(_square(update + np.eye(2, 3, dtype=np.float32)))
    return np.ascontiguousarray(warp[:, :2])


def correlation(template: Floats, moving: Floats, warp: Floats, *, margin: float, step: int) -> Floats:
    """Return the Pearson correlation (P,) of each template (S, S) with its warped moving picture.

    Args:
        template: (P, S, S).
        moving: (P, S, S).
        warp: (P, 2, 3) from :func:`align`.
        margin: Share of the side that is ignored at each edge of both pictures, where filters saw beyond the edge.
        step: Distance in pixels between the points at which the pictures are sampled.
    """
    side = template.shape[1]
    x, y = _grid(side, step)
    rows = np.arange(step // 2, side, step)
    sampled, inside = _sample(moving, warp, x, y, margin=margin)
    inside &= (np.abs(x) < 1 - 2 * margin) & (np.abs(y) < 1 - 2 * margin)
    target = template[:, rows][:, :, rows].reshape(len(template), len(x))
    count = np.maximum(inside.sum(axis=1, keepdims=True), 1)
    sampled = (sampled - (sampled * inside).sum(axis=1, keepdims=True) / count) * inside
    target = (target - (target * inside).sum(axis=1, keepdims=True) / count) * inside
    norms = (sampled * sampled).sum(axis=1) * (target * target).sum(axis=1)
    result: Floats = (sampled * target).sum(axis=1) / np.sqrt(np.maximum(norms, 1e-12))
    return result


def displacement(warp: Floats) -> Floats:
    """Return the longest way (P,) that each map moves a corner of the picture, as a share of its side."""
    corners = np.array([[-1, -1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, 1]], np.float32)
    moved = corners @ warp.transpose(0, 2, 1)
    result: Floats = np.abs(moved - corners[:, :2]).max(axis=(1, 2)) / 2
    return result


def _grid(side: int, step: int) -> tuple[Floats, Floats]:
    """Return the x and y (Q,) of the center of every ``step``-th pixel."""
    centers = ((np.arange(step // 2, side, step) + 0.5) * 2 / side - 1).astype(np.float32)
    y, x = np.meshgrid(centers, centers, indexing="ij")
    return x.ravel(), y.ravel()


def _square(warp: Floats) -> Floats:
    """Extend affine maps (P, 2, 3) to matrices (P, 3, 3)."""
    last = np.broadcast_to(np.array([[0, 0, 1]], np.float32), (len(warp), 1, 3))
    return np.concatenate([warp, last], axis=1)


def _steepest_descent(template: Floats, rows: NDArray[np.int64], x: Floats, y: Floats) -> Floats:
    """Return how the template's values change with each of the six numbers of an affine map, (P, Q, 6)."""
    pairs, side, _ = template.shape
    after, before = np.minimum(rows + 1, side - 1), np.maximum(rows - 1, 0)
    per_unit = side / 2 / (after - before).astype(np.float32)
    along_y = ((template[:, after] - template[:, before]) * per_unit[:, None])[:, :, rows].reshape(pairs, len(x))
    along_x = ((template[:, :, after] - template[:, :, before]) * per_unit)[:, rows].reshape(pairs, len(x))
    return np.stack([along_x * x, along_x * y, along_x, along_y * x, along_y * y, along_y], axis=-1)


def _sample(moving: Floats, warp: Floats, x: Floats, y: Floats, *, margin: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Return bilinear samples (P, Q) at the mapped points, and which of them lie inside the margin."""
    side = moving.shape[1]
    points = np.stack([x, y, np.ones_like(x)])
    pixels = (warp[:, :2] @ points + 1) * (side / 2) - 0.5
    low, high = margin * side, side - 1 - margin * side
    inside = ((pixels >= low) & (pixels <= high)).all(axis=1)
    np.clip(pixels, 0, side - 1.001, out=pixels)
    whole = np.floor(pixels)
    part = pixels - whole
    corner = (whole[:, 1] * side + whole[:, 0]).astype(np.int32)
    corner += (np.arange(len(moving), dtype=np.int32) * (side * side))[:, None]
    flat = moving.ravel()
    upper, lower = (
        left + part[:, 0] * (flat.take(start + 1) - left)
        for start in (corner, corner + side)
        for left in [flat.take(start)]
    )
    return upper + part[:, 1] * (lower - upper), inside
