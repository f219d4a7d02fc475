"""What the page derives from a model's evaluation, next to the sentences of ``lesion.evaluation.findings``."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lesion.core.text import format_count, format_percent
from lesion.evaluation.findings import AREAS, metric
from serve.ui.text.sentences import format_age, select_lowest

OTHERS = "any other class"
LOWEST = "with the lowest F1"
_HOUR_S = 3_600


def age(created: str, now: datetime) -> str:
    """Write how old something is."""
    seconds = (now - datetime.fromisoformat(created)).total_seconds()
    return "less than an hour" if seconds < _HOUR_S else format_age(seconds)


def comparison(comparison: Mapping[str, Any]) -> str:
    """Write how champion and challenger did on the same images, from one of a verdict's ``comparisons``."""
    champion, challenger = (comparison[model]["f1_macro"] for model in ("champion", "challenger"))
    return (
        f"On the {format_count(comparison['images'], 'image')} of gate generation {comparison['generation']}, the "
        f"challenger's macro-F1 is {challenger:.3f} and the champion's {champion:.3f}. Only the challenger is right on "
        f"{format_count(comparison['gained'], 'image')}, only the champion on {comparison['lost']:,}. The difference "
        f"is {comparison['difference']:+.3f}; with {format_percent(comparison['confidence'])} confidence it is above "
        f"{comparison['lower_bound']:+.3f}."
    )


def describe_outcome(check: Mapping[str, Any]) -> str:
    """Write whether a condition of the gate holds; verdicts of earlier versions have no ``outcome``."""
    if check.get("outcome") == "too_few_images":
        return "not judged"
    return "yes" if check["passed"] else "no"


def format_interval(evaluation: Mapping[str, Any], name: str) -> str:
    """Write a metric's 95 % interval, or that images are too few for one; empty where an older version has none."""
    was_computed = f"{evaluation.get('split', 'test')}/{name}_low" in evaluation["metrics"]
    if metric(evaluation, name) is None or not was_computed:
        return ""
    low, high = metric(evaluation, f"{name}_low"), metric(evaluation, f"{name}_high")
    return "too few to say" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def confusions(evaluation: Mapping[str, Any]) -> tuple[list[str], list[str], list[list[int]], str]:
    """Return the confusion matrix: the names of its rows and of its columns, the images in its cells, and a note.

    Of too many classes it has those with the lowest F1, and a last column for predictions of all other classes; the
    note says so.
    """
    classes, matrix = list(evaluation["classes"]), [list(row) for row in evaluation["confusion_matrix"]]
    scores = [low_first(metric(evaluation, f"f1/{name}")) for name in classes]
    indices, note = select_lowest(range(len(classes)), scores.__getitem__, LOWEST)
    if not note:
        return classes, classes, matrix, ""
    names = [classes[index] for index in indices]
    cells = [[matrix[row][column] for column in indices] for row in indices]
    rows = [[*counts, sum(matrix[row]) - sum(counts)] for row, counts in zip(indices, cells, strict=True)]
    return names, [*names, OTHERS], rows, note


def low_first(score: float | None) -> float:
    """Return a score to sort by, so that low scores come first and undefined ones last."""
    return float("inf") if score is None else score


def worst_classes(evaluation: Mapping[str, Any], curve: str, most: int) -> Sequence[str]:
    """Return the classes with the worst ``roc`` or ``pr`` curves, the worst first."""
    areas = {name: metric(evaluation, f"{AREAS[curve]}/{name}") for name in evaluation["classes"]}
    return sorted((name for name in areas if areas[name] is not None), key=lambda name: low_first(areas[name]))[:most]
