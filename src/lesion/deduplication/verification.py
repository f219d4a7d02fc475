"""Verify proposed pairs: place, register and compare them, always the same image of a pair with the other."""

import numpy as np
from numpy.typing import NDArray

from lesion.deduplication.alignment import align, block_correlation, correlation_beside_text, is_plausible
from lesion.deduplication.batches import chunks, in_threads
from lesion.deduplication.features import Features
from lesion.deduplication.pictures import (
    ORIENTATIONS,
    SIDE,
    Floats,
    Ints,
    centers,
    even_contrast,
    orient,
    oriented_bounds,
    sample,
    within,
)
from lesion.deduplication.placement import Placements, place

FITTING = 0.4  # least correlation of coarse pictures
FITTING_NEAREST = 40  # partners of each image that are registered
ALIKE = 0.5  # least correlation half-way through the registration

_MAX_ZOOM, _MAX_SHIFT = 1.5, 0.25
_LEAST_OVERLAP = 0.45  # of the pictures' area
_COMPARED_SIGMA = 0.7  # pixels: the finest detail tells look-alikes from copies
_MARGIN = 0.06  # of the side at each edge, beyond which filters would have seen


def verify(features: Features, pairs: Ints, *, always: int) -> Floats:
    """Return the score (P,) of pairs (P, 2) of images; 0 for most.

    Only the ``FITTING_NEAREST`` partners that fit best of both images are compared, and the ``always`` best of either.
    """
    score = np.zeros(len(pairs), np.float32)
    if not len(pairs):
        return score
    turned = features.keys[pairs[:, 0]] > features.keys[pairs[:, 1]]
    pairs = np.where(turned[:, None], pairs[:, ::-1], pairs)
    placements = place(features.fine, pairs)
    fit = np.abs(placements.correlation)
    fitting = np.flatnonzero(fit >= FITTING)
    fitting = fitting[_nearest(pairs[fitting], fit[fitting], features.keys, always)]
    parts = [fitting[part] for part in chunks(len(fitting))]
    scores = in_threads(lambda rows: _registered(features, pairs[rows], placements.part(rows)), parts)
    for rows, part in zip(parts, scores, strict=True):
        score[rows] = part
    return score


def _nearest(pairs: Ints, fit: Floats, keys: NDArray[np.uint64], always: int) -> NDArray[np.bool_]:
    """Return which pairs (P,) are among the best of both of their images, or among the ``always`` best of one."""
    image, other = pairs.ravel(), pairs[:, ::-1].ravel()
    order = np.lexsort((keys[other], -np.repeat(fit, 2), image))
    starts = np.searchsorted(image[order], np.arange(image.max(initial=0) + 1))
    rank = np.empty(len(image), np.int64)
    rank[order] = np.arange(len(image)) - starts[image[order]]
    worse, better = rank.reshape(-1, 2).max(axis=1), rank.reshape(-1, 2).min(axis=1)
    result: NDArray[np.bool_] = (worse < FITTING_NEAREST) | (better < always)
    return result


def _registered(features: Features, pairs: Ints, placements: Placements) -> Floats:
    """Register pairs from where they were placed, and return their scores (P,)."""
    score = np.zeros(len(pairs), np.float32)
    sign = np.sign(placements.correlation)[:, None, None]
    template = _oriented(features.fine[pairs[:, 1]].astype(np.float32), placements.orientation)
    moving = features.fine[pairs[:, 0]].astype(np.float32) * sign
    warp = align(template, moving, placements.warp, iterations=3, step=3)
    alike = is_plausible(warp, zoom=_MAX_ZOOM, shift=_MAX_SHIFT)
    alike &= _agreement(template, moving, warp) >= ALIKE
    if not alike.any():
        return score
    rows = np.flatnonzero(alike)
    warp = align(template[rows], moving[rows], warp[rows], iterations=4, step=2)
    plausible = is_plausible(warp, zoom=_MAX_ZOOM, shift=_MAX_SHIFT)
    compared = _comparison(features, pairs[rows], placements.part(rows), warp)
    score[rows] = np.where(plausible, compared, 0)
    return score


def _agreement(template: Floats, moving: Floats, warp: Floats) -> Floats:
    """Return the correlation (P,) of registered pictures where they overlap, from every second pixel."""
    half = template[:, 1::2, 1::2]
    sampled, inside = sample(moving, warp, centers(SIDE, 2))
    return block_correlation(half, sampled.reshape(half.shape), inside.reshape(half.shape))


def _comparison(features: Features, pairs: Ints, placements: Placements, warp: Floats) -> Floats:
    """Return the correlation (P,) of the gray pictures where both are; both get even contrast at the same scale."""
    first, second = pairs.T
    points, edge = centers(SIDE), np.float32(1 - 2 * _MARGIN)
    bounds = oriented_bounds(features.bounds[second], placements.orientation)
    inside = within(points[:2], np.clip(bounds, -edge, edge))
    inside &= within(np.asarray(warp @ points, np.float32), np.clip(features.bounds[first], -edge, edge))
    template = _oriented(features.gray[second].astype(np.float32), placements.orientation)
    moving = features.gray[first] * np.sign(placements.correlation)[:, None, None]
    sampled = sample(moving, warp, points)[0].reshape(template.shape)
    template, sampled = even_contrast(template, _COMPARED_SIGMA), even_contrast(sampled, _COMPARED_SIGMA)
    result = correlation_beside_text(template, sampled, inside.reshape(template.shape))
    return np.where(inside.mean(axis=1) >= _LEAST_OVERLAP, result, 0)


def _oriented(pictures: Floats, orientation: Ints) -> Floats:
    """Return each of the pictures (P, S, S) in its own orientation (P,)."""
    result = np.empty_like(pictures)
    for number in range(ORIENTATIONS):
        rows = np.flatnonzero(orientation == number)
        result[rows] = orient(pictures[rows], number)
    return result
