"""The promotion gate: a challenger replaces the champion only if it is proved better on held-out images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lesion.core.errors import ConfigError, DataError
from lesion.core.text import join_names
from lesion.promotion.comparison import Comparison, GateSet, compare, merge
from lesion.promotion.gate_checks import Check, GateEvidence, check_all
from lesion.promotion.gate_settings import GateSettings
from lesion.promotion.non_inferiority import Outcome
from lesion.promotion.paired_tests import exact_p_value, fewest_better_groups


@dataclass(frozen=True)
class Verdict:
    """The decision of the gate, with its reasons."""

    promoted: bool  # whether every check passed
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]  # all conditions; empty if the generation was exhausted
    # Both models on every earlier generation, oldest first, and on the newest images, on which was decided; empty if
    # the newest generation was exhausted.
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    generation: int  # the newest generation, on which was decided
    alpha: float  # the level of this decision; 0 if the generation was exhausted
    looks_left: int  # decisions that remain on the newest generation
    gathered: int  # held-out images in the open generation
    renew_images: int  # how many of them freeze it
    improved: tuple[str, ...] = ()  # classes in which the challenger was proved better than the best model so far

    @property
    def spent(self) -> bool:
        """Whether nothing was decided, since the generation's error budget was used up before."""
        return not self.alpha

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values; the recall of a class without images is None."""
        content = asdict(self)
        for record, comparison in zip(content["comparisons"], self.comparisons, strict=True):
            for row, recall in zip(record["recalls"], comparison.recalls, strict=True):
                row |= {"champion": recall.champion, "challenger": recall.challenger}
        for record, check in zip(content["checks"], self.checks, strict=True):
            record |= {"outcome": check.outcome.value, "passed": check.passed}
        return content


def decide(
    sets: Sequence[GateSet],
    classes: Sequence[str],
    settings: GateSettings,
    alpha: float,
    looks_left: int = 0,
    *,
    gathered: int = 0,
    deciding_since: int | None = None,
) -> Verdict:
    """Decide whether the challenger replaces the champion; the same input gives the same verdict.

    On the newest images, an exact test on groups must reject "not better" at ``alpha``, and the lower bound of the
    macro-F1 difference must be above the margin. The test alone looks at accuracy, which a large class can dominate.
    The other checks look for harm, and block where they find it (see ``lesion.promotion.gate_checks``).

    Args:
        sets: Every frozen generation with both models' answers, in any order.
        classes: C names in the order of the probabilities.
        settings: What must be shown.
        alpha: The level of this look, from ``settings.levels``; the look must have been recorded before.
        looks_left: Looks that remain after this one.
        gathered: Held-out images that have gathered for the next generation.
        deciding_since: The first generation on which no challenger was promoted yet. It and all later ones together are
            the newest images, so that a look has all the evidence since the last promotion. The newest generation alone
            by default.

    Raises:
        DataError: Gate sets that cannot be compared, or none.
        ConfigError: An ``alpha`` that is not a level (see ``reject_exhausted`` for an exhausted generation), or a
            recall floor of a class that does not exist.
    """
    _check_input(sets, classes, settings, alpha)
    ordered = sorted(sets, key=lambda gate_set: gate_set.generation)
    for gate_set in ordered:
        gate_set.check(len(classes))
    since = ordered[-1].generation if deciding_since is None else min(deciding_since, ordered[-1].generation)
    earlier = [gate_set for gate_set in ordered if gate_set.generation < since]
    last = merge([gate_set for gate_set in ordered if gate_set.generation >= since])
    newest = compare(last, classes, alpha)
    checks, improved = check_all(GateEvidence(earlier, last, newest, classes), settings, alpha)
    promoted = all(check.passed for check in checks)
    decisive = checks[:2] if promoted else [check for check in checks if not check.passed]
    return Verdict(
        promoted=promoted,
        reasons=tuple(check.sentence for check in decisive),
        checks=tuple(checks),
        comparisons=(*(compare(gate_set, classes, settings.harm_level) for gate_set in earlier), newest),
        notes=(*_notes(newest, alpha), *_not_judged(checks, classes)),
        generation=newest.generation,
        alpha=alpha,
        looks_left=looks_left,
        gathered=gathered,
        renew_images=settings.renew_images,
        improved=improved,
    )


def reject_exhausted(generation: int, settings: GateSettings, gathered: int = 0, *, ever: bool = False) -> Verdict:
    """Reject without a look, since nothing is left of the error budget for the newest frozen generation.

    ``gathered`` held-out images have gathered for the next generation. ``ever`` tells that a new generation would not
    help, since the budget of the system's lifetime is used up.
    """
    missing = max(0, settings.renew_images - gathered)
    renewal = (
        f"{missing} more held-out images open a new one ({gathered} of {settings.renew_images} have gathered): upload "
        "more labeled images, then retrain."
        if missing
        else f"{gathered} held-out images have gathered, enough for a new one: the next retraining opens it if they "
        "belong to at least two classes."
    )
    reason = (
        f"Generation {generation} of the gate set has no error budget left: one more decision could promote by luck. "
    )
    if ever:
        renewal = (
            "So many decisions without a promotion have used up the budget of the system's lifetime; a new generation "
            "does not change that. Deploy a model by hand, or raise gate.levels.lifetime_rate."
        )
    return Verdict(False, (reason + renewal,), (), (), (), generation, 0.0, 0, gathered, settings.renew_images)


def _check_input(sets: Sequence[GateSet], classes: Sequence[str], settings: GateSettings, alpha: float) -> None:
    numbers = [gate_set.generation for gate_set in sets]
    if not numbers or len(set(numbers)) < len(numbers):
        raise DataError(
            f"The gate got the generations {numbers}; it needs at least one, and each of them once.",
            code="gate_set_invalid",
        )
    if not 0 < alpha < 0.5:
        raise ConfigError(
            f"The gate cannot decide at level {alpha}: a level is between 0 and 0.5. An exhausted generation has none."
        )
    if unknown := sorted(set(settings.recall_floors) - set(classes)):
        raise ConfigError(
            f"configs/gate sets a recall floor for {join_names(unknown)}, but the classes are {join_names(classes)}. "
            "Correct the names.",
            code="gate_class_unknown",
        )


def _notes(newest: Comparison, alpha: float) -> tuple[str, ...]:
    """Warn if no challenger at all could have passed: too small a gate set, or a champion with too few errors."""
    needed = fewest_better_groups(newest.groups, alpha)
    if needed is None:
        return (
            f"Generation {newest.generation} is too small to promote any challenger at the level {alpha:.2g}: even if "
            f"all of its {newest.groups} groups got better, luck could not be ruled out.",
        )
    if exact_p_value(newest.improvable_groups, 0, newest.groups) > alpha:
        return (
            f"Generation {newest.generation} could not promote any challenger at the level {alpha:.2g}: the champion "
            f"errs in only {newest.improvable_groups} of its {newest.groups} groups, and at least {needed} would have "
            "to get better and none worse.",
        )
    return ()


def _not_judged(checks: Sequence[Check], classes: Sequence[str]) -> tuple[str, ...]:
    """Name the classes that have too few images to judge, and how many would do; and those without any."""
    compared = {check.name.split("/", 1)[1]: check for check in checks if check.name.startswith("recall/")}
    counts = [
        f"{label} (about {check.needed:,} would do)"
        for label, check in compared.items()
        if check.outcome == Outcome.TOO_FEW_IMAGES
    ]
    unseen = "Whether the challenger got worse in a class cannot be judged "
    notes = [f"{unseen}from so few held-out images of {join_names(counts)}."] if counts else []
    if missing := [label for label in classes if label not in compared]:
        notes.append(f"{unseen}without a held-out image, as in {join_names(missing)}.")
    return tuple(notes)
