"""The promotion gate: a challenger replaces the champion only if it is proved better on held-out images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lesion.core.errors import ConfigError, DataError
from lesion.core.text import join_names
from lesion.promotion.comparison import Comparison, GateSet, compare
from lesion.promotion.gate_checks import Check, check_all
from lesion.promotion.gate_settings import GateSettings
from lesion.promotion.paired_tests import exact_p_value, fewest_better_groups


@dataclass(frozen=True)
class Verdict:
    """The decision of the gate, with its reasons."""

    promoted: bool  # whether every check passed
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]  # all conditions; empty if the generation was exhausted
    # Both models on every generation, oldest first; empty if the newest generation was exhausted.
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    generation: int  # the newest generation, on which was decided
    alpha: float  # the level of this decision; 0 if the generation was exhausted
    looks_left: int  # decisions that remain on the newest generation
    gathered: int  # held-out images in the open generation
    renew_images: int  # how many of them freeze it

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
        return content


def decide(
    sets: Sequence[GateSet],
    classes: Sequence[str],
    settings: GateSettings,
    alpha: float,
    looks_left: int = 0,
    *,
    gathered: int = 0,
) -> Verdict:
    """Decide whether the challenger replaces the champion; the same input gives the same verdict.

    On the newest generation, an exact test on groups must reject "not better" at ``alpha``, and the bootstrap's lower
    bound of the macro-F1 difference must be above the margin. The bootstrap alone is too liberal where few images
    changed; the test alone looks at accuracy, which a large class can dominate.

    Args:
        sets: Every frozen generation with both models' answers, in any order.
        classes: C names in the order of the probabilities.
        settings: What must be shown.
        alpha: The level of this look, from ``settings.spending``; the look must have been recorded before.
        looks_left: Looks that remain after this one.
        gathered: Held-out images that have gathered for the next generation.

    Raises:
        DataError: Gate sets that cannot be compared, or none.
        ConfigError: An ``alpha`` that is not a level (see ``reject_exhausted`` for an exhausted generation), or a
            recall floor of a class that does not exist.
    """
    _check_input(sets, classes, settings, alpha)
    *older, last = sorted(sets, key=lambda gate_set: gate_set.generation)
    resampling = {"replicates": settings.replicates, "seed": settings.seed}
    earlier = tuple(compare(gate_set, classes, settings.earlier_alpha, **resampling) for gate_set in older)
    newest = compare(last, classes, alpha, **resampling)
    checks = tuple(check_all(earlier, newest, settings, alpha))
    promoted = all(check.passed for check in checks)
    decisive = checks[:2] if promoted else [check for check in checks if not check.passed]
    return Verdict(
        promoted=promoted,
        reasons=tuple(check.sentence for check in decisive),
        checks=checks,
        comparisons=(*earlier, newest),
        notes=_notes(newest, alpha),
        generation=newest.generation,
        alpha=alpha,
        looks_left=looks_left,
        gathered=gathered,
        renew_images=settings.renew_images,
    )


def reject_exhausted(generation: int, settings: GateSettings, gathered: int = 0) -> Verdict:
    """Reject without a look, since the newest frozen generation's error budget is exhausted.

    ``gathered`` held-out images have gathered for the next generation.
    """
    spending, missing = settings.spending, max(0, settings.renew_images - gathered)
    renewal = (
        f"{missing} more held-out images open a new one ({gathered} of {settings.renew_images} have gathered): upload "
        "more labeled images, then retrain."
        if missing
        else f"{gathered} held-out images have gathered, enough for a new one: the next retraining opens it if they "
        "belong to at least two classes."
    )
    reason = (
        f"Generation {generation} of the gate set has decided {spending.looks} times, which spends its error budget of "
        f"{spending.total:g}: another decision on the same images could promote by luck. {renewal}"
    )
    return Verdict(False, (reason,), (), (), (), generation, 0.0, 0, gathered, settings.renew_images)


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
