"""Two models that are right with given probabilities, correlated, and the classes that they give in error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from lesion.promotion.comparison import GateSet

SHARED_ERRORS = 0.7  # how often two models that are both wrong give the same class
CONFIDENCE = 0.9
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """Champion and challenger: how often they are right in each class, and how correlated that is."""

    sizes: tuple[int, ...]  # images of each class
    champion: tuple[float, ...]  # recall of each class
    challenger: tuple[float, ...]
    correlation: float  # of the two models' being right on an image (phi), as far as the recalls allow it
    group: int = 1  # images of a group, whose answers are all alike

    def draw(self, rng: np.random.Generator, generation: int = 1) -> GateSet:
        """Draw a generation of the gate set."""
        labels = np.repeat(np.arange(len(self.sizes)), self.sizes)
        first, second = self._right(rng, labels)
        wrong = _wrong_classes(rng, labels, self.sizes)
        other = np.where(rng.random(len(labels)) < SHARED_ERRORS, wrong, _wrong_classes(rng, labels, self.sizes))
        given = [np.repeat(np.where(first, labels, wrong), self.group)]
        given.append(np.repeat(np.where(second, labels, other), self.group))
        labels = np.repeat(labels, self.group)
        names = [f"{generation}-{row}" for row in range(len(labels))]
        groups = np.repeat(np.arange(len(labels) // self.group), self.group) + 1_000_000 * generation
        probabilities = [answer(classes, len(self.sizes)) for classes in given]
        return GateSet(generation, labels, groups, probabilities[0], probabilities[1], names)

    def _right(self, rng: np.random.Generator, labels: Ints) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        p, q = np.array(self.champion), np.array(self.challenger)
        both = p * q + self.correlation * np.sqrt(p * (1 - p) * q * (1 - q))
        both = np.clip(both, np.maximum(p + q - 1, 0), np.minimum(p, q))[labels]
        draw = rng.random(len(labels))
        first = draw < p[labels]
        return first, (draw < both) | ((draw >= p[labels]) & (draw < p[labels] + q[labels] - both))


def answer(given: Ints, classes: int) -> Floats:
    """Return probabilities whose highest one is that of the given classes."""
    probabilities = np.full((len(given), classes), (1 - CONFIDENCE) / (classes - 1))
    probabilities[np.arange(len(given)), given] = CONFIDENCE
    return probabilities


def _wrong_classes(rng: np.random.Generator, labels: Ints, sizes: Sequence[int]) -> Ints:
    """Draw a wrong class for each image: the classes' images, without those of its own class, drawn evenly."""
    starts = np.cumsum(sizes) - np.array(sizes)
    total, own = sum(sizes), np.array(sizes)[labels]
    place = (rng.random(len(labels)) * (total - own)).astype(int)
    place += np.where(place >= starts[labels], own, 0)
    return np.asarray(np.searchsorted(starts, place, side="right") - 1)


def expected_f1(sizes: Sequence[int], recalls: Floats) -> Floats:
    """Return each class's F1 of a model's expected confusion matrix."""
    counts = np.array(sizes, float)
    misses = counts * (1 - recalls)
    total = counts.sum()
    false = np.array([sum(misses[k] * counts[c] / (total - counts[k]) for k in range(len(counts)) if k != c)
                      for c in range(len(counts))])  # fmt: skip
    hits = counts * recalls
    return np.asarray(2 * hits / (counts + hits + false))


def compensated(
    sizes: Sequence[int], champion: Sequence[float], collapsed: dict[int, float], difference: float
) -> tuple[float, ...]:
    """Return a challenger's recalls: some classes collapse, and the others rise so far that macro-F1 differs as asked.

    The others' recalls rise or fall by the same number of standard deviations of a normal distribution.
    """
    start = np.array(champion)

    def shifted(by: float) -> Floats:
        recalls = norm.cdf(norm.ppf(start) + by)
        recalls[list(collapsed)] = list(collapsed.values())
        return np.asarray(recalls)

    def excess(by: float) -> float:
        return float((expected_f1(sizes, shifted(by)) - expected_f1(sizes, start)).mean() - difference)

    return tuple(float(recall) for recall in shifted(float(brentq(excess, -4, 6))))
