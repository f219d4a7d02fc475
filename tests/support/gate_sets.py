"""Gate sets of three classes in which the models' errors are chosen one by one."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesion.promotion.comparison import GateSet

CLASSES = ("glioma", "meningioma", "pituitary")


def answers(labels: ArrayLike, wrong: Iterable[int], confidence: float | None = None) -> NDArray[np.float64]:
    """Probabilities that are right but for the rows ``wrong``, which give the next class; calibrated unless told."""
    given, wrong = np.array(labels), list(wrong)
    confidence = confidence or min(0.99, max(0.5, 1 - len(wrong) / max(len(given), 1)))
    probabilities = np.full((len(given), 3), (1 - confidence) / 2)
    given[wrong] = (given[wrong] + 1) % 3
    probabilities[np.arange(len(given)), given] = confidence
    return probabilities


def gate_set(
    champion_wrong: Iterable[int],
    challenger_wrong: Iterable[int],
    images: int = 300,
    generation: int = 1,
    group: int = 1,
    **confidence: Any,
) -> GateSet:
    """Images of the classes in turn, ``group`` of them in each group, with the errors of both models."""
    labels = np.arange(images) % 3
    return GateSet(
        generation=generation,
        labels=labels,
        groups=np.array([f"group {i // group}" for i in range(images)]),
        champion=answers(labels, champion_wrong),
        challenger=answers(labels, challenger_wrong, **confidence),
        hashes=[f"{i:064x}" for i in range(images)],
    )


def better(**changes: Any) -> GateSet:
    """A challenger that answers rightly 20 of the champion's 30 errors, evenly over classes, and gets 2 new ones."""
    return gate_set(range(30), [*range(10), 100, 101], **changes)
