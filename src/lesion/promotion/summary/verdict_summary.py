"""What the gate's decision means in plain words: why it was made, and what to do next.

Here the champion is "the model in use" and the challenger "the new model", since readers need not know the gate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lesion.core.text import format_count, format_percent, join_names
from lesion.promotion.feasibility import Feasibility
from lesion.promotion.summary.evidence import Evidence, Gathering
from lesion.promotion.summary.next_steps import (
    steps_after_harm,
    steps_after_promotion,
    steps_for_unjudged,
    steps_of_review,
    steps_with_pictures,
    steps_without_proof,
)
from lesion.promotion.summary.reasons import describe_changes, describe_doubt, describe_harm


@dataclass(frozen=True)
class Summary:
    """A decision in plain words."""

    why: str  # one sentence or a few
    next_steps: tuple[str, ...]  # what to do next, the most important first; at least one

    @property
    def text(self) -> str:
        """All of it as one paragraph."""
        return " ".join((self.why, *self.next_steps))


def summarize_decision(evidence: Evidence, gathering: Gathering) -> Summary:
    """Summarize a decision after a comparison."""
    failed = evidence.failed
    if not failed:
        why = f"The new model was promoted, since it was proved better. {describe_changes(evidence)}"
        return Summary(why, (*steps_after_promotion(evidence), *steps_for_unjudged(evidence)))
    harm = describe_harm(evidence)
    proved = not (evidence.fails("exact_test") or evidence.fails("f1_macro"))
    reasons = "it was proved better, but it also got worse" if proved else "it was not proved better"
    if harm and not proved:
        reasons += ", and it got worse"
    why = " ".join(
        [f"The new model was not promoted: {reasons}.", *harm, describe_changes(evidence), *describe_doubt(evidence)]
    )
    steps = [*steps_of_review(gathering.unreviewed), *steps_after_harm(evidence)]
    steps += [] if proved else steps_without_proof(evidence, gathering)
    return Summary(why, (*steps, *steps_with_pictures(evidence), *steps_for_unjudged(evidence)))


def summarize_exhausted(generation: int, gathering: Gathering, *, ever: bool) -> Summary:
    """Summarize that nothing was decided, since the error budget is used up.

    ``ever`` tells that a new generation would not help, since the budget of the system's lifetime is used up.
    """
    why = (
        f"Nothing was compared: generation {generation} of the gate set has no error budget left, and one more "
        "decision could promote a new model by chance. The model in use stays."
    )
    if ever:
        step = (
            "So many decisions without a promotion have used up the budget of the system's lifetime; a new generation "
            "does not change that. Deploy a model by hand, or raise gate.levels.lifetime_rate."
        )
    elif gathering.missing:
        step = (
            f"{gathering.missing} more held-out images open a new generation ({gathering.gathered} of "
            f"{gathering.renew_images} have gathered): upload more labeled images, then retrain."
        )
    else:
        step = (
            f"{gathering.gathered} held-out images have gathered, enough for a new generation: the next retraining "
            "opens it if they belong to at least two classes."
        )
    return Summary(why, (*steps_of_review(gathering.unreviewed), step))


def summarize_without_images(unreviewed: int = 0) -> Summary:
    """Summarize that there are no images on which models could be compared."""
    why = "The gate set has no images, so that no new model can be proved better."
    step = "Upload labeled images: a part of them is held out for the gate set."
    return Summary(why, (*steps_of_review(unreviewed), step))


def summarize_other_classes(champion: Sequence[str], challenger: Sequence[str]) -> Summary:
    """Summarize that two models cannot be compared, since their classes differ."""
    why = (
        f"Nothing was compared: the new model has the classes {join_names(challenger, len(challenger))}, the model in "
        f"use {join_names(champion, len(champion))}."
    )
    return Summary(why, ("Serve a model with other classes from a separate storage.",))


def summarize_feasibility(feasibility: Feasibility, unreviewed: int = 0, holdout: float | None = None) -> Summary:
    """Summarize what a retraining that begins now could prove.

    ``holdout`` is the share of all uploads that is held out for the gate set; None if it is not known.
    """
    steps, more = steps_of_review(unreviewed), feasibility.more_groups
    if not feasibility.level:
        steps.append(
            "Upload more labeled images: they open a new generation of the gate set. If that does not help, the budget "
            "of the system's lifetime is used up: deploy a model by hand, or raise gate.levels.lifetime_rate."
        )
    elif more:
        uploads = f" ({_uploads(more, holdout)})" if holdout else ""
        steps.append(
            f"Upload more labeled images: about {format_count(more, 'more group')} of held-out images{uploads} would "
            f"make it likely that a new model with half the errors is proved better."
        )
    elif more is None:
        steps.append("Upload more labeled images, above all of the kind on which the model in use errs.")
    if feasibility.possible:
        steps.append(_retrain(feasibility))
    return Summary(feasibility.reason, tuple(steps))


def _retrain(feasibility: Feasibility) -> str:
    if feasibility.more_groups == 0:
        return "Retrain."
    if feasibility.likely_rise is None:
        return "Or retrain now, though it is not likely that an improvement is proved."
    return f"Or retrain now: a rise by {100 * feasibility.likely_rise:.1f} points would likely be proved."


def _uploads(groups: int, holdout: float) -> str:
    """Write how many uploads bring so many groups of held-out images."""
    number, share = math.ceil(groups / holdout), format_percent(holdout)
    return f"about {number:,} uploads of as many patients or objects, since {share} of them are held out"
