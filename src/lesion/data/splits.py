"""Split a dataset so that no group of related images stands on both sides."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import DataError
from lesion.core.validation import some

SPLITS = ("train", "val", "calibration", "test")


def split_groups(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    fractions: Mapping[str, float],
    seed: int,
    classes: Sequence[str] = (),
) -> NDArray[np.str_]:
    """Give every image a split, whole groups at a time, with each class's share as near ``fractions`` as groups allow.

    Groups are dealt greedily, the largest first and in a random order among equals, each to the split where it lowers
    the chi-square distance between the wanted and the reached numbers of images a class most. Thus every split gets its
    share of large groups, but none that overfills it. A class with just enough groups left for the splits that
    still have none of it goes to those.

    Args:
        labels: (N,) class indices.
        groups: (N,) group numbers.
        fractions: The share of each split of ``SPLITS``; they sum to 1. One that is left out has 0.
        seed: Orders groups of equal size.
        classes: The names that ``labels`` are indices of, for the error; without them it gives the indices.

    Returns:
        (N,) names of splits.

    Raises:
        DataError: The fractions are not shares of 1, train has none, or a split gets no image of some class.
    """
    names, shares = _shares(fractions)
    if not len(labels):
        raise DataError("There is no image to split: all were refused or excluded.")
    present, label = np.unique(labels, return_inverse=True)
    group = np.unique(groups, return_inverse=True)[1]
    kinds = len(present)
    cells, counts = np.unique(group * kinds + label, return_counts=True)  # a cell: the images of one class in a group
    owner, held = np.divmod(cells, kinds)
    sizes = np.bincount(group)
    bounds = np.searchsorted(owner, np.arange(len(sizes) + 1))
    remaining = np.bincount(held, minlength=kinds)  # groups not dealt yet that hold a class
    wanted = np.outer(shares, np.bincount(label))
    filled = np.zeros_like(wanted)
    chosen = np.zeros(len(sizes), np.int64)
    for number in np.lexsort((np.random.default_rng(seed).random(len(sizes)), -sizes)):
        cell = slice(bounds[number], bounds[number + 1])
        here, count = held[cell], counts[cell]
        target, reached = wanted[:, here], filled[:, here]
        gain = (2 * (target - reached) - count) / target @ count
        missing = reached == 0
        scarce = missing.sum(axis=0) >= remaining[here]
        if scarce.any():
            gain[~missing[:, scarce].any(axis=1)] = -np.inf
        split = int(gain.argmax())
        chosen[number] = split
        filled[split, here] += count
        remaining[here] -= 1
    _check_coverage(filled, names, [classes[index] if classes else str(index) for index in present])
    return np.array(names)[chosen][group]


def split_by_folder(
    source: NDArray[np.str_],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    fractions: Mapping[str, float],
    seed: int,
    classes: Sequence[str] = (),
) -> NDArray[np.str_]:
    """Keep the split that came with the data and take the splits it lacks from its training images, by group.

    Only these are free of groups on both sides: related images in different folders stay where they are.

    Args:
        source: (N,) each image's own split: train, test and perhaps val.
        labels: (N,) class indices.
        groups: (N,) group numbers.
        fractions: As for ``split_groups``; those of train and the lacking splits are scaled to sum to 1.
        seed: Orders groups of equal size.
        classes: As for ``split_groups``.

    Returns:
        (N,) names of splits.

    Raises:
        DataError: There are no train or test images, a class has none in train, or as ``split_groups`` says.
    """
    _shares(fractions)
    present = set(source.tolist())
    if not {"train", "test"} <= present:
        raise DataError(
            "data.split=folder needs folders of train and test images; this data has "
            f"{', '.join(sorted(present - {''})) or 'no split folders'}. Use data.split=grouped."
        )
    train = source == "train"
    absent = np.setdiff1d(labels, labels[train])
    if len(absent):
        raise DataError(
            f"The data's own training split has no image of {len(absent)} of {len(np.unique(labels))} classes "
            f"({some(classes[index] if classes else index for index in absent)}). Add some, or use data.split=grouped."
        )
    lacking = {name: fractions.get(name, 0.0) for name in SPLITS if name == "train" or name not in present}
    total = sum(lacking.values())
    result = source.astype("<U16")
    result[train] = split_groups(
        labels[train], groups[train], {name: share / total for name, share in lacking.items()}, seed, classes
    )
    return result


def _shares(fractions: Mapping[str, float]) -> tuple[list[str], list[float]]:
    """Names and shares of the splits that get images, in the order of ``SPLITS``."""
    values = list(fractions.values())
    known = set(fractions) <= set(SPLITS) and all(value >= 0 for value in values)
    if not known or not abs(sum(values) - 1) <= 1e-6 or not fractions.get("train"):
        raise DataError(
            f"data.fractions must give shares to {', '.join(SPLITS)} that sum to 1, and train more than 0, not "
            f"{dict(fractions)}."
        )
    names = [name for name in SPLITS if fractions.get(name)]
    return names, [fractions[name] for name in names]


def _check_coverage(filled: NDArray[np.float64], names: list[str], classes: list[str]) -> None:
    for name, row in zip(names, filled, strict=True):
        empty = [label for label, count in zip(classes, row, strict=True) if not count]
        if empty:
            raise DataError(
                f"The split '{name}' would get no image of {len(empty)} of {len(row)} classes ({some(empty)}): they "
                "have too few separate groups of images. Every split needs at least one group of each class: add "
                "images of them, or leave these classes out."
            )
