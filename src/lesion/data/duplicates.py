"""Near-duplicate images: a small descriptor an image, pairs that show the same picture, and the groups they form."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 32


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One image reduced to a uint8 grey ``thumbnail`` (SIDE, SIDE), stretched to a square."""

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
    """Describe a uint8 (H, W, 3) image."""
    grey = Image.fromarray(image).convert("L")
    return Descriptor(np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)))


def near_duplicate_pairs(descriptors: Descriptors) -> NDArray[np.int64]:
    """Pairs (P, 2), i < j, that show the same picture."""
    pairs = near_duplicates_of(descriptors, descriptors)
    return pairs[pairs[:, 0] < pairs[:, 1]]


def near_duplicates_of(query: Descriptors, reference: Descriptors) -> NDArray[np.int64]:
    """Pairs (P, 2) of a row in ``query`` and a row in ``reference`` that show the same picture."""
    q, r = (_unit(d.thumbnails) for d in (query, reference))
    similarity = np.maximum(q @ r.T, q @ _unit(reference.thumbnails[:, :, ::-1]).T)
    return np.argwhere(similarity > 0.95).astype(np.int64)


def _unit(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    flat = thumbnails.reshape(len(thumbnails), SIDE * SIDE).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def groups(n: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Group number (n,) of each image: connected components of the pairs, numbered by first appearance."""
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def merge_groups(*keys: ArrayLike) -> NDArray[np.int64]:
    """Group number (n,) of images that share any key; "" and -1 tie nothing."""
    n = len(np.asarray(keys[0]))
    pairs = []
    for key in keys:
        values = np.asarray(key)
        known = np.flatnonzero(values != ("" if values.dtype.kind in "UOT" else -1))
        _, first, inverse = np.unique(values[known], return_index=True, return_inverse=True)
        pairs.append(np.stack([known[first[inverse]], known], axis=1))
    return groups(n, np.concatenate(pairs).astype(np.int64))
