"""Two models' answers to the same images, and how often each class got better or worse, by groups of images."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.evaluation.probabilities import Ints

Bools = NDArray[np.bool_]
Floats64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PairedAnswers:
    """The class that each of two models gives to each of N images."""

    labels: Ints  # ``(N,)`` indices below ``classes``
    groups: NDArray[Any]  # ``(N,)`` of any type; equal ones belong together
    champion: Ints  # ``(N,)`` indices below ``classes``
    challenger: Ints  # ``(N,)`` indices below ``classes``
    classes: int

    def swapped(self) -> "PairedAnswers":
        """Return the same answers with champion and challenger exchanged."""
        return replace(self, champion=self.challenger, challenger=self.champion)


@dataclass(frozen=True, eq=False)
class ClassChanges:
    """How many of each class's images got better and worse, with groups counted as if each changed as a whole.

    Images of one patient are not independent. In the worst case all of them change together; then the images of a class
    are worth only as many independent ones as Kish (1965) gives for groups of unequal size: the square of their number
    divided by the sum of the squared sizes of their groups. That is too many where large groups change more often than
    small ones; then the changed images are worth the square of their number divided by the sum of the squared net
    changes of their groups, and all images in proportion. All three counts are scaled to the lower one of the two.
    Where each group has one image of the class they are plain counts.
    """

    better: Floats64  # ``(C,)``
    worse: Floats64  # ``(C,)``
    images: Floats64  # ``(C,)`` independent images that the class's images are worth; 0 without images


def class_changes(labels: Ints, groups: NDArray[Any], before: Bools, after: Bools, classes: int) -> ClassChanges:
    """Count each class's changes between two models' hits, ``before`` and ``after``, both ``(N,)``."""
    _, codes = np.unique(groups, return_inverse=True)
    cells, cell = np.unique(codes * classes + labels, return_inverse=True)
    of_class = cells % classes
    size = np.bincount(cell).astype(float)
    net: Floats64 = np.bincount(cell, weights=after.astype(float) - before.astype(float)).astype(float)

    def total(values: Floats64) -> Floats64:
        return np.bincount(of_class, weights=values, minlength=classes).astype(float)

    images = total(size)
    kish = np.divide(images, total(size**2), out=np.zeros(classes), where=images > 0)
    changed = total(np.abs(net))
    scale = np.minimum(kish, np.divide(changed, total(net**2), out=np.ones(classes), where=changed > 0))
    return ClassChanges(scale * total(np.maximum(net, 0)), scale * total(np.maximum(-net, 0)), scale * images)
