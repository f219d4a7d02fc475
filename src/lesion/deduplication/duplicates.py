"""Near-duplicate images: a small descriptor an image, the pairs that show the same picture, the groups they form.

Medical images of one view look alike, so a global hash cannot tell a copy from another patient. The search therefore
has two stages. Matrix products of coarse pictures (each image as it is, mirrored and zoomed) propose candidates; each
candidate is then registered (:mod:`lesion.deduplication.alignment`) and accepted where the registered pictures
correlate. Both stages see locally normalised contrast, so that what lies inside a skull counts as much as its bright
outline.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lesion.deduplication.alignment import Floats, align, correlation, displacement

Ints = NDArray[np.int64]

SIDE = 48

# Chosen from the distributions over 6,299 MRI slices and 253 leaf photographs; see scripts/bench/duplicates.py.
CANDIDATE = 0.75  # least coarse correlation that is worth registering; planted copies reach 0.80 at the worst
ALIKE = 0.9  # least correlation half-way through the registration; pairs that end above SAME have 0.94 by then
SAME = 0.95  # least correlation of registered pictures; at 0.92 look-alikes begin to chain into groups of hundreds
MAX_CANDIDATES = 32  # an image
MAX_DISPLACEMENT = 0.12  # of a corner, as a share of the side: a crop of 6 % with a rotation of 2° moves it by 0.08
MIN_DETAIL = 1.0  # grey levels; a blank or black image has only the noise of its compression

_COARSE_SIGMA, _COARSE_STEP = 1.5, 3
_FINE_SIGMA = 1.0
_CONTRAST_SIGMA, _CONTRAST_FLOOR = 3.0, 0.25
_ZOOM = 1.05
_SCALES = np.array([1, _ZOOM, 1 / _ZOOM], np.float32)
_MARGIN = 0.04
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One image as a uint8 grey ``thumbnail`` (SIDE, SIDE), stretched to a square."""

    thumbnail: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The ``thumbnails`` uint8 (N, SIDE, SIDE) of N images."""

    thumbnails: NDArray[np.uint8]

    @classmethod
    def stack(cls, descriptors: Sequence[Descriptor]) -> "Descriptors":
        """Join single descriptors, in their order."""
        if not descriptors:
            return cls(np.empty((0, SIDE, SIDE), np.uint8))
        return cls(np.stack([descriptor.thumbnail for descriptor in descriptors]))

    def __len__(self) -> int:
        return len(self.thumbnails)


def describe(image: NDArray[np.uint8]) -> Descriptor:
    """Describe a uint8 (H, W, 3) image of any size; about 0.3 ms for one of 224 × 224."""
    grey = Image.fromarray(image).convert("L")
    return Descriptor(np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)))


def near_duplicate_pairs(descriptors: Descriptors) -> Ints:
    """Find pairs of images that show one picture, be it re-encoded, resized, brightened, mirrored or a little turned.

    Large groups are connected, not listed in full, so that N copies give O(N) pairs: images with equal thumbnails are
    tied to the first of them, and every image to at most ``MAX_CANDIDATES`` later ones. Images without detail (blank,
    black) match nothing.

    Returns:
        (P, 2) sorted rows of ``descriptors``, the smaller first. Give them to :func:`groups`.
    """
    first, inverse = _distinct(descriptors)
    distinct = descriptors.thumbnails[first]
    seen = pictures(distinct)
    found = first[search(seen, seen, later_only=True)]
    detailed = np.any(seen.plain, axis=(1, 2)).reshape(len(first))
    copies = np.flatnonzero((first[inverse] != np.arange(len(inverse))) & detailed[inverse])
    equal = np.stack([first[inverse[copies]], copies], axis=1)
    return np.unique(np.concatenate([found, equal]), axis=0)


def near_duplicates_of(query: Descriptors, reference: Descriptors) -> Ints:
    """Find the images of ``reference`` that show the same picture as one of ``query``.

    Returns:
        (P, 2) sorted pairs (row of query, row of reference): for each query at most ``MAX_CANDIDATES`` matches, and of
        references with equal thumbnails the first alone.
    """
    first, inverse = _distinct(query)
    reference_first, _ = _distinct(reference)
    wanted, known = pictures(query.thumbnails[first]), pictures(reference.thumbnails[reference_first])
    found = search(wanted, known, later_only=False)
    counts = np.bincount(found[:, 0], minlength=len(first))
    starts = np.cumsum(counts) - counts
    rows = np.repeat(np.arange(len(inverse)), counts[inverse])
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts[inverse]) - counts[inverse], counts[inverse])
    matches = found[starts[inverse[rows]] + within, 1]
    return np.unique(np.stack([rows, reference_first[matches]], axis=1), axis=0)


def groups(n: int, pairs: Ints) -> Ints:
    """Number (n,) of the connected component of each of n images, counted from 0 in order of first appearance."""
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def merge_groups(*keys: ArrayLike) -> Ints:
    """Join images that share a value of any key, directly or through others.

    Args:
        keys: At least one; each (N,), text or integers: patients, pixel hashes, groups. ``""`` and ``-1`` are unknown
            and tie nothing.

    Returns:
        Group number (N,), counted from 0 in order of first appearance.
    """
    columns = [np.asarray(key) for key in keys]
    n = len(columns[0])
    pairs = [np.empty((0, 2), np.int64)]
    for values in columns:
        if values.shape != (n,):
            raise ValueError(f"every key needs one value an image: got shapes {[column.shape for column in columns]}")
        known = np.flatnonzero(values != (-1 if values.dtype.kind in "iu" else ""))
        _, first, inverse = np.unique(values[known], return_index=True, return_inverse=True)
        pairs.append(np.stack([known[first[inverse]], known], axis=1))
    return groups(n, np.concatenate(pairs))


def _distinct(descriptors: Descriptors) -> tuple[Ints, Ints]:
    """Rows (M,) of the first of each distinct thumbnail, in order, and which of them (N,) each image has."""
    flat = descriptors.thumbnails.reshape(len(descriptors), SIDE * SIDE)
    if not len(flat):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    _, first, inverse = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[inverse.reshape(-1)]


class Pictures(NamedTuple):
    """What the search sees of N images."""

    plain: Floats  # (N, 16, 16) coarse, of zero mean and unit length, so that a product is a correlation; else zero
    zoomed: Floats  # (N, 16, 16) the same of the middle of the image: what a crop of a few per cent leaves
    fine: NDArray[np.float16]  # (N, SIDE, SIDE) for the registration

    def rows(self, part: slice) -> "Pictures":
        """Return some of the images, without copying."""
        return Pictures(self.plain[part], self.zoomed[part], self.fine[part])


def pictures(thumbnails: NDArray[np.uint8]) -> Pictures:
    """Derive the pictures of distinct thumbnails, a chunk at a time so that the temporaries stay small."""
    coarse_side = SIDE // _COARSE_STEP
    result = Pictures(
        np.empty((len(thumbnails), coarse_side, coarse_side), np.float32),
        np.empty((len(thumbnails), coarse_side, coarse_side), np.float32),
        np.empty(thumbnails.shape, np.float16),
    )
    for start in range(0, len(thumbnails), _CHUNK):
        part = slice(start, start + _CHUNK)
        grey = thumbnails[part].astype(np.float32)
        result.plain[part] = _coarse(grey)
        result.zoomed[part] = _coarse(_zoomed(grey))
        result.fine[part], _ = _normalised(grey, _FINE_SIGMA)
    return result


def _normalised(grey: Floats, sigma: float) -> tuple[Floats, Floats]:
    """Band-passed pictures (N, SIDE, SIDE) of even contrast, and the detail (N,) in grey levels they had before."""
    field = _blurred(grey, sigma) - _blurred(grey, 2.5 * sigma)
    detail = field.std(axis=(1, 2))
    field /= np.maximum(detail, 1e-6)[:, None, None]
    return field / np.sqrt(_blurred(field * field, _CONTRAST_SIGMA) + _CONTRAST_FLOOR**2), detail


def _blurred(grey: Floats, sigma: float) -> Floats:
    """Gaussian blur as two matrix products, several times faster than filtering pictures this small."""
    weights = gaussian_filter1d(np.eye(SIDE, dtype=np.float32), sigma, axis=0)
    result: Floats = weights @ grey @ weights.T
    return result


def _coarse(grey: Floats) -> Floats:
    field, detail = _normalised(grey, _COARSE_SIGMA)
    field = field[:, _COARSE_STEP // 2 :: _COARSE_STEP, _COARSE_STEP // 2 :: _COARSE_STEP]
    field = field - field.mean(axis=(1, 2), keepdims=True)
    length = np.linalg.norm(field, axis=(1, 2), keepdims=True)
    return np.where(detail[:, None, None] >= MIN_DETAIL, field / np.maximum(length, 1e-6), 0)


def _zoomed(grey: Floats) -> Floats:
    """The middle of each picture, enlarged by ``_ZOOM`` with linear interpolation."""
    middle = (SIDE - 1) / 2
    position = (np.arange(SIDE) - middle) / _ZOOM + middle
    weights = np.maximum(1 - np.abs(position[:, None] - np.arange(SIDE)), 0).astype(np.float32)
    result: Floats = weights @ grey @ weights.T
    return result


def search(query: Pictures, reference: Pictures, *, later_only: bool) -> Ints:
    """Accepted pairs (P, 2) in order; ``later_only`` to compare one set with its own later rows."""
    accepted = [np.empty((0, 2), np.int64)]
    for start in range(0, len(query.plain), _CHUNK):
        part = query.rows(slice(start, start + _CHUNK))
        first = start if later_only else 0
        left, right, variant = _candidates(part, reference.rows(slice(first, None)), later_only=later_only)
        for piece in np.array_split(np.arange(len(left)), -(-len(left) // _CHUNK) or 1):
            template = part.fine[left[piece]].astype(np.float32)
            mirrored = variant[piece] % 2 == 1
            template[mirrored] = template[mirrored, :, ::-1]
            moving = reference.fine[right[piece] + first].astype(np.float32)
            same = piece[_verify(template, moving, _SCALES[variant[piece] // 2])]
            accepted.append(np.stack([left[same] + start, right[same] + first], axis=1))
    return np.concatenate(accepted)


def _candidates(query: Pictures, reference: Pictures, *, later_only: bool) -> tuple[Ints, Ints, Ints]:
    """Pairs worth registering: row of query, row of reference, and how they match best.

    That is twice the place in ``_SCALES``, plus one when the query is mirrored.
    """
    sides = [(query.plain, reference.plain), (query.zoomed, reference.plain), (query.plain, reference.zoomed)]
    best = np.full((len(query.plain), len(reference.plain)), -1, np.float32)
    variant = np.zeros(best.shape, np.int8)
    for code, (turn, (left, right)) in enumerate((turn, side) for side in sides for turn in (1, -1)):
        similarity = np.tensordot(left[:, :, ::turn], right, axes=([1, 2], [1, 2]))
        np.copyto(variant, np.int8(code), where=similarity > best)
        np.maximum(best, similarity, out=best)
    if later_only:
        best[np.tril_indices(len(best), m=best.shape[1])] = -1
    crowded = np.flatnonzero((best >= CANDIDATE).sum(axis=1) > MAX_CANDIDATES)
    others = np.argpartition(best[crowded], -MAX_CANDIDATES, axis=1)[:, :-MAX_CANDIDATES]
    best[crowded[:, None], others] = -1
    left_row, right_row = np.nonzero(best >= CANDIDATE)
    return left_row, right_row, variant[left_row, right_row].astype(np.int64)


def _verify(template: Floats, moving: Floats, scale: Floats) -> Ints:
    """Which of P pairs of fine pictures are the same one; ``scale`` (P,) is the first guess of the zoom between."""
    warp = scale[:, None, None] * np.eye(2, 3, dtype=np.float32)
    warp = align(template, moving, warp, iterations=2, step=3)
    close = np.flatnonzero(correlation(template, moving, warp, margin=_MARGIN, step=3) >= ALIKE)
    template, moving = template[close], moving[close]
    warp = align(template, moving, warp[close], iterations=3, step=2)
    same = correlation(template, moving, warp, margin=_MARGIN, step=1) >= SAME
    return close[same & (displacement(warp) <= MAX_DISPLACEMENT)]
