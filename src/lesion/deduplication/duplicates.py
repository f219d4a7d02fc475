"""Near-duplicate images: pairs that show one picture, however it was turned, cropped, shifted, inverted or written on.

Medical images of one view look alike, so a global hash cannot tell a copy from another patient. The search therefore
has three stages:

1. **Propose** (:mod:`lesion.deduplication.proposal`). The signatures of the images, which tell how strong the edges of
   each direction are in each part of the picture, are compared in all eight orientations. The most similar pairs stay.
2. **Place** (:mod:`lesion.deduplication.placement`). Coarse pictures of both images are laid on each other in many
   ways, zoomed, turned and shifted. The pairs that fit best in some way stay, with the best ways of each.
3. **Verify** (:mod:`lesion.deduplication.verification`). The pictures are registered from there, and compared once more
   where they overlap, without a box of text if there seems one. This correlation is the pair's score.

One score has two thresholds. From ``COPY`` on, the images show the same picture. From ``RELATED`` on, they may: enough
to keep them on one side of a split, not to refuse one of them.

Of every pair the same image is compared with the other, whichever was asked for: the search from A to B and that from B
to A find the same pairs.
"""

from typing import NamedTuple

import numpy as np

from lesion.deduplication.features import Features, Thumbnails, concatenated, extract_features
from lesion.deduplication.grouping import groups
from lesion.deduplication.pictures import SIDE, Floats, Ints
from lesion.deduplication.proposal import propose
from lesion.deduplication.verification import COPY, RELATED, verify

SIMILAR = 0.3  # least similarity of signatures
NEAREST = 120  # proposed partners of each image


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
    found = _search_one_set(features)
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


def _search_one_set(features: Features) -> Matches:
    """Search among distinct images, and once more among one image of each group of copies.

    Copies are the nearest of each other: in a large group they leave no room for an image that is a little different.
    """
    found = search(features, None)
    single = np.unique(groups(len(features.keys), found.copies), return_index=True)[1]
    if len(single) == len(features.keys):
        return found
    again = search(features.taken(single), None)
    pairs, rows = np.unique(np.concatenate([found.related, single[again.related]]), axis=0, return_index=True)
    return Matches(pairs, np.concatenate([found.score, again.score])[rows])


def search(query: Features, reference: Features | None) -> Matches:
    """Return the near-duplicates among distinct images: of a query and a reference, or of a query's own rows."""
    pairs = propose(query, reference, least=SIMILAR, nearest=NEAREST)
    if reference is None:
        score = verify(query, pairs)
    else:
        rows, row = np.unique(pairs[:, 0], return_inverse=True)
        columns, column = np.unique(pairs[:, 1], return_inverse=True)
        both = concatenated(query.taken(rows), reference.taken(columns))
        score = verify(both, np.stack([row, column + len(rows)], axis=1))
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
