"""Split a dataset so that no group of related images is divided between splits."""

import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import DataError
from lesion.core.text import join_names

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "calibration", "test")
SMALL_DATA = 500  # images; of fewer, a single test split says too little
DEFAULT_FOLDS = 5


def split_groups(
    labels: Ints, groups: Ints, fractions: Mapping[str, float], seed: int, classes: Sequence[str] = ()
) -> NDArray[np.str_]:
    """Assign every image to a split, whole groups at a time, so that each class comes close to ``fractions``.

    Groups are assigned one by one, the largest first and equal ones in random order, each to the split where it lowers
    the chi-square distance between the target and the reached numbers of images per class most. Thus every split gets
    its share of large groups, but none that overfills it. When a class has only as many groups left as there are splits
    without it, its next group goes to one of those.

    For groups of 4, 3, 2 and 1 images of one class and targets of 6 and 4 images:

    >>> groups = np.array([1, 1, 1, 1, 2, 2, 2, 3, 3, 4])
    >>> splits = split_groups(np.zeros(10, np.int64), groups, {"train": 0.6, "test": 0.4}, seed=0)
    >>> dict(zip(groups.tolist(), splits.tolist()))
    {1: 'train', 2: 'test', 3: 'train', 4: 'test'}

    ```
    group  images  gain in train  gain in test  goes to
        1       4           5.33          4.00  train    (0 - 6)² / 6 falls to (4 - 6)² / 6
        2       3           0.50          3.75  test     (0 - 4)² / 4 falls to (3 - 4)² / 4
        3       2           0.67          0.00  train    now full
        4       1          -0.17          0.25  test     now full
    ```

    Args:
        labels: (N,) class indices.
        groups: (N,) group numbers.
        fractions: The share of each split of ``SPLITS``; they sum to 1. A split that is left out has the share 0.
        seed: Orders groups of equal size.
        classes: The names of the classes for error messages, which give the indices without them.

    Returns:
        (N,) names of splits.

    Raises:
        DataError: The fractions do not sum to 1, train has no share, or a split gets no image of some class.
    """
    names, shares = _shares(fractions)
    if not len(labels):
        raise DataError("There is no image to split: all were refused or excluded.")
    present, label = np.unique(labels, return_inverse=True)
    group = np.unique(groups, return_inverse=True)[1]
    chosen, reached = _stratify(label, group, shares, seed)
    _check_coverage(reached, names, [classes[index] if classes else str(index) for index in present])
    return np.array(names)[chosen]


def _stratify(label: Ints, group: Ints, shares: Sequence[float], seed: int) -> tuple[Ints, Floats]:
    """Divide images with labels and groups from 0 on; return each one's part, (N,), and the images (parts, classes)."""
    sizes, classes = np.bincount(group), int(label.max()) + 1
    cells, counts = np.unique(group * classes + label, return_counts=True)  # a cell: one class in one group
    cell_group, cell_class = np.divmod(cells, classes)
    bounds = np.searchsorted(cell_group, np.arange(1, len(sizes)))
    contents = list(zip(np.split(cell_class, bounds), np.split(counts, bounds), strict=True))
    order = np.lexsort((np.random.default_rng(seed).random(len(sizes)), -sizes))
    chosen, reached = _assign(contents, order.tolist(), np.outer(shares, np.bincount(label)))
    return chosen[group], reached


def _assign(contents: Sequence[tuple[Ints, Ints]], order: Iterable[int], targets: Floats) -> tuple[Ints, Floats]:
    """Assign groups to splits, greedily and in a given order.

    ``contents`` holds for each group the classes that it contains, and how many images of each; ``targets`` the
    (splits, classes) numbers of images. Return the split of each group, and the numbers that were reached.
    """
    chosen, reached = np.zeros(len(contents), np.int64), np.zeros_like(targets)
    groups_left = np.bincount(np.concatenate([classes for classes, _ in contents]), minlength=targets.shape[1])
    for group in order:
        classes, counts = contents[group]
        target, current = targets[:, classes], reached[:, classes]
        gain = (2 * (target - current) - counts) / target @ counts  # of chi-square: Σ (current - target)² / target
        missing = current == 0
        scarce = missing.sum(axis=0) >= groups_left[classes]
        if scarce.any():
            gain[~missing[:, scarce].any(axis=1)] = -np.inf
        chosen[group] = gain.argmax()
        reached[chosen[group], classes] += counts
        groups_left[classes] -= 1
    return chosen, reached


