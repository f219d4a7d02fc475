"""Mean distances to the nearest of some reference points."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def mean_distance(points: Floats, references: Floats, neighbors: int) -> Floats:
    """Return the mean distance of each point, ``(B, D)``, to its nearest references, ``(R, D)``, as ``(B,)``.

    With fewer references than ``neighbors``, all are taken.
    """
    squared = np.square(points).sum(axis=1)[:, None] + np.square(references).sum(axis=1) - 2 * points @ references.T
    count = min(neighbors, len(references))
    nearest = np.partition(squared, count - 1, axis=1)[:, :count]
    distances: Floats = np.sqrt(np.maximum(nearest, 0)).mean(axis=1)
    return distances
