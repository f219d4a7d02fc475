"""Champion and challenger on one generation of the gate set: what both score, and which images changed sides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import DataError
from lesion.evaluation.calibration import reliability
from lesion.promotion import paired_tests

MAX_CHANGED = 200  # images that changed sides and are listed one by one; all are counted


@dataclass(frozen=True, eq=False)
class GateSet:
    """One frozen generation of the gate set, with both models' answers.

    Attributes:
        generation: Its number; the highest is the newest.
        labels: ``(N,)`` indices below C.
        groups: ``(N,)`` of any type; equal ones belong together.
        champion: ``(N, C)`` probabilities.
        challenger: ``(N, C)`` probabilities.
        names: N SHA-256 sums of the images' files.
    """

    generation: int
    labels: NDArray[np.integer[Any]]
    groups: NDArray[Any]
    champion: NDArray[np.floating[Any]]
    challenger: NDArray[np.floating[Any]]
    names: Sequence[str]

    def check(self, classes: int) -> None:
        """Refuse what cannot be compared.

        Raises:
            DataError: No images, arrays that do not fit together, labels out of range, or values that are no
                probabilities; the code is ``gate_set_invalid``.
        """
        images = len(self.labels)
        shapes = {self.champion.shape, self.challenger.shape}
        wrong = ""
        if not images:
            wrong = "it holds no image"
        elif shapes != {(images, classes)} or len(self.groups) != images or len(self.names) != images:
            wrong = (
                f"{images} labels and {classes} classes came with probabilities of shape {self.champion.shape} and "
                f"{self.challenger.shape}, {len(self.groups)} groups and {len(self.names)} names"
            )
        elif self.labels.min() < 0 or self.labels.max() >= classes:
            wrong = f"its labels run from {self.labels.min()} to {self.labels.max()}, with {classes} classes"
        elif not all(_are_probabilities(values) for values in (self.champion, self.challenger)):
            wrong = "a model's answers are not finite probabilities whose rows sum to 1"
        if wrong:
            raise DataError(
                f"Generation {self.generation} of the gate set cannot be compared: {wrong}. Compute both models' "
                "answers on its images again.",
                code="gate_set_invalid",
            )


@dataclass(frozen=True)
class Scores:
    """What one model scores on one generation."""

    accuracy: float
    f1_macro: float
    ece: float


@dataclass(frozen=True)
class Recall:
    """Right answers of both models to the images of one class."""

    label: str
    images: int
    champion_hits: int
    challenger_hits: int

    @property
    def champion(self) -> float | None:
        """The champion's recall, where there are images."""
        return self.champion_hits / self.images if self.images else None

    @property
    def challenger(self) -> float | None:
        """The challenger's recall, where there are images."""
        return self.challenger_hits / self.images if self.images else None


@dataclass(frozen=True)
class Changed:
    """An image that one of the models answers rightly and the other does not."""

    sha256: str
    label: str
    champion: str
    champion_confidence: float
    challenger: str
    challenger_confidence: float
    gained: bool


@dataclass(frozen=True)
class Comparison:
    """Both models on one generation.

    Attributes:
        generation: Its number.
        images: How many it holds.
        groups: How many groups these belong to.
        champion: The champion's scores.
        challenger: The challenger's scores.
        difference: Of macro-F1, challenger minus champion.
        lower_bound: One-sided bootstrap bound of the difference.
        confidence: With which the difference lies above the bound.
        improvable_groups: Groups in which the champion errs.
        better_groups: Groups in which the challenger answers more images rightly.
        worse_groups: Groups in which it answers fewer.
        p_value: Of the exact test on groups, one-sided.
        gained: Images that the challenger alone answers rightly.
        lost: Images that the champion alone answers rightly.
        mcnemar_p: Of exact McNemar on images, two-sided.
        recalls: Of every class.
        changed: Images that changed sides, lost ones first, the surest wrong answers first; ``MAX_CHANGED`` at most.
    """

    generation: int
    images: int
    groups: int
    champion: Scores
    challenger: Scores
    difference: float
    lower_bound: float
    confidence: float
    improvable_groups: int
    better_groups: int
    worse_groups: int
    p_value: float
    gained: int
    lost: int
    mcnemar_p: float
    recalls: tuple[Recall, ...]
    changed: tuple[Changed, ...]


