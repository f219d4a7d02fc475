"""Split a dataset so that no group of related images stands on both sides."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lesion.errors import DataError

SPLITS = ("train", "val", "calibration", "test")


def split_groups(
    labels: NDArray[np.int64], groups: NDArray[np.int64], fractions: Mapping[str, float], seed: int
) -> NDArray[np.str_]:
    """Give every image a split, whole groups at a time, with each class's share as near ``fractions`` as groups allow.

    Groups are dealt greedily, the largest first and in a random order among equals, each to the split that still
    lacks most of what the group holds.

    Args:
        labels: (N,) class indices.
        groups: (N,) group numbers.
        fractions: The share of each split; they sum to 1.
        seed: Orders groups of equal size.

    Returns:
        (N,) names of splits.

    Raises:
        DataError: The fractions are not shares of 1, or a split gets no image of some class.
    """
    if abs(sum(fractions.values()) - 1) > 1e-6 or min(fractions.values()) < 0:
        raise DataError(f"The split's fractions must be shares that sum to 1, not {dict(fractions)}.")
    names = [name for name, fraction in fractions.items() if fraction > 0]
    classes = int(labels.max()) + 1
    unique, inverse = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(unique), classes))
    np.add.at(counts, (inverse, labels), 1)
    order = np.lexsort((np.random.default_rng(seed).random(len(unique)), -counts.sum(1)))
    totals = counts.sum(0)
    wanted = np.outer([fractions[name] for name in names], totals)
    filled = np.zeros_like(wanted)
    chosen = np.zeros(len(unique), np.int64)
    for group in order:
        lacking = ((wanted - filled) / np.maximum(wanted, 1)) @ counts[group]
        split = int(np.argmax(lacking))
        chosen[group] = split
        filled[split] += counts[group]
    for split, name in enumerate(names):
        empty = np.flatnonzero((filled[split] == 0) & (totals > 0))
        if len(empty):
            raise DataError(
                f"The split '{name}' would get no image of {len(empty)} of {classes} classes: the classes have too few "
                "separate groups of images. Add images, or raise that split's fraction."
            )
    return np.array(names)[chosen][inverse]
