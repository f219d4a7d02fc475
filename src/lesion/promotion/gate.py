"""The promotion gate: a challenger replaces the champion only if it is proved better on held-out images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lesion.core.errors import ConfigError, DataError
from lesion.core.text import join_names
from lesion.promotion.change_plan import PlanStatement
from lesion.promotion.comparison import Comparison, GateSet, Selection, compare, merge
from lesion.promotion.gate_checks import Check, GateEvidence, check_all
from lesion.promotion.gate_settings import GateSettings
from lesion.promotion.paired_answers import AnswersByReview
from lesion.promotion.summary.evidence import Evidence, Gathering
from lesion.promotion.summary.verdict_summary import Summary, summarize_decision, summarize_exhausted


@dataclass(frozen=True)
class GenerationRule:
    """By which rule the images of a generation were chosen."""

    generation: int
    selection: Selection
    sentence: str  # the rule in words, and what it means for the scores


@dataclass(frozen=True)
class Verdict:
    """The decision of the gate, with its reasons."""

    promoted: bool  # whether every check passed
    summary: Summary  # why, and what to do next, in plain words
    reasons: tuple[str, ...]  # the conditions that decided, with their numbers
    checks: tuple[Check, ...]  # all conditions; empty if the generation was exhausted
    # Both models on every earlier generation, oldest first, and on the newest images, on which was decided; empty if
    # the newest generation was exhausted.
    comparisons: tuple[Comparison, ...]
    generation: int  # the newest generation, on which was decided
    alpha: float  # the level of this decision; 0 if the generation was exhausted
    looks_left: int  # decisions that remain on the newest generation
    gathered: int  # held-out images in the open generation
    renew_images: int  # how many of them freeze it
    unreviewed: int = 0  # held-out images in quarantine
    plan: PlanStatement | None = None  # whether the retraining followed the change plan; None if nobody asked
    improved: tuple[str, ...] = ()  # classes in which the challenger was proved better than the best model so far
    rules: tuple[GenerationRule, ...] = ()  # of the generations whose rule is known, the oldest first
    label_check: str = ""  # what the check of labels before the training found, in words
    review: AnswersByReview | None = None  # both models' accuracy with and without images that nobody reviewed

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
        content["review"] = self.review and self.review.to_json()
        if self.plan is not None:
            content["plan"] |= {"sentence": self.plan.sentence}
        return content


def decide(
    sets: Sequence[GateSet],
    classes: Sequence[str],
    settings: GateSettings,
    alpha: float,
    looks_left: int = 0,
    *,
    gathered: int = 0,
    unreviewed: int = 0,
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
        unreviewed: Held-out images in quarantine.
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
    comparisons = (*(compare(gate_set, classes, settings.harm_level) for gate_set in earlier), newest)
    gathering = Gathering(gathered, settings.renew_images, unreviewed)
    return Verdict(
        promoted=promoted,
        summary=summarize_decision(Evidence(checks, comparisons, alpha), gathering),
        reasons=tuple(check.sentence for check in decisive),
        checks=tuple(checks),
        comparisons=comparisons,
        generation=newest.generation,
        alpha=alpha,
        looks_left=looks_left,
        gathered=gathered,
        renew_images=settings.renew_images,
        unreviewed=unreviewed,
        improved=improved,
        rules=_rules(ordered),
    )


def reject_exhausted(
    generation: int, settings: GateSettings, gathered: int = 0, *, unreviewed: int = 0, ever: bool = False
) -> Verdict:
    """Reject without a look, since nothing is left of the error budget for the newest frozen generation.

    ``gathered`` held-out images have gathered for the next generation, and ``unreviewed`` ones wait in quarantine.
    ``ever`` tells that a new generation would not help, since the budget of the system's lifetime is used up.
    """
    summary = summarize_exhausted(generation, Gathering(gathered, settings.renew_images, unreviewed), ever=ever)
    return Verdict(
        promoted=False,
        summary=summary,
        reasons=(summary.why,),
        checks=(),
        comparisons=(),
        generation=generation,
        alpha=0.0,
        looks_left=0,
        gathered=gathered,
        renew_images=settings.renew_images,
        unreviewed=unreviewed,
    )


def _rules(sets: Sequence[GateSet]) -> tuple[GenerationRule, ...]:
    return tuple(
        GenerationRule(gate_set.generation, gate_set.selection, gate_set.selection.sentence)
        for gate_set in sets
        if gate_set.selection is not None
    )


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
