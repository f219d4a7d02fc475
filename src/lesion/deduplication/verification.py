"""Verify proposed pairs: place, register and compare them, always the same image of a pair with the other."""

import numpy as np
from numpy.typing import NDArray

from lesion.deduplication.alignment import align, block_correlation, correlation_with_text, inverse, is_plausible
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

# Chosen from the distributions over planted copies and other pairs; see scripts/bench/duplicates.py.
COPY = 0.95  # the largest group of copies among 6,299 MRI slices has 75 images
RELATED = 0.91  # the largest group of related slices has 432; with lower values look-alikes chain into larger ones

FITTING = 0.4  # least correlation of coarse pictures
FITTING_NEAREST = 32  # partners of each image that are registered, if it is among theirs too
ALWAYS = 4  # and those that need not have it among theirs: equal images stay connected
ALIKE = 0.7  # least correlation half-way through the registration

_MAX_ZOOM, _MAX_SHIFT = 1.5, 0.25
_LEAST_OVERLAP = 0.35  # of the smaller picture's area
_WORTH_SECOND_LOOK = 0.82  # pairs below it never become related without the margins of their pictures
_COMPARED_SIGMA = 0.7  # pixels: the finest detail tells look-alikes from copies
_MARGIN = 0.06  # of the side at each edge, beyond which filters would have seen


def verify(features: Features, pairs: Ints) -> Floats:
    """Return the score (P,) of pairs (P, 2) of images; 0 for most.

    Only the ``FITTING_NEAREST`` partners that fit best of both images are compared, and the ``ALWAYS`` best of either.
    """
    score = np.zeros(len(pairs), np.float32)
    if not len(pairs):
        return score
    turned = features.keys[pairs[:, 0]] > features.keys[pairs[:, 1]]
    pairs = np.where(turned[:, None], pairs[:, ::-1], pairs)
    placements = place(features.fine, pairs)
    fit = np.abs(placements.correlation[:, 0])
    fitting = np.flatnonzero(fit >= FITTING)
    fitting = fitting[_nearest(pairs[fitting], fit[fitting], features.keys)]
    parts = [fitting[part] for part in chunks(len(fitting))]
    scores = in_threads(lambda rows: _register_and_compare(features, pairs[rows], placements.part(rows)), parts)
    for rows, part in zip(parts, scores, strict=True):
        score[rows] = part
    return score


def _nearest(pairs: Ints, fit: Floats, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which pairs (P,) are among the best of both of their images, or among the ``ALWAYS`` best of one."""
    image, other = pairs.ravel(), pairs[:, ::-1].ravel()
    order = np.lexsort((keys[other], -np.repeat(fit, 2), image))
    starts = np.searchsorted(image[order], np.arange(image.max(initial=0) + 1))
    rank = np.empty(len(image), np.int64)
    rank[order] = np.arange(len(image)) - starts[image[order]]
    worse, better = rank.reshape(-1, 2).max(axis=1), rank.reshape(-1, 2).min(axis=1)
    result: NDArray[np.bool_] = (worse < FITTING_NEAREST) | (better < ALWAYS)
    return result


def _register_and_compare(features: Features, pairs: Ints, placements: Placements) -> Floats:
    """Register pairs from the ways in which they may fit, compare them in the best one, and return the scores (P,)."""
    score = np.zeros(len(pairs), np.float32)
    row, way = np.nonzero(placements.correlation)
    ways = placements.part((row, way))
    template = _oriented(features.fine[pairs[row, 1]].astype(np.float32), ways.orientation)
    moving = features.fine[pairs[row, 0]].astype(np.float32) * np.sign(ways.correlation)[:, None, None]
    warp = align(template, moving, ways.warp, iterations=3, step=3)
    agreement = _agreement(template, moving, warp)
    agreement[~is_plausible(warp, zoom=_MAX_ZOOM, shift=_MAX_SHIFT)] = 0
    order = np.lexsort((-agreement, row))
    best = order[np.unique(row[order], return_index=True)[1]]
    best = best[agreement[best] >= ALIKE]
    if not len(best):
        return score
    warp = align(template[best], moving[best], warp[best], iterations=4, step=2)
    plausible = is_plausible(warp, zoom=_MAX_ZOOM, shift=_MAX_SHIFT)
    compared = _comparison(features, pairs[row[best]], ways.part(best), warp)
    score[row[best]] = np.where(plausible, compared, 0)
    return score


def _agreement(template: Floats, moving: Floats, warp: Floats) -> Floats:
    """Return the correlation (P,) of registered pictures where they overlap, from every second pixel."""
    half = template[:, 1::2, 1::2]
    sampled, inside = sample(moving, warp, centers(SIDE, 2))
    return block_correlation(half, sampled.reshape(half.shape), inside.reshape(half.shape))


def _comparison(features: Features, pairs: Ints, ways: Placements, warp: Floats) -> Floats:
    """Return the correlation (P,) of registered pictures, if need be without the margins that may be a border."""
    result = _correlation_within(features, features.bounds, pairs, ways, warp)
    again = np.flatnonzero((result >= _WORTH_SECOND_LOOK) & (result < RELATED))
    if len(again):
        inner = _correlation_within(features, features.inner, pairs[again], ways.part(again), warp[again])
        result[again] = np.maximum(result[again], inner)
    return result


def _correlation_within(features: Features, all_bounds: Floats, pairs: Ints, ways: Placements, warp: Floats) -> Floats:
    """Return the correlation (P,) of the gray pictures within the bounds of both, with even contrast at one scale.

    The picture that shows more of the scene has its detail coarser: the other one is sampled at its pixels.
    """
    first, second = pairs.T
    enlarged = (np.linalg.det(warp[:, :, :2]) < 1)[:, None, None]
    one = features.gray[first] * np.sign(ways.correlation)[:, None, None]
    other = _oriented(features.gray[second].astype(np.float32), ways.orientation)
    one_bounds, other_bounds = all_bounds[first], oriented_bounds(all_bounds[second], ways.orientation)
    template, moving = np.where(enlarged, one, other), np.where(enlarged, other, one)
    template_bounds, moving_bounds = (
        np.where(enlarged, each, rest) for each, rest in ((one_bounds, other_bounds), (other_bounds, one_bounds))
    )
    warp = np.where(enlarged, inverse(warp), warp)
    points, edge = centers(SIDE), np.float32(1 - 2 * _MARGIN)
    inside = within(points[:2], np.clip(template_bounds, -edge, edge))
    inside &= within(np.asarray(warp @ points, np.float32), np.clip(moving_bounds, -edge, edge))
    sampled = sample(moving, warp, points)[0].reshape(template.shape)
    template, sampled = even_contrast(template, _COMPARED_SIGMA), even_contrast(sampled, _COMPARED_SIGMA)
    result = correlation_with_text(template, sampled, inside.reshape(template.shape))
    area = np.prod((all_bounds[:, :, 1] - all_bounds[:, :, 0]) / 2, axis=1)
    area = np.minimum(area[first], area[second])
    return np.where(inside.mean(axis=1) >= _LEAST_OVERLAP * area, result, 0)


def _oriented(pictures: Floats, orientation: Ints) -> Floats:
    """Return each of the pictures (P, S, S) in its own orientation (P,)."""
    result = np.empty_like(pictures)
    for number in range(ORIENTATIONS):
        rows = np.flatnonzero(orientation == number)
        result[rows] = orient(pictures[rows], number)
    return result
