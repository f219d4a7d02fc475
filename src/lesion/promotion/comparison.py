"""Champion and challenger on generations of the gate set: both models' scores, and the images that differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import DataError
from lesion.core.text import join_names
from lesion.evaluation.probabilities import Floats, Ints, brier_per_image
from lesion.evaluation.reliability import reliability
from lesion.promotion import paired_tests
from lesion.promotion.macro_f1_bound import macro_f1_bound
from lesion.promotion.paired_answers import Bools, PairedAnswers

MAX_CHANGED = 200  # changed images that are listed one by one; all of them are counted


class Selection(StrEnum):
    """The rule by which the images of a generation of the gate set were chosen."""

    IMPORTED = "imported"  # the test images that came with the first model
    OPINION_FIRST = "opinion_first"  # by earlier versions: what the champion disputed was left out
    MEMBERSHIP_FIRST = "membership_first"  # drawn before any model's opinion, which only decides what is reviewed

    @property
    def sentence(self) -> str:
        """The rule in words, and what it means for the scores."""
        return _SELECTIONS[self]


_SELECTIONS = {
    Selection.IMPORTED: "Its images are the test images that came with the first model; no model chose them.",
    Selection.OPINION_FIRST: (
        "It was frozen by an earlier version of Lesion, which may have left out images whose label the model in use "
        "disputed. Scores on it may be too high, above all those of that model, and an improvement is harder to prove "
        "on it."
    ),
    Selection.MEMBERSHIP_FIRST: (
        "Which images belong to it was drawn before any model saw them, and held-out images in doubt were reviewed "
        "before it was frozen."
    ),
}


@dataclass(frozen=True, eq=False)
class GateSet:
    """One frozen generation of the gate set, with both models' answers."""

    generation: int  # its number; the highest is the newest
    labels: Ints  # ``(N,)`` indices below C
    groups: NDArray[Any]  # ``(N,)`` of any type; equal ones belong together
    champion: Floats  # ``(N, C)`` probabilities
    challenger: Floats  # ``(N, C)`` probabilities
    hashes: Sequence[str]  # N SHA-256 sums of the image files
    # ``(N,)``: whether the best model so far for the image's class is right; None where that is the champion.
    best_hits: Bools | None = None
    merged: tuple[int, ...] = ()  # the generations that it consists of; empty for one
    selection: Selection | None = None  # None if it is not known, or consists of several generations

    def check(self, classes: int) -> None:
        """Raise a DataError for answers that cannot be compared: no images, other shapes, no probabilities."""
        images, shapes = len(self.labels), {self.champion.shape, self.challenger.shape}
        fault = ""
        if not images:
            fault = "it holds no image"
        elif shapes != {(images, classes)} or len(self.groups) != images or len(self.hashes) != images:
            fault = (
                f"{images} labels and {classes} classes came with probabilities of shape {self.champion.shape} and "
                f"{self.challenger.shape}, {len(self.groups)} groups and {len(self.hashes)} hashes"
            )
        elif self.best_hits is not None and len(self.best_hits) != images:
            fault = f"{images} labels came with {len(self.best_hits)} answers of the best model so far"
        elif self.labels.min() < 0 or self.labels.max() >= classes:
            fault = f"its labels run from {self.labels.min()} to {self.labels.max()}, with {classes} classes"
        elif not (_are_probabilities(self.champion) and _are_probabilities(self.challenger)):
            fault = "a model's answers are not finite probabilities whose rows sum to 1"
        if fault:
            raise DataError(
                f"Generation {self.generation} of the gate set cannot be compared: {fault}. Compute both models' "
                "answers on its images again.",
                code="gate_set_invalid",
            )

    @property
    def title(self) -> str:
        """The generation, or the generations together, in words."""
        return generation_title(self.merged or (self.generation,))

    def answers(self, classes: int) -> PairedAnswers:
        """Return the class that each model gives to each image."""
        champion, challenger = self.champion.argmax(axis=1), self.challenger.argmax(axis=1)
        return PairedAnswers(self.labels, np.asarray(self.groups), champion, challenger, classes)

    def best(self) -> Bools:
        """Return whether the best model so far for each image's class is right, ``(N,)``."""
        return self.champion.argmax(axis=1) == self.labels if self.best_hits is None else self.best_hits


def generation_title(numbers: Sequence[int]) -> str:
    """Return the numbers of generations in words."""
    if len(numbers) == 1:
        return f"generation {numbers[0]}"
    return f"generations {join_names([str(number) for number in numbers])} together"


def merge(sets: Sequence[GateSet]) -> GateSet:
    """Join generations to one set, which has the newest one's number."""
    if len(sets) == 1:
        return sets[0]
    return GateSet(
        generation=max(one.generation for one in sets),
        labels=np.concatenate([one.labels for one in sets]),
        groups=np.concatenate([np.asarray(one.groups) for one in sets]),
        champion=np.concatenate([one.champion for one in sets]),
        challenger=np.concatenate([one.challenger for one in sets]),
        hashes=[name for one in sets for name in one.hashes],
        best_hits=np.concatenate([one.best() for one in sets]),
        merged=tuple(sorted(number for one in sets for number in (one.merged or (one.generation,)))),
    )


