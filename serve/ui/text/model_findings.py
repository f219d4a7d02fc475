"""What a model's numbers mean, in a sentence made of them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from serve.ui.screens.predict import table
from serve.ui.text.sentences import count, percent, span

AREAS = {"roc": "roc_auc", "pr": "pr_auc"}  # the metric that sums each curve up
OTHERS = "any other class"
_HOUR_S = 3_600


def age(created: str, now: datetime) -> str:
    """Say how old something is."""
    seconds = (now - datetime.fromisoformat(created)).total_seconds()
    return "less than an hour" if seconds < _HOUR_S else span(seconds)


def headline(evaluation: Mapping[str, Any]) -> str:
    """Say how often the model is right, how sure that number is, and what guessing would give."""
    matrix = evaluation["confusion_matrix"]
    images, right = evaluation["images"], sum(matrix[c][c] for c in range(len(matrix)))
    low, high = interval(evaluation, "acc")
    text = f"It classifies {right:,} of {count(images, 'test image')} rightly, {percent(right / images)}"
    if low is not None and high is not None:
        text += f" (95 % interval {percent(low)} to {percent(high)}"
        groups = evaluation["groups"]
        text += f", from {count(groups, 'group')} of images that belong together)" if groups < images else ")"
    chance = max(sum(row) for row in matrix) / images
    return f"{text}. Always guessing the most frequent class would be right for {percent(chance)}."


def weakest(evaluation: Mapping[str, Any]) -> str:
    """Say which class is told apart worst, and what is most often taken for what."""
    classes, matrix = evaluation["classes"], evaluation["confusion_matrix"]
    mistakes = {
        (labelled, predicted): images
        for labelled, row in enumerate(matrix)
        for predicted, images in enumerate(row)
        if images and labelled != predicted
    }
    if not mistakes:
        return f"Not one of the {count(evaluation['images'], 'test image')} was misclassified."
    scores = {name: score for name in classes if (score := metric(evaluation, f"f1/{name}")) is not None}
    worst = min(scores, key=lambda name: scores[name])
    labelled, predicted = max(mistakes, key=lambda pair: mistakes[pair])
    return (
        f"{worst} is told apart worst (F1 {scores[worst]:.3f}). The most frequent mistake is {classes[labelled]} taken "
        f"for {classes[predicted]}: {mistakes[labelled, predicted]:,} of {count(sum(matrix[labelled]), 'image')}."
    )


def calibration(evaluation: Mapping[str, Any]) -> str:
    """Say how far a stated confidence can be trusted, and what calibration changed."""
    before, after = metric(evaluation, "ece_uncalibrated"), metric(evaluation, "ece")
    if after is None:
        return "How well the confidence fits was not measured."
    text = f"Confidence and share of right answers differ by {100 * after:.1f} percentage points on average"
    if not evaluation["calibration_images"] or before is None:
        return f"{text}; nothing was calibrated."
    change = "less" if after < before else "not less"
    return (
        f"{text}, {change} than the {100 * before:.1f} before calibration on "
        f"{count(evaluation['calibration_images'], 'other image')} (temperature {evaluation['temperature']:.2f})."
    )


def ranking(evaluation: Mapping[str, Any], curve: str) -> str:
    """Say which class is ranked worst by a curve, ``roc`` or ``pr``."""
    areas = {
        name: area
        for name in evaluation["classes"]
        if (area := metric(evaluation, f"{AREAS[curve]}/{name}")) is not None
    }
    if not areas:
        return "No class has test images enough for a curve."
    worst = min(areas, key=lambda name: areas[name])
    if areas[worst] == 1:
        return "Every class is ranked without a mistake on the test images."
    if curve == "roc":
        return (
            f"Of one image of {worst} and one of another class, the former gets the higher probability for {worst} in "
            f"{percent(areas[worst])} of cases; no class fares worse."
        )
    row = evaluation["confusion_matrix"][evaluation["classes"].index(worst)]
    return (
        f"{worst} has the lowest average precision, {areas[worst]:.3f}; guessing would give "
        f"{sum(row) / evaluation['images']:.3f}, its share of the test images."
    )


def comparison(found: Mapping[str, Any]) -> str:
    """Say how champion and challenger did on the same images, from one of a verdict's ``comparisons``."""
    champion, challenger = found["champion"]["f1_macro"], found["challenger"]["f1_macro"]
    return (
        f"On the {count(found['images'], 'image')} of gate generation {found['generation']} the challenger's macro-F1 "
        f"is {challenger:.3f} and the champion's {champion:.3f}. The challenger alone is right on "
        f"{count(found['gained'], 'image')}, the champion alone on {found['lost']:,}; the difference of "
        f"{found['difference']:+.3f} lies above {found['lower_bound']:+.3f} with {percent(found['confidence'])} "
        "confidence."
    )


def metric(evaluation: Mapping[str, Any], name: str) -> float | None:
    """Return a metric of the evaluation's split; None where it is not defined."""
    value: float | None = evaluation["metrics"].get(f"{evaluation.get('split', 'test')}/{name}")
    return value


def interval(evaluation: Mapping[str, Any], name: str) -> tuple[float | None, float | None]:
    """Return the bounds of a metric's 95 % interval, where there is one."""
    return metric(evaluation, f"{name}_low"), metric(evaluation, f"{name}_high")


def written_interval(evaluation: Mapping[str, Any], name: str) -> str:
    """Write a metric's 95 % interval; empty where there is none."""
    low, high = interval(evaluation, name)
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def confusions(evaluation: Mapping[str, Any]) -> tuple[list[str], list[str], list[list[int]]]:
    """Return the confusion matrix: the names of its rows and of its columns, and the images in its cells.

    Of too many classes it has those with the lowest F1, and a last column for the answers that were none of them.
    """
    classes, matrix = list(evaluation["classes"]), [list(row) for row in evaluation["confusion_matrix"]]
    places = table.first(range(len(classes)), lambda place: lowest(metric(evaluation, f"f1/{classes[place]}")))
    if len(places) == len(classes):
        return classes, classes, matrix
    shown = [classes[place] for place in places]
    cells = [[matrix[row][column] for column in places] for row in places]
    full = [[*counts, sum(matrix[row]) - sum(counts)] for row, counts in zip(places, cells, strict=True)]
    return shown, [*shown, OTHERS], full


def lowest(score: float | None) -> float:
    """Return a score to rank by, the lowest first and those that are not defined last."""
    return float("inf") if score is None else score


def worst_classes(evaluation: Mapping[str, Any], curve: str, most: int) -> Sequence[str]:
    """Return the classes that a curve shows worst, the worst first, at most so many."""
    areas = {name: metric(evaluation, f"{AREAS[curve]}/{name}") for name in evaluation["classes"]}
    defined = {name: area for name, area in areas.items() if area is not None}
    return sorted(defined, key=lambda name: defined[name])[:most]
