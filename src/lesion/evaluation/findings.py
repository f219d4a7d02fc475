"""Sentences about the numbers of an evaluation, for readers who do not read tables: in the report and on the page.

This module needs neither torch nor pandas nor Matplotlib, so that the page can use it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

from lesion.core.text import format_count, format_percent

if TYPE_CHECKING:
    from lesion.explanation.faithfulness import Faithfulness
    from lesion.explanation.heat_locations import Mean, Placement

TITLES = {
    "acc": "Accuracy",
    "balanced_acc": "Balanced accuracy",
    "precision_macro": "Precision, macro",
    "recall_macro": "Recall, macro",
    "f1_macro": "F1, macro",
    "roc_auc": "ROC-AUC, macro",
    "pr_auc": "PR-AUC, macro",
    "nll": "Log-loss (NLL)",
    "brier": "Brier score",
    "ece": "Calibration error (ECE)",
    "ece_classwise": "Calibration error, class-wise",
}
LOWER_IS_BETTER = ("nll", "brier", "ece", "ece_classwise")
UNBOUNDED = ("nll", "brier")  # scores that may be above 1
CLASS_TITLES = {
    "precision": "Precision",
    "recall": "Recall",
    "specificity": "Specificity",
    "npv": "NPV",
    "f1": "F1",
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
}
AREAS = {"roc": "roc_auc", "pr": "pr_auc"}  # the metric that is the area under each curve


class EvaluationRecord(TypedDict):
    """An evaluation as ``metrics.json`` and the API hold it."""

    split: NotRequired[str]  # the split's name, which begins the keys of ``metrics``
    classes: list[str]
    images: int
    groups: int
    temperature: float
    bias: NotRequired[Sequence[float] | None]  # per class, added to the logits divided by the temperature
    prevalence: NotRequired[Sequence[float] | None]  # shares of the classes where the probabilities hold
    calibration_images: int
    answer_rules: NotRequired[dict[str, Any] | None]  # see :class:`lesion.conformal.answer_rules.AnswerRules`
    answer_frequencies: NotRequired[list[dict[str, Any]]]  # see :class:`lesion.evaluation.reliability.AnswerFrequency`
    operating_points: NotRequired[dict[str, Any] | None]  # ``specificity`` and the ``thresholds`` of classes
    # Metrics by key, with ``<key>_low`` and ``<key>_high`` for intervals; None where a metric is undefined.
    metrics: dict[str, float | None]
    confusion_matrix: list[list[int]]  # images by labeled (rows) and predicted class (columns)
    # See :func:`lesion.evaluation.curves.curves_json`; bundles of older versions lack them.
    curves: NotRequired[dict[str, Any]]
    definitions: NotRequired[dict[str, str]]
    notes: NotRequired[list[str]]


def patients_notes(images: int, known: int) -> list[str]:
    """Return, as at most one sentence, what it means for scores that the patients of only some images are known.

    ``images`` counts those of all splits, ``known`` those of them that have a patient.
    """
    if known >= images:
        return []
    unknown = f"The patients of {images - known:,} of {images:,} images are unknown" if known else "Patients unknown"
    return [f"{unknown}: images of one patient or plant may be in training and test; the scores are an upper bound."]


def metric(record: Mapping[str, Any], name: str) -> float | None:
    """Return a metric of a record's split; None where it is undefined."""
    value: float | None = record["metrics"].get(f"{record.get('split', 'test')}/{name}")
    return value


def headline_finding(record: EvaluationRecord) -> str:
    """Return how often the model is correct, how certain that number is, and what guessing would give."""
    images, groups, matrix = record["images"], record["groups"], record["confusion_matrix"]
    correct = sum(matrix[c][c] for c in range(len(matrix)))
    text = f"The model classifies {correct:,} of {format_count(images, 'test image')} correctly"
    text += f", {_share(correct / images)}"
    accuracy, by_vote = metric(record, "acc"), metric(record, "acc_per_image") is not None
    if groups < images and by_vote and accuracy is not None:
        text += f". If each of the {groups:,} groups of images that belong together has one vote, {_share(accuracy)}"
    belonging = f", from {format_count(groups, 'group')} of images that belong together" if groups < images else ""
    text += _interval(record, "acc", "too few images for an interval", "" if by_vote else belonging)
    chance = max(sum(row) for row in matrix) / images
    return f"{text}. Always guessing the most frequent class would be correct for {_share(chance)}."


def weakest_finding(record: EvaluationRecord) -> str:
    """Return the class with the lowest F1, and the most frequent mistake."""
    classes, matrix = record["classes"], record["confusion_matrix"]
    mistakes = {
        (labeled, predicted): images
        for labeled, row in enumerate(matrix)
        for predicted, images in enumerate(row)
        if images and labeled != predicted
    }
    if not mistakes:
        return f"None of the {format_count(record['images'], 'test image')} was misclassified."
    scores = {name: score for name in classes if (score := metric(record, f"f1/{name}")) is not None}
    worst = min(scores, key=lambda name: scores[name])
    labeled, predicted = max(mistakes, key=lambda pair: mistakes[pair])
    return (
        f"The weakest class is “{worst}” (F1 {scores[worst]:.3f}). The most frequent mistake is to predict "
        f"“{classes[predicted]}” for “{classes[labeled]}”: {mistakes[labeled, predicted]:,} of "
        f"{format_count(sum(matrix[labeled]), 'image')}."
    )