@dataclass(frozen=True)
class Scores:
    """The scores of one model on one generation."""

    accuracy: float
    f1_macro: float
    ece: float
    brier: float  # the mean over images of the squared distance of the probabilities from the truth, 0 to 2


@dataclass(frozen=True)
class Recall:
    """Correct answers of both models to the images of one class."""

    label: str
    images: int
    champion_hits: int
    challenger_hits: int

    @property
    def champion(self) -> float | None:
        """The champion's recall; None without images."""
        return self.champion_hits / self.images if self.images else None

    @property
    def challenger(self) -> float | None:
        """The challenger's recall; None without images."""
        return self.challenger_hits / self.images if self.images else None


@dataclass(frozen=True)
class ChangedImage:
    """An image that exactly one of the two models classifies correctly."""

    sha256: str
    label: str
    champion: str
    champion_confidence: float
    challenger: str
    challenger_confidence: float
    gained: bool


@dataclass(frozen=True)
class Comparison:
    """Both models on one generation, or on several together."""

    generation: int  # the newest
    generations: tuple[int, ...]  # all of them
    images: int
    groups: int
    champion: Scores
    challenger: Scores
    difference: float  # the difference of macro-F1, challenger minus champion
    lower_bound: float  # one-sided bound of the difference
    confidence: float  # the confidence that the difference is above the bound
    uncertain_class: str | None  # the class whose few images lower the bound more than all changes do, if there is one
    improvable_groups: int  # groups in which the champion makes an error
    better_groups: int  # groups in which the challenger has more correct images
    worse_groups: int  # groups in which it has fewer
    p_value: float  # one-sided p-value of the exact test on groups
    gained: int  # images that only the challenger classifies correctly
    lost: int  # images that only the champion classifies correctly
    mcnemar_p: float  # two-sided p-value of the exact McNemar test on images
    recalls: tuple[Recall, ...]
    # The changed images, lost ones first, the most confident wrong answers first; at most ``MAX_CHANGED``.
    changed: tuple[ChangedImage, ...]


def compare(gate: GateSet, classes: Sequence[str], alpha: float) -> Comparison:
    """Compare both models on a valid gate set; ``alpha`` is the level of the lower bound."""
    answers = gate.answers(len(classes))
    labels, champion, challenger = answers.labels, answers.champion, answers.challenger
    counts = paired_tests.count_by_group(labels, answers.groups, champion, challenger, len(classes))
    champion_f1, challenger_f1 = paired_tests.macro_f1_scores(counts.sum(axis=0))
    bound = macro_f1_bound(answers, alpha)
    better, worse = paired_tests.discordant_groups(counts)
    gained = int(((champion != labels) & (challenger == labels)).sum())
    lost = int(((champion == labels) & (challenger != labels)).sum())
    return Comparison(
        generation=gate.generation,
        generations=gate.merged or (gate.generation,),
        images=len(labels),
        groups=len(counts),
        champion=_scores(gate.champion, labels, champion_f1),
        challenger=_scores(gate.challenger, labels, challenger_f1),
        difference=bound.difference,
        lower_bound=bound.lower,
        confidence=1 - alpha,
        uncertain_class=None if bound.uncertain_class is None else classes[bound.uncertain_class],
        improvable_groups=int((counts[:, 0] > counts[:, 1]).any(axis=1).sum()),
        better_groups=better,
        worse_groups=worse,
        p_value=paired_tests.exact_p_value(better, worse, len(counts)),
        gained=gained,
        lost=lost,
        mcnemar_p=paired_tests.mcnemar_p_value(gained, lost),
        recalls=tuple(
            Recall(name, *(int(count) for count in counts[:, (0, 1, 3), c].sum(axis=0)))
            for c, name in enumerate(classes)
        ),
        changed=_changed_images(gate, classes),
    )


def _scores(probabilities: NDArray[Any], labels: Ints, f1_macro: float) -> Scores:
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    brier = float(brier_per_image(probabilities, labels).mean())
    return Scores(accuracy=accuracy, f1_macro=f1_macro, ece=reliability(probabilities, labels).ece, brier=brier)


def _changed_images(gate: GateSet, classes: Sequence[str]) -> tuple[ChangedImage, ...]:
    champion, challenger = gate.champion.argmax(axis=1), gate.challenger.argmax(axis=1)
    gained = challenger == gate.labels
    rows = np.flatnonzero((champion == gate.labels) != gained)
    wrong_confidence = np.where(gained, gate.champion.max(axis=1), gate.challenger.max(axis=1))
    order = rows[np.lexsort((-wrong_confidence[rows], gained[rows]))][:MAX_CHANGED]
    return tuple(
        ChangedImage(
            sha256=gate.hashes[row],
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
