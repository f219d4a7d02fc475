"""Propose the pairs of images that are worth a closer look: those with the most similar signatures."""

import numpy as np

from lesion.deduplication.batches import in_threads
from lesion.deduplication.edge_signatures import COMPARED, FRAMES, oriented
from lesion.deduplication.features import Features
from lesion.deduplication.pictures import ORIENTATIONS, Floats, Ints

_ROWS, _COLUMNS = 16, 1024  # of a block, whose similarities stay in the processor's cache
_STRIPE = 256
_PARTNERS = [[one for one, other in COMPARED if other == frame] for frame in range(FRAMES)]  # of each frame
_ALWAYS = 2  # nearest partners of an image of one set that need not have it among theirs: equal images stay connected


class _Nearest:
    """The most similar partners that each image has so far."""

    def __init__(self, images: int, count: int) -> None:
        self.similarity = np.full((images, count), -1, np.float32)
        self.partner = np.full((images, count), -1, np.int64)

    def add(self, images: slice, first_partner: int, similarity: Floats) -> None:
        """Take in the similarities (I, P) of some images and the partners from ``first_partner`` on."""
        kept = self.similarity.shape[1]
        values = np.concatenate([self.similarity[images], similarity], axis=1)
        best = np.argpartition(values, -kept, axis=1)[:, -kept:]
        known = np.take_along_axis(self.partner[images], np.minimum(best, kept - 1), axis=1)
        self.partner[images] = np.where(best < kept, known, best - kept + first_partner)
        self.similarity[images] = np.take_along_axis(values, best, axis=1)

    def worst(self) -> Floats:
        """Return the similarity (images,) that a partner needs to be among the nearest."""
        return np.asarray(self.similarity.min(axis=1), np.float32)


def propose(query: Features, reference: Features | None, *, least: float, nearest: int) -> Ints:
    """Return the pairs (P, 2) of a query and a reference that are among the ``nearest`` of each other.

    Without ``reference`` the query's own images are compared, and the first row of a pair is the smaller one. Both
    images must have the other among their nearest, and their signatures must be similar by at least ``least``.
    """
    other = query if reference is None else reference
    rows = _Nearest(len(query.keys), nearest)
    columns = rows if reference is None else _Nearest(len(other.keys), nearest if len(query.keys) > nearest else 1)
    for start in range(0, len(query.keys), _STRIPE):
        stripe = slice(start, min(start + _STRIPE, len(query.keys)))
        first = start if reference is None else 0
        similarity = _similarity(query.signatures[stripe], other.signatures[first:])
        if reference is None:
            similarity[np.tril_indices(len(similarity), m=similarity.shape[1])] = -1
        rows.add(stripe, first, similarity)
        if reference is None or len(query.keys) > nearest:  # fewer are all among the nearest
            columns.add(slice(first, None), start, np.ascontiguousarray(similarity.T))
    return _mutual(rows, columns, least, one_set=reference is None)


def _mutual(rows: _Nearest, columns: _Nearest, least: float, *, one_set: bool) -> Ints:
    """Return the sorted pairs (P, 2) in which each image is among the nearest of the other."""
    image, place = np.nonzero(rows.similarity >= max(least, 0.0))
    partner = rows.partner[image, place]
    kept = rows.similarity[image, place] >= columns.worst()[partner]
    if one_set:
        kept |= rows.similarity[image, place] >= np.sort(rows.similarity, axis=1)[image, -_ALWAYS]
    pairs = np.stack([image, partner], axis=1)[kept]
    return np.unique(np.sort(pairs, axis=1) if one_set else pairs, axis=0)


def _similarity(query: Floats, reference: Floats) -> Floats:
    """Return the greatest product (Q, R) of the compared signatures (Q, FRAMES, SIZE) and (R, FRAMES, SIZE)."""
    result = np.full((len(query), len(reference)), -1, np.float32)
    turned = np.ascontiguousarray(oriented(query).transpose(2, 1, 0, 3))  # (FRAMES, Q, 8, SIZE)

    def fill(column: int) -> None:
        part = reference[column : column + _COLUMNS].transpose(1, 2, 0)  # (FRAMES, SIZE, R)
        for row in range(0, len(query), _ROWS):
            best = result[row : row + _ROWS, column : column + _COLUMNS]
            for other, frames in enumerate(_PARTNERS):
                block = turned[frames, row : row + _ROWS]  # (frames, rows, 8, SIZE)
                product = block.reshape(-1, block.shape[-1]) @ part[other]
                highest = product.reshape(len(frames), len(best), ORIENTATIONS, -1).max(axis=(0, 2))
                np.maximum(best, highest, out=best)

    columns = range(0, len(reference), _COLUMNS)
    if len(query) < _ROWS:
        for column in columns:
            fill(column)
    else:
        in_threads(fill, columns)
    return result
