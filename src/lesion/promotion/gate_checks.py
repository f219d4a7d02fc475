"""The conditions of a promotion, each with a sentence about its result.

Two conditions prove the challenger better and must hold. The others look for harm: they compare the challenger with the
champion, and class by class also with the best model so far. They have three outcomes: no harm of the margin's size,
harm, or too few images to judge, which does not prevent a promotion.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from lesion.evaluation.probabilities import brier_per_image
from lesion.promotion.comparison import Comparison, GateSet, generation_title, merge
from lesion.promotion.gate_settings import GateSettings
from lesion.promotion.non_inferiority import Judgment, Outcome, judge_classes, judge_macro_f1, judge_mean
from lesion.promotion.paired_answers import Bools, class_changes
from lesion.promotion.score_limits import normal_quantile

_ROUNDING = 1e-9  # two recalls that differ by less are equal


@dataclass(frozen=True)
class Check:
    """One condition of promotion."""

    # ``f1_macro``, ``exact_test``, ``earlier``, ``recall/<class>`` (against the champion), ``best_recall/<class>``
    # (against the best model so far), ``recall_floor/<class>`` or ``brier``.
    name: str
    value: float
    bound: float
    outcome: Outcome
    sentence: str
    needed: int | None = None  # images with which it could be judged, where they are too few

    @property
    def passed(self) -> bool:
        """Whether the condition does not prevent a promotion."""
        return self.outcome != Outcome.FAILS


@dataclass(frozen=True)
class GateEvidence:
    """What is checked: both models' answers, and their comparison on the newest images."""

    earlier: Sequence[GateSet]
    last: GateSet
    newest: Comparison
    classes: Sequence[str]


def check_all(evidence: GateEvidence, settings: GateSettings, alpha: float) -> tuple[list[Check], tuple[str, ...]]:
    """Check every condition; return with them the classes proved better than under the best model so far.

    Classes are judged on all generations together, since a class may be rare on the newest one.
    """
    checks = [_difference_check(evidence.newest, settings), _test_check(evidence.newest, alpha)]
    if evidence.earlier:
        checks.append(_earlier_check(evidence, settings))
    everything = merge([*evidence.earlier, evidence.last])
    champion = everything.answers(len(evidence.classes)).champion == everything.labels
    checks += _recall_checks(everything, champion, evidence.classes, settings, "champion")
    if (everything.best() != champion).any():
        checks += _recall_checks(everything, everything.best(), evidence.classes, settings, "best model so far")
    checks += _floor_checks(everything, evidence.classes, settings)
    return [*checks, _brier_check(evidence, settings)], _improved(everything, evidence.classes, settings)


def _difference_check(newest: Comparison, settings: GateSettings) -> Check:
    passed = newest.lower_bound > settings.margin
    sentence = (
        f"On {_where(newest)} the challenger's macro-F1 is {newest.challenger.f1_macro:.3f} and the champion's "
        f"{newest.champion.f1_macro:.3f}; the difference of {newest.difference:+.4f} is above "
        f"{newest.lower_bound:+.4f} with {newest.confidence:.2%} confidence, which is "
        f"{'more' if passed else 'not more'} than the margin of {settings.margin:g}."
    )
    if not passed and newest.uncertain_class is not None:
        images = next(recall.images for recall in newest.recalls if recall.label == newest.uncertain_class)
        sentence += (
            f" Most of this uncertainty is that of {newest.uncertain_class}, which has only {images} images here: "
            "held-out images of this class help most."
        )
    outcome = Outcome.HOLDS if passed else Outcome.FAILS
    return Check("f1_macro", newest.lower_bound, settings.margin, outcome, sentence)


def _test_check(newest: Comparison, alpha: float) -> Check:
    passed = newest.p_value <= alpha
    sentence = (
        f"On {_where(newest)} the challenger is better in {newest.better_groups} and worse in "
        f"{newest.worse_groups} of {newest.groups} groups of images: {'more' if passed else 'not more'} often better "
        f"than luck explains (exact test, p = {newest.p_value:.2g}, level {alpha:.2g})."
    )
    return Check("exact_test", newest.p_value, alpha, Outcome.HOLDS if passed else Outcome.FAILS, sentence)


def _earlier_check(evidence: GateEvidence, settings: GateSettings) -> Check:
    together = merge(evidence.earlier)
    margin = settings.earlier_margin
    judgment = judge_macro_f1(together.answers(len(evidence.classes)), margin, settings.errors)
    sentence = (
        f"On the earlier {together.title} the macro-F1 changed by {judgment.change:+.4f} and by more than "
        f"{judgment.lower:+.4f} with {1 - settings.harm_level:.0%} confidence: "
        + _conclusion(judgment, f"a fall of {margin:g}", "images")
    )
    return _harm_check("earlier", judgment, -margin, sentence)


