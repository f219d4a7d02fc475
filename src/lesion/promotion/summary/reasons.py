"""The sentences about why the gate decided as it did."""

from lesion.core.text import format_count, format_percent
from lesion.promotion.comparison import generation_title
from lesion.promotion.feasibility import obstacle_to_promotion
from lesion.promotion.gate_checks import Check
from lesion.promotion.summary.evidence import Evidence

_MOST_CLASSES = 5  # that are described one by one


def describe_changes(evidence: Evidence) -> str:
    """Write on how many images each model alone is right, and whether that could be chance."""
    newest = evidence.newest
    groups = "" if newest.groups == newest.images else f" in {format_count(newest.groups, 'group')}"
    on_images = f"On the {format_count(newest.images, 'newest held-out image')}{groups}"
    if not newest.gained and not newest.lost:
        return f"{on_images} both models are right on the same ones."
    text = (
        f"{on_images} it is right on {newest.gained:,} where the model in use is wrong, and wrong on {newest.lost:,} "
        "where that one is right."
    )
    better, worse = newest.better_groups, newest.worse_groups
    if newest.groups != newest.images:
        text += f" Of the groups, {better:,} got better and {worse:,} worse."
    if better <= worse:
        return f"{text} So it is not better there."
    verdict = "less" if newest.p_value <= evidence.alpha else "more"
    return (
        f"{text} If both were equally good, chance would do that in {_probability(newest.p_value)} of all cases: "
        f"{verdict} than the {_probability(evidence.alpha)} that this decision allows."
    )


def describe_doubt(evidence: Evidence) -> list[str]:
    """Write why an improvement was not proved, where the number of changed images does not tell it."""
    newest = evidence.newest
    if obstacle := obstacle_to_promotion(newest.groups, evidence.alpha, newest.improvable_groups):
        return [obstacle]
    score = next((check for check in evidence.failed if check.name == "f1_macro"), None)
    if score is None or evidence.fails("exact_test"):
        return []
    margin = f" by more than {score.bound:g}" if score.bound else ""
    text = f"But the mean of the scores of all classes (macro-F1) was not proved to be higher{margin}."
    if newest.uncertain_class is not None:
        images = next(recall.images for recall in newest.recalls if recall.label == newest.uncertain_class)
        text += f" Most of this doubt comes from {newest.uncertain_class}, with its {format_count(images, 'image')}."
    return [text]


def describe_harm(evidence: Evidence) -> list[str]:
    """Write what got worse, a sentence for each kind of harm and each class, of many classes the first ones."""
    classes, others = dict[str, str](), list[str]()
    for check in evidence.failed:
        kind, _, label = check.name.partition("/")
        if label:  # several conditions may find the same class worse; the first one is the plainest
            classes.setdefault(label, _worse_class(kind, label, check, evidence))
        elif kind == "earlier":
            others.append(_worse_earlier(evidence))
        elif kind == "brier":
            scores = evidence.newest
            others.append(
                f"The error of its probabilities (Brier score) is {scores.challenger.brier:.3f}, that of the model in "
                f"use {scores.champion.brier:.3f}."
            )
    named, left = list(classes.values())[:_MOST_CLASSES], len(classes) - _MOST_CLASSES
    more = [f"It got worse in {format_count(left, 'more class')} too."] if left > 0 else []
    return [*named, *more, *others]


def _worse_class(kind: str, label: str, check: Check, evidence: Evidence) -> str:
    images, before, now = evidence.hits(label)
    if kind == "recall_floor":
        return (
            f"It recognizes {format_percent(check.value)} of the {format_count(images, 'image')} of {label}; at least "
            f"{format_percent(check.bound)} are asked for."
        )
    than = f"the model in use {before:,}" if kind == "recall" else "fewer than the best model so far for this class"
    return f"Of {format_count(images, 'image')} of {label} it has {now:,} right, {than}."


def _worse_earlier(evidence: Evidence) -> str:
    earlier = evidence.comparisons[:-1]
    where = generation_title([number for one in earlier for number in one.generations])
    gained, lost = sum(one.gained for one in earlier), sum(one.lost for one in earlier)
    return (
        f"On the images of {where}, which were frozen earlier, it is right on {gained:,} where the model in use is "
        f"wrong, and wrong on {lost:,} where that one is right."
    )


def _probability(value: float) -> str:
    """Write a probability as a percentage that shows at least one digit that is not 0."""
    return format_percent(value, 0 if value >= 0.1 else 1 if value >= 0.01 else 2)
