"""Near-duplicate images: pairs that show one picture, however it was turned, cropped, shifted, inverted or written on.

Medical images of one view look alike, so a global hash cannot tell a copy from another patient. The search therefore
has three stages:

1. **Propose** (:mod:`lesion.deduplication.proposal`). The signatures of the images, which tell how strong the edges of
   each direction are in each part of the picture, are compared in all eight orientations. The most similar pairs stay.
2. **Place** (:mod:`lesion.deduplication.placement`). Coarse pictures of both images are laid on each other in many
   ways, zoomed, turned and shifted. The pairs that fit best in some way stay.
3. **Verify** (:mod:`lesion.deduplication.alignment`). The pictures are registered from there, and compared once more
   where they overlap, except for the parts that fit worst, which may be covered by text. This correlation is the
   pair's score.

One score has two thresholds. From ``COPY`` on, the images show the same picture. From ``RELATED`` on, they may: enough
to keep them on one side of a split, not to refuse one of them.

Of every pair the same image is compared with the other, whichever was asked for: the search from A to B and that from B
to A find the same pairs.
"""

from typing import NamedTuple

import numpy as np

from lesion.deduplication.features import Features, Thumbnails, concatenated, extract_features
from lesion.deduplication.pictures import SIDE, Floats, Ints
from lesion.deduplication.proposal import propose
from lesion.deduplication.verification import verify

# Chosen from the distributions over planted copies and other pairs; see scripts/bench/duplicates.py.
COPY = 0.945  # the largest group of copies among 6,299 MRI slices has 82 images
RELATED = 0.92  # the largest group of related slices has 392; with lower values look-alikes chain into larger ones
SIMILAR = 0.3  # least similarity of signatures
NEAREST = 120  # proposed partners of each image
ALWAYS = 2  # partners of each image that are verified in a search among one set, so that equal images stay connected


class Matches(NamedTuple):
    """Pairs of images that show, or may show, one picture."""

    related: Ints  # (P, 2) sorted pairs of rows
    score: Floats  # (P,) at least ``RELATED``

    @property
    def copies(self) -> Ints:
        """Return the pairs (C, 2) that surely show one picture."""
        return self.related[self.score >= COPY]


def near_duplicate_pairs(thumbnails: Thumbnails) -> Matches:
    """Find the pairs of images, the smaller row first, that show one picture; give them to ``groups``.

    Large groups are connected, not listed in full, so that N copies give O(N) pairs: images with equal thumbnails are
    paired with the first of them, and every image with about ``FITTING_NEAREST`` others. Images without detail
    (blank, black) match nothing.
    """
    first, inverse = _distinct(thumbnails)
    features = extract_features(thumbnails[first])
    found = search(features, None)
    copies = np.flatnonzero((first[inverse] != np.arange(len(inverse))) & features.has_detail[inverse])
    equal = np.stack([first[inverse[copies]], copies], axis=1)
    return _sorted(np.concatenate([first[found.related], equal]), np.append(found.score, np.ones(len(equal))))


def near_duplicates_of(query: Thumbnails, reference: Thumbnails) -> Matches:
    """Find the images of ``reference`` that show the same picture as one of ``query``: pairs of their rows.

    Each image has at most ``FITTING_NEAREST`` matches; of references with equal thumbnails only the first is listed.
    """
    first, inverse = _distinct(query)
    reference_first, _ = _distinct(reference)
    found = search(extract_features(query[first]), extract_features(reference[reference_first]))
    rows, matches = np.nonzero(inverse[:, None] == found.related[:, 0])
    pairs = np.stack([rows, reference_first[found.related[matches, 1]]], axis=1)
    return _sorted(pairs, found.score[matches])


def search(query: Features, reference: Features | None) -> Matches:
    """Return the near-duplicates among distinct images: of a query and a reference, or of a query's own rows."""
    pairs = propose(query, reference, least=SIMILAR, nearest=NEAREST)
    if reference is None:
        score = verify(query, pairs, always=ALWAYS)
    else:
        rows, row = np.unique(pairs[:, 0], return_inverse=True)
        columns, column = np.unique(pairs[:, 1], return_inverse=True)
        both = concatenated(query.taken(rows), reference.taken(columns))
        score = verify(both, np.stack([row, column + len(rows)], axis=1), always=0)
    kept = score >= RELATED
    return Matches(pairs[kept], score[kept])


def _distinct(thumbnails: Thumbnails) -> tuple[Ints, Ints]:
    """Return the rows (M,) that have a new thumbnail, and for each image (N,) which of these has its thumbnail."""
    flat = thumbnails.reshape(len(thumbnails), SIDE * SIDE)
    if not len(flat):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    _, first, inverse = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[inverse.reshape(-1)]


def _sorted(pairs: Ints, score: Floats) -> Matches:
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return Matches(pairs[order], score[order].astype(np.float32))