def _recall_checks(
    images: GateSet, before: Bools, classes: Sequence[str], settings: GateSettings, other: str
) -> Iterator[Check]:
    """Compare each class's recall with that of another model, whose hits are ``before``."""
    hits = images.answers(len(classes)).challenger == images.labels
    changes = class_changes(images.labels, np.asarray(images.groups), before, hits, len(classes))
    margin = settings.recall_drop
    judgments = judge_classes(changes, margin, settings.errors)
    for c, (label, judgment) in enumerate(zip(classes, judgments, strict=True)):
        if judgment is None:
            continue
        of_class = images.labels == c
        sentence = (
            f"The challenger's recall of {label} on {images.title} is {hits[of_class].mean():.3f} on "
            f"{of_class.sum()} images (the {other}'s: {before[of_class].mean():.3f}): "
            + _conclusion(judgment, f"a fall of {margin:g}", f"independent images of {label}")
        )
        name = "recall" if other == "champion" else "best_recall"
        yield _harm_check(f"{name}/{label}", judgment, -margin, sentence)


def _floor_checks(images: GateSet, classes: Sequence[str], settings: GateSettings) -> Iterator[Check]:
    """Compare each class's recall with its floor; a champion below it does not prevent its own improvement."""
    answers = images.answers(len(classes))
    hits, before = answers.challenger == images.labels, answers.champion == images.labels
    changes = class_changes(images.labels, np.asarray(images.groups), np.zeros_like(hits), hits, len(classes))
    for c, label in enumerate(classes):
        of_class, floor = images.labels == c, settings.recall_floors.get(label, settings.recall_floor)
        if not changes.images[c] or not floor:
            continue
        recall, allowed = float(hits[of_class].mean()), min(floor, float(before[of_class].mean()))
        outcome, result = Outcome.HOLDS, "not below"
        if recall < allowed - _ROUNDING:
            right, images_of_class = changes.better[c], changes.images[c]
            # The exact upper limit of Clopper and Pearson.
            below = float(beta.isf(settings.block_level, right + 1, images_of_class - right)) < allowed
            outcome = Outcome.FAILS if below else Outcome.TOO_FEW_IMAGES
            result = "shown to be below" if below else "below, but on too few images to be sure,"
        sentence = (
            f"The challenger's recall of {label} on {images.title} is {recall:.3f}, {result} the {allowed:.3f} asked."
        )
        yield Check(f"recall_floor/{label}", recall, allowed, outcome, sentence)


def _brier_check(evidence: GateEvidence, settings: GateSettings) -> Check:
    last, newest, margin = evidence.last, evidence.newest, settings.brier_margin
    gains = brier_per_image(last.champion, last.labels) - brier_per_image(last.challenger, last.labels)
    judgment = judge_mean(gains, np.asarray(last.groups), margin, settings.errors)
    sentence = (
        f"The error of the challenger's probabilities on {_where(newest)} (Brier score) is "
        f"{newest.challenger.brier:.4f} (the champion's: {newest.champion.brier:.4f}): "
        + _conclusion(judgment, f"a growth of {margin:g}", "images")
    )
    return _harm_check("brier", judgment, -margin, sentence)


def _improved(images: GateSet, classes: Sequence[str], settings: GateSettings) -> tuple[str, ...]:
    hits = images.answers(len(classes)).challenger == images.labels
    changes = class_changes(images.labels, np.asarray(images.groups), images.best(), hits, len(classes))
    # Tango's lower limit is above 0, which is McNemar's test.
    proved = changes.better - changes.worse > normal_quantile(settings.best_level) * np.sqrt(
        changes.better + changes.worse
    )
    return tuple(label for label, better in zip(classes, proved, strict=True) if better)


def _harm_check(name: str, judgment: Judgment, bound: float, sentence: str) -> Check:
    needed = judgment.needed if judgment.outcome == Outcome.TOO_FEW_IMAGES else None
    return Check(name, judgment.lower, bound, judgment.outcome, sentence, needed)


def _conclusion(judgment: Judgment, loss: str, images: str) -> str:
    if judgment.outcome == Outcome.HOLDS:
        return f"{loss} is ruled out."
    if judgment.outcome == Outcome.FAILS:
        return f"{loss} is not ruled out, and it is worse."
    return (
        f"{loss} is not ruled out, but these are too few images to judge: about {judgment.needed:,} {images} would do."
    )


def _where(newest: Comparison) -> str:
    return generation_title(newest.generations)
