"""Near-duplicate images: a thumbnail per image, the pairs that show the same picture, and the groups that they form.

Medical images of one view look alike, so a global hash cannot tell a copy from another patient. The search therefore
has two stages, and both see locally normalized contrast, so that the inside of a skull counts as much as its bright
outline.

1. **Propose.** Coarse pictures of the query are correlated with those of every reference in six variants (see
   ``_VARIANTS``): mirrored or not, and cropped in neither, in the query or in the reference. A pair whose best variant
   reaches ``CANDIDATE`` is a candidate.
2. **Verify.** The candidate is registered (:mod:`lesion.deduplication.alignment`), starting from its best variant. It
   is a near-duplicate if the registered pictures correlate by at least ``SAME`` and the registration did not move a
   corner farther than ``MAX_DISPLACEMENT``.

Example: a scan, and a copy of it that is mirrored and cropped by 3 % at each edge. They correlate by 0.66 as they are,
by 0.89 with the scan mirrored, and by 0.99 with its enlarged middle mirrored: a candidate, and that is its variant. The
registration starts there, moves a corner by 3 % of the side and ends with a correlation of 0.998: near-duplicates. The
scans of two patients at the same level correlate by at most 0.16, so they are not even registered.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesion.deduplication.alignment import align, correlation, displacement
from lesion.deduplication.features import SIDE, ZOOM, Features, Thumbnails, chunks, extract_features

Ints = NDArray[np.int64]

# Chosen from the distributions over 6,299 MRI slices and 253 leaf photographs; see scripts/bench/duplicates.py.
CANDIDATE = 0.75  # least coarse correlation worth a registration; planted copies reach at least 0.80
ALIKE = 0.9  # least correlation half-way through the registration; pairs that end above SAME have 0.94 by then
SAME = 0.95  # least correlation of registered pictures; at 0.92 look-alikes begin to chain into groups of hundreds
MAX_CANDIDATES = 32  # per image
MAX_DISPLACEMENT = 0.12  # of a corner, as a share of the side: a crop of 6 % with a rotation of 2° moves it by 0.08

_MARGIN = 0.04


class _Variant(NamedTuple):
    """A way in which a query may show the picture of a reference."""

    query: Literal["plain", "zoomed"]  # the coarse picture of the query that is compared
    reference: Literal["plain", "zoomed"]  # the coarse picture of the reference that it is compared with
    mirrored: bool  # whether the query is mirrored first
    zoom: float  # how much larger the reference shows the picture: where the registration starts


_VARIANTS = (
    _Variant("plain", "plain", mirrored=False, zoom=1.0),
    _Variant("plain", "plain", mirrored=True, zoom=1.0),
    _Variant("zoomed", "plain", mirrored=False, zoom=ZOOM),
    _Variant("zoomed", "plain", mirrored=True, zoom=ZOOM),
    _Variant("plain", "zoomed", mirrored=False, zoom=1 / ZOOM),
    _Variant("plain", "zoomed", mirrored=True, zoom=1 / ZOOM),
)
_MIRRORED = np.array([variant.mirrored for variant in _VARIANTS])
_ZOOMS = np.array([variant.zoom for variant in _VARIANTS], np.float32)


def near_duplicate_pairs(thumbnails: Thumbnails) -> Ints:
    """Find pairs of images that show one picture, also re-encoded, resized, brightened, mirrored or slightly rotated.

    Large groups are connected, not listed in full, so that N copies give O(N) pairs: images with equal thumbnails are
    paired with the first of them, and every image with at most ``MAX_CANDIDATES`` later ones. Images without detail
    (blank, black) match nothing.

    Returns:
        (P, 2) sorted pairs of rows, the smaller row first. Give them to :func:`groups`.
    """
    first, inverse = _distinct(thumbnails)
    features = extract_features(thumbnails[first])
    similar = first[search(features, features, later_only=True)]
    has_detail = np.any(features.plain, axis=(1, 2)).reshape(len(first))
    copies = np.flatnonzero((first[inverse] != np.arange(len(inverse))) & has_detail[inverse])
    equal = np.stack([first[inverse[copies]], copies], axis=1)
    return np.unique(np.concatenate([similar, equal]), axis=0)


def near_duplicates_of(query: Thumbnails, reference: Thumbnails) -> Ints:
    """Find the images of ``reference`` that show the same picture as one of ``query``.

    Return (P, 2) sorted pairs (row of query, row of reference). Each query has at most ``MAX_CANDIDATES`` matches; of
    references with equal thumbnails only the first is listed.
    """
    first, inverse = _distinct(query)
    reference_first, _ = _distinct(reference)
    pairs = search(extract_features(query[first]), extract_features(reference[reference_first]), later_only=False)
    rows, matches = np.nonzero(inverse[:, None] == pairs[:, 0])
    return np.unique(np.stack([rows, reference_first[pairs[matches, 1]]], axis=1), axis=0)


def groups(n: int, pairs: Ints) -> Ints:
    """Number (n,) the connected component of each of n images, counted from 0 in order of first appearance.

    >>> groups(5, np.array([[1, 4]])).tolist()
    [0, 1, 2, 3, 1]
    """
    from scipy.sparse import coo_array  # here, since a server's start need not wait for SciPy
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def merge_groups(*keys: ArrayLike) -> Ints:
    """Join images that share a value of any key, directly or through others.

    >>> merge_groups(["anna", "anna", "ben"], [7, 8, 8]).tolist(), merge_groups(["", ""], [-1, -1]).tolist()
    ([0, 0, 0], [0, 1])

    Args:
        keys: At least one; each (N,), text or integers: patients, pixel hashes, groups. ``""`` and ``-1`` mean unknown
            and join nothing.

    Returns:
        Group number (N,), counted from 0 in order of first appearance.
    """
    columns = [np.asarray(key) for key in keys]
    n = len(columns[0])
    pairs = [np.empty((0, 2), np.int64)]
    for values in columns:
        if values.shape != (n,):
            raise ValueError(f"every key needs one value per image: got shapes {[column.shape for column in columns]}")
        rows = np.flatnonzero(values != (-1 if values.dtype.kind in "iu" else ""))
        _, first, inverse = np.unique(values[rows], return_index=True, return_inverse=True)
        pairs.append(np.stack([rows[first[inverse]], rows], axis=1))
    return groups(n, np.concatenate(pairs))


def _distinct(thumbnails: Thumbnails) -> tuple[Ints, Ints]:
    """Return the rows (M,) that have a new thumbnail, and for each image (N,) which of these has its thumbnail."""
    flat = thumbnails.reshape(len(thumbnails), SIDE * SIDE)
    if not len(flat):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    _, first, inverse = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[inverse.reshape(-1)]


def search(query: Features, reference: Features, *, later_only: bool) -> Ints:
    """Return the near-duplicates as sorted pairs (P, 2); ``later_only`` compares a set with its own later rows."""
    accepted = [np.empty((0, 2), np.int64)]
    for rows in chunks(len(query.plain)):
        first = rows.start if later_only else 0
        chunk, others = query.rows(rows), reference.rows(slice(first, None))
        pairs, variant = _propose(chunk, others, later_only=later_only)
        for part in chunks(len(pairs)):
            same = _verify(chunk, others, pairs[part], variant[part])
            accepted.append(pairs[part][same] + np.array([rows.start, first]))
    return np.concatenate(accepted)


def _propose(query: Features, reference: Features, *, later_only: bool) -> tuple[Ints, Ints]:
    """Return the candidates, pairs (P, 2) of rows, and the index (P,) of the variant in which each matches best."""
    best = np.full((len(query.plain), len(reference.plain)), -1, np.float32)
    best_variant = np.zeros(best.shape, np.int8)
    for index, variant in enumerate(_VARIANTS):
        left, right = getattr(query, variant.query), getattr(reference, variant.reference)
        left = left[:, :, ::-1] if variant.mirrored else left
        similarity = np.tensordot(left, right, axes=([1, 2], [1, 2]))
        np.copyto(best_variant, np.int8(index), where=similarity > best)
        np.maximum(best, similarity, out=best)
    if later_only:
        best[np.tril_indices(len(best), m=best.shape[1])] = -1
    crowded = np.flatnonzero((best >= CANDIDATE).sum(axis=1) > MAX_CANDIDATES)
    surplus = np.argpartition(best[crowded], -MAX_CANDIDATES, axis=1)[:, :-MAX_CANDIDATES]
    best[crowded[:, None], surplus] = -1
    pairs = np.argwhere(best >= CANDIDATE)
    return pairs, best_variant[pairs[:, 0], pairs[:, 1]].astype(np.int64)


def _verify(query: Features, reference: Features, pairs: Ints, variant: Ints) -> Ints:
    """Return which of P candidates are the same picture after registration."""
    template, moving = query.fine[pairs[:, 0]].astype(np.float32), reference.fine[pairs[:, 1]].astype(np.float32)
    mirrored = _MIRRORED[variant]
    template[mirrored] = template[mirrored, :, ::-1]
    warp = _ZOOMS[variant][:, None, None] * np.eye(2, 3, dtype=np.float32)
    warp = align(template, moving, warp, iterations=2, step=3)
    alike = np.flatnonzero(correlation(template, moving, warp, margin=_MARGIN, step=3) >= ALIKE)
    template, moving = template[alike], moving[alike]
    warp = align(template, moving, warp[alike], iterations=3, step=2)
    same = correlation(template, moving, warp, margin=_MARGIN, step=1) >= SAME
    return alike[same & (displacement(warp) <= MAX_DISPLACEMENT)]