def assign_folds(labels: Ints, groups: Ints, folds: int, seed: int, classes: Sequence[str] = ()) -> Ints:
    """Divide images into folds of about equal size, whole groups at a time, each class evenly.

    The arguments are those of :func:`split_groups`. Return the fold of each image, (N,), from 0 on. A class without a
    group for each fold is a DataError.
    """
    present, label = np.unique(labels, return_inverse=True)
    group = np.unique(groups, return_inverse=True)[1]
    counts = _groups_of_each_class(label, group)
    few = [number for number, count in enumerate(counts) if count < folds]
    if few:
        names = [f"{classes[present[number]] if classes else present[number]}: {counts[number]}" for number in few]
        raise DataError(
            f"evaluation.folds={folds} needs {folds} groups of images of each class, and some have fewer "
            f"({join_names(names)}): set evaluation.folds={max(min(counts), 0)} or fewer, or 0 for none."
        )
    return _stratify(label, group, [1 / folds] * folds, seed)[0]


def default_folds(labels: Ints, groups: Ints, classes: Sequence[str]) -> int:
    """Return the number of folds for a cross-validation that nobody asked for: 5 for small data, otherwise 0.

    Of a class with fewer than 5 groups it is their number, and 0 if one has fewer than 4, which a warning says.
    ``labels`` and ``groups`` are (N,), those of ``classes``.
    """
    if len(labels) >= SMALL_DATA:
        return 0
    present, label = np.unique(labels, return_inverse=True)
    counts = _groups_of_each_class(label, groups)
    if min(counts) < len(SPLITS):
        logger.warning(
            "No cross-validation, although there are only %d images: class %s has %d groups of them, and needs %d.",
            len(labels), classes[present[int(np.argmin(counts))]], min(counts), len(SPLITS),
        )  # fmt: skip
        return 0
    return min(DEFAULT_FOLDS, *counts)


def _groups_of_each_class(label: Ints, group: Ints) -> list[int]:
    return [len(np.unique(group[label == number])) for number in range(int(label.max()) + 1)]


def split_by_folder(
    source: NDArray[np.str_],
    labels: Ints,
    groups: Ints,
    fractions: Mapping[str, float],
    seed: int,
    classes: Sequence[str] = (),
) -> NDArray[np.str_]:
    """Keep the split that came with the data and take the missing splits from its training images, by group.

    Only the new splits divide no group: related images in different folders stay where they are.

    ``source``, (N,), is the split that each image came with: train, test and perhaps val. The other arguments, the
    result and the errors are those of ``split_groups``; the fractions of train and the missing splits are scaled to sum
    to 1, and no train or test images, or a class that has none in train, are a DataError too.
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
            f"The training split that came with the data has no image of {len(absent)} of {len(np.unique(labels))} "
            f"classes ({join_names(classes[index] if classes else index for index in absent)}). Add some, or use "
            "data.split=grouped."
        )
    missing = {name: fractions.get(name, 0.0) for name in SPLITS if name == "train" or name not in present}
    shares = {name: share / sum(missing.values()) for name, share in missing.items()}
    splits = source.astype("<U16")
    splits[train] = split_groups(labels[train], groups[train], shares, seed, classes)
    return splits


def _shares(fractions: Mapping[str, float]) -> tuple[list[str], list[float]]:
    """Return the names and shares of the splits that get images, in the order of ``SPLITS``."""
    values = list(fractions.values())
    valid = set(fractions) <= set(SPLITS) and all(value >= 0 for value in values)
    if not valid or not abs(sum(values) - 1) <= 1e-6 or not fractions.get("train"):
        raise DataError(
            f"data.fractions must give shares to {', '.join(SPLITS)} that sum to 1, and train more than 0, not "
            f"{dict(fractions)}."
        )
    names = [name for name in SPLITS if fractions.get(name)]
    return names, [fractions[name] for name in names]


def _check_coverage(reached: Floats, names: list[str], classes: list[str]) -> None:
    for name, row in zip(names, reached, strict=True):
        empty = [label for label, count in zip(classes, row, strict=True) if not count]
        if empty:
            raise DataError(
                f"The split '{name}' would get no image of {len(empty)} of {len(row)} classes ({join_names(empty)}): "
                "they have too few separate groups of images. Every split needs at least one group of each class: add "
                "images of them, or leave these classes out."
            )
