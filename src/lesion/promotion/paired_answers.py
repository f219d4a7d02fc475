"""Two models' answers to the same images: which classes got better or worse, and what unreviewed labels change."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.core.text import format_count
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


@dataclass(frozen=True)
class RightAnswers:
    """How many of some images each of two models answers right, by the labels that the images have."""

    images: int
    champion: int
    challenger: int

    def __add__(self, other: "RightAnswers") -> "RightAnswers":
        return RightAnswers(
            self.images + other.images, self.champion + other.champion, self.challenger + other.challenger
        )

    def accuracies(self) -> dict[str, float] | None:
        """Return the accuracy of each model; None without images."""
        if not self.images:
            return None
        return {"champion": self.champion / self.images, "challenger": self.challenger / self.images}


@dataclass(frozen=True)
class AnswersByReview:
    """Both models' right answers to held-out images, by whether a person reviewed the label.

    The gate decided on the reviewed and the unreviewed images. The gathered and the waiting ones came later. Which of
    those wait depends on what models make of them: the accuracy without them is too high, and the one with them is
    right if their labels are.
    """

    reviewed: RightAnswers  # the first model's data, and uploads whose label a person released or corrected
    unreviewed: RightAnswers  # other uploads
    gathered: RightAnswers  # accepted uploads of the next generation
    waiting: RightAnswers  # held-out uploads in quarantine, by the labels that they were uploaded with

    def to_json(self) -> dict[str, Any]:
        """Return the counts, the accuracies with and without images that nobody reviewed, and all this in sentences."""
        return asdict(self) | {
            "accuracy": {
                "reviewed": self.reviewed.accuracies(),
                "decided": (self.reviewed + self.unreviewed).accuracies(),
                "gathered": self.gathered.accuracies(),
                "gathered_and_waiting": (self.gathered + self.waiting).accuracies(),
            },
            "sentences": list(self.sentences()),
        }

    def sentences(self) -> tuple[str, ...]:
        """Return what the unreviewed and the waiting images change, in words; nothing without any."""
        said = []
        if self.unreviewed.images:
            decided = self.reviewed + self.unreviewed
            said.append(
                f"Nobody reviewed the labels of {self.unreviewed.images:,} of the {decided.images:,} images that the "
                f"gate decided on. With them {_accuracies(decided)}; without them {_accuracies(self.reviewed)}."
            )
        if self.waiting.images:
            newer, verb = self.gathered + self.waiting, "waits" if self.waiting.images == 1 else "wait"
            count = format_count(newer.images, "newer held-out image")
            said.append(
                f"{count} did not count, since {self.waiting.images:,} of them {verb} in quarantine. On all of them, "
                f"with the labels as uploaded, {_accuracies(newer)}; without those in quarantine "
                f"{_accuracies(self.gathered)}, which favors the champion."
            )
        return tuple(said)


def _accuracies(answers: RightAnswers) -> str:
    shares = answers.accuracies()
    if shares is None:
        return "there are no images"
    return (
        f"the accuracy is {shares['champion']:.3f} for the champion and {shares['challenger']:.3f} for the challenger"
    )


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