def calibration_finding(record: EvaluationRecord) -> str:
    """Return how far a stated confidence can be trusted, and what calibration changed."""
    before, after = metric(record, "ece_uncalibrated"), metric(record, "ece")
    if after is None:
        return "The calibration was not measured."
    text = f"Confidence and accuracy differ by {100 * after:.1f} percentage points on average"
    text += _interval(record, "ece")
    if not record["calibration_images"] or before is None:
        return f"{text}; nothing was calibrated."
    text += (
        f", {'less' if after < before else 'not less'} than the {100 * before:.1f} before calibration on "
        f"{format_count(record['calibration_images'], 'other image')} (temperature {record['temperature']:.2f})"
    )
    bins = record["curves"]["reliability"]["after"] if "curves" in record else ()
    excess = sum(row["images"] * (row["confidence"] - row["accuracy"]) for row in bins)
    return f"{text}; the answers remain {'over' if excess > 0 else 'under'}-confident." if bins else f"{text}."


def ranking_finding(record: EvaluationRecord, curve: Literal["roc", "pr"]) -> str:
    """Return the class that a curve shows worst, and what its area means."""
    areas = {name: area for name in record["classes"] if (area := metric(record, f"{AREAS[curve]}/{name}")) is not None}
    if not areas:
        return "No class has enough test images for a curve."
    worst = min(areas, key=lambda name: areas[name])
    if areas[worst] == 1:
        return "Every class is ranked without a mistake on the test images."
    if curve == "roc":
        return (
            f"Of one image of “{worst}” and one of another class, the first gets the higher probability for “{worst}” "
            f"in {_share(areas[worst])} of cases; every other class does at least as well."
        )
    row = record["confusion_matrix"][record["classes"].index(worst)]
    return (
        f"“{worst}” has the lowest average precision, {areas[worst]:.3f}; guessing would give "
        f"{sum(row) / record['images']:.3f}, its share of the test images."
    )


def leakage_finding(leakage: Mapping[str, Any]) -> str:
    """Return how far the split that came with the data can be trusted, from its ``test_images`` and ``leaked``."""
    images, leaked = int(leakage["test_images"]), int(leakage["leaked"])
    if not leaked:
        return f"None of the {images:,} images of the data's own test split has a near-duplicate in its training split."
    text = (
        f"{leaked:,} of the {format_count(images, 'image')} ({_share(leaked / images)}) of the data's own test split "
        "have a near-duplicate in its training split. A score on that split partly measures memory."
    )
    copies, others = leakage.get("folder_accuracy_leaked"), leakage.get("folder_accuracy_others")
    if copies is None or others is None:
        return text
    return (
        f"{text} A model trained on that split classified {_share(copies)} of those correctly, and {_share(others)} of "
        "the others."
    )


def sources_finding(told: float, guessed: float) -> str:
    """Return what it means that the source of an image tells its class in a share of cases, ``told``.

    ``guessed`` is the share for which always guessing the most frequent class is right.
    """
    text = (
        f"Knowing only from which source an image comes, its class is told right for {_share(told)} of the images; "
        f"always guessing the most frequent class is right for {_share(guessed)}."
    )
    if told <= guessed + 0.02:
        return f"{text} Sources say nothing about the class here."
    return f"{text} The network can learn sources instead of diseases: scores on images from elsewhere may be lower."


def faithfulness_finding(methods: Sequence["Faithfulness"]) -> str:
    """Return which methods, without the random map, point at what the model uses better than a random map does."""
    if not methods:
        return ""
    better = [row.method for row in methods if row.low > 0]
    others = [row.method for row in methods if row.low <= 0]
    images = format_count(methods[0].images, "image")
    if not better:
        return (
            f"On {images} no method was clearly better than a random map: do not rely on the heat maps of this model."
        )
    text = f"On {images}, better than a random map: {', '.join(better)}"
    return f"{text}; not clearly better: {', '.join(others)}." if others else f"{text}."


def placement_finding(rows: Sequence["Placement"]) -> str:
    """Return where the hottest points of the first method's maps lie, over all classes."""
    if not rows:
        return ""
    first, parts = rows[0], []
    if first.near_mask:
        known = format_count(first.masks, "image")
        parts.append(
            f"within 15 pixels (of 224) of the lesion in {_with_limits(first.near_mask)} of {known} with a mask"
        )
    if first.on_foreground:
        parts.append(f"on what is pictured in {_with_limits(first.on_foreground)}")
    if not parts:
        return "No mask of a lesion and no dark background is known, so that a hottest point cannot be called wrong."
    return f"With {first.method}, the hottest point lies {' and '.join(parts)}."


def _with_limits(mean: "Mean") -> str:
    return f"{_share(mean.value)} (95 % interval {_share(mean.low)} to {_share(mean.high)})"


def _interval(record: Mapping[str, Any], name: str, otherwise: str = "", more: str = "") -> str:
    """Return a metric's 95 % interval and ``more`` in brackets; or other words, where it has none."""
    low, high = metric(record, f"{name}_low"), metric(record, f"{name}_high")
    if low is None or high is None:
        return f" ({otherwise})" if otherwise else ""
    return f" (95 % interval {_share(low)} to {_share(high)}{more})"


def _share(share: float) -> str:
    return format_percent(share, 1)
