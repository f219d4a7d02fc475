"""Populations on which an earlier gate promoted falsely, or let a class fall: the worst that a random search found.

The search drew classes, their images, groups and both models' errors at random, made the macro-F1 of the expected
confusion matrices equal, and changed the worst ones step by step. In all populations here it is equal or lower.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lesion.promotion.comparison import GateSet
from scripts.bench.gates.simulated_models import Floats, answer


@dataclass(frozen=True)
class Part:
    """Groups of one class, all of one size, whose images get the same answers."""

    label: int
    groups: int
    images: int  # of each group
    champion: Floats  # the probability of each answer, ``(C,)``
    challenger: Floats
    agreement: float  # how much the two models' answers depend on each other, 0 to 1

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw both models' answers to each image."""
        same = np.minimum(self.champion, self.challenger)
        joint = np.diag(same)
        if same.sum() < 1 - 1e-9:
            joint = joint + np.outer(self.champion - same, self.challenger - same) / (1 - same.sum())
        joint = self.agreement * joint + (1 - self.agreement) * np.outer(self.champion, self.challenger)
        cells = rng.choice(joint.size, size=self.groups, p=joint.ravel() / joint.sum())
        first, second = np.divmod(np.repeat(cells, self.images), len(self.champion))
        return first, second


@dataclass(frozen=True)
class Population:
    """A gate set that consists of several parts."""

    parts: tuple[Part, ...]

    def draw(self, rng: np.random.Generator, generation: int = 1) -> GateSet:
        """Draw a generation of the gate set."""
        classes = len(self.parts[0].champion)
        first, second = (np.concatenate(given) for given in zip(*(part.draw(rng) for part in self.parts), strict=True))
        labels = np.concatenate([np.full(part.groups * part.images, part.label) for part in self.parts])
        sizes = np.concatenate([np.full(part.groups, part.images) for part in self.parts])
        groups = np.repeat(np.arange(len(sizes)), sizes)
        names = [f"{generation}-{row}" for row in range(len(labels))]
        return GateSet(generation, labels, groups, answer(first, classes), answer(second, classes), names)

    def macro_f1(self) -> tuple[float, float]:
        """Return champion's and challenger's macro-F1 of the expected confusion matrices."""
        labels = np.array([part.label for part in self.parts])
        images = np.array([part.groups * part.images for part in self.parts])
        scores = []
        for answers in ([part.champion for part in self.parts], [part.challenger for part in self.parts]):
            confusion = np.zeros((len(answers[0]), len(answers[0])))
            np.add.at(confusion, labels, images[:, None] * np.array(answers))
            scores.append(float((2 * np.diag(confusion) / (confusion.sum(axis=0) + confusion.sum(axis=1))).mean()))
        return scores[0], scores[1]


def _answers(classes: int, given: Mapping[int, float], rest: Sequence[int]) -> Floats:
    """Return the probability of each answer: what remains of 1 is given to the classes ``rest`` evenly."""
    others = [c for c in rest if c not in given]
    probabilities = np.zeros(classes)
    if others:
        probabilities[others] = (1 - sum(given.values())) / len(others)
    for c, probability in given.items():
        probabilities[c] = probability
    return np.asarray(probabilities / probabilities.sum())


def _population(
    classes: int,
    rare: Sequence[int],
    common: int,
    hits: tuple[float, float],
    right: tuple[float, float],
    false: tuple[float, float],
    agreement: float,
    large: Sequence[Part] = (),
) -> Population:
    """Combine rare classes of so many images with common ones, of whose images some are given to a rare class.

    Pairs are the champion's and the challenger's: ``hits`` of a rare class's images, the share ``right`` of a common
    one's, and how many images of others are expected to get each rare class, ``false``.
    """
    commons = range(len(rare), classes)
    images = common * len(commons)
    parts = []
    for c, size in enumerate(rare):
        before, after = (_answers(classes, {c: share}, commons) for share in hits)
        parts.append(Part(c, size, 1, before, after, agreement))
    for c in commons:
        before, after = (
            _answers(classes, {**dict.fromkeys(range(len(rare)), number / images), c: share}, commons)
            for number, share in zip(false, right, strict=True)
        )
        parts.append(Part(c, common, 1, before, after, agreement))
    return Population((*parts, *large))


def _patients(classes: int, label: int, other: Sequence[int], number: int, moved: tuple[float, float]) -> Part:
    """Return patients of 20 images each, which all get one of the ``other`` classes with a probability."""
    given = [_answers(classes, {label: 1 - share}, other) for share in moved]
    return Part(label, number, 20, given[0], given[1], 0.6)


# By what happens in them, the populations in which the macro-F1 is equal or lower.
WORST = {
    "3 classes of 3 images, seldom hit, get 8 of others each": _population(
        10, (3, 3, 3), 141, (0.168, 0.095), (0.619, 0.695), (0.0, 8.0), 0.1
    ),
    "a class of 2 images is hit as often as not": _population(
        3, (2,), 249, (0.99, 0.494), (0.779, 0.98), (0.0, 0.5), 0.06
    ),
    "3 patients of 20 images get a class of 3": _population(
        3, (3,), 468, (0.654, 0.433), (0.6, 0.857), (0.0, 4.0), 0.6, [_patients(3, 2, (0,), 3, (0.053, 0.817))]
    ),
    "3 classes of 5 images and a patient of 20 fall": _population(
        30, (5, 5, 5), 34, (0.827, 0.039), (0.762, 0.852), (0.0, 8.0), 0.99,
        [_patients(30, c, range(3, 30), 1, (0.036, 0.748)) for c in range(3)],
    ),
}  # fmt: skip

# A class of 1,500 single images and 15 patients of 20, of which the challenger loses 30 %: 5 points of its recall.
LARGE_GROUPS_FALL = Population(
    (
        Part(0, 1500, 1, np.array([1.0, 0.0]), np.array([1.0, 0.0]), 1.0),
        Part(0, 15, 20, np.array([1.0, 0.0]), np.array([0.7, 0.3]), 1.0),
        Part(1, 300, 1, np.array([0.2, 0.8]), np.array([0.1, 0.9]), 0.6),
    )
)
