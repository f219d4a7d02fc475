"""Groups of images: the connected components of pairs and of common keys."""

import numpy as np
from numpy.typing import ArrayLike

from lesion.deduplication.pictures import Ints


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