def compare(gate: GateSet, classes: Sequence[str], alpha: float, *, replicates: int, seed: int) -> Comparison:
    """Compare both models on one generation; ``alpha`` is the level of its lower bound."""
    gate.check(len(classes))
    labels, champion, challenger = gate.labels, gate.champion.argmax(axis=1), gate.challenger.argmax(axis=1)
    counts = paired_tests.tally(labels, np.asarray(gate.groups), champion, challenger, len(classes))
    champion_f1, challenger_f1 = (float(value) for value in paired_tests.f1_macros(counts.sum(axis=0)))
    better, worse = paired_tests.changed_groups(counts)
    gained = int(((champion != labels) & (challenger == labels)).sum())
    lost = int(((champion == labels) & (challenger != labels)).sum())
    return Comparison(
        generation=gate.generation,
        images=len(labels),
        groups=len(counts),
        champion=_scores(gate.champion, labels, champion_f1),
        challenger=_scores(gate.challenger, labels, challenger_f1),
        difference=challenger_f1 - champion_f1,
        lower_bound=float(np.quantile(paired_tests.bootstrap_differences(counts, replicates, seed), alpha)),
        confidence=1 - alpha,
        improvable_groups=int((counts[:, 0] > counts[:, 1]).any(axis=1).sum()),
        better_groups=better,
        worse_groups=worse,
        p_value=paired_tests.exact_test(better, worse, len(counts)),
        gained=gained,
        lost=lost,
        mcnemar_p=paired_tests.mcnemar_test(gained, lost),
        recalls=tuple(
            Recall(name, *(int(count) for count in counts[:, (0, 1, 3), c].sum(axis=0)))
            for c, name in enumerate(classes)
        ),
        changed=_changed(gate, classes),
    )


def pooled_recalls(compared: Sequence[Comparison]) -> tuple[Recall, ...]:
    """Add the generations' recalls up, class by class."""
    return tuple(
        Recall(
            same[0].label,
            sum(one.images for one in same),
            sum(one.champion_hits for one in same),
            sum(one.challenger_hits for one in same),
        )
        for same in zip(*(comparison.recalls for comparison in compared), strict=True)
    )


def _scores(probabilities: NDArray[Any], labels: NDArray[np.integer[Any]], f1_macro: float) -> Scores:
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    return Scores(accuracy=accuracy, f1_macro=f1_macro, ece=reliability(probabilities, labels).ece)


def _changed(gate: GateSet, classes: Sequence[str]) -> tuple[Changed, ...]:
    champion, challenger = gate.champion.argmax(axis=1), gate.challenger.argmax(axis=1)
    gained = challenger == gate.labels
    rows = np.flatnonzero((champion == gate.labels) != gained)
    doubt = np.where(gained, gate.champion.max(axis=1), gate.challenger.max(axis=1))  # of the wrong answer
    order = rows[np.lexsort((-doubt[rows], gained[rows]))][:MAX_CHANGED]
    return tuple(
        Changed(
            sha256=gate.names[row],
            label=classes[gate.labels[row]],
            champion=classes[champion[row]],
            champion_confidence=float(gate.champion[row].max()),
            challenger=classes[challenger[row]],
            challenger_confidence=float(gate.challenger[row].max()),
            gained=bool(gained[row]),
        )
        for row in order
    )


def _are_probabilities(values: NDArray[Any]) -> bool:
    return bool(
        np.isfinite(values).all()
        and values.min() >= -1e-5
        and np.abs(values.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-3
    )
