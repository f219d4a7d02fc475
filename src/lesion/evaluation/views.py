"""The contents of the report's template, prepared from an evaluation: rows, figures and images as data URIs."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lesion.conformal.prediction_sets import DEFAULT_COVERAGE
from lesion.evaluation import plots
from lesion.evaluation.cross_validation import CrossValidation
from lesion.evaluation.evaluation import Evaluation
from lesion.evaluation.findings import CLASS_TITLES, LOWER_IS_BETTER, TITLES, leakage_finding
from lesion.evaluation.intervals.confidence import consistency_bars
from lesion.evaluation.metrics import DEFINITIONS
from lesion.evaluation.operating_points import TITLES as OPERATING_TITLES
from lesion.evaluation.reliability import reliability

TILES = ("acc", "balanced_acc", "f1_macro", "roc_auc", "ece")
FACTS = {
    "name": "dataset",
    "policy": "split policy",
    "groups": "groups that no split divides",
    "duplicate_groups": "groups of near-duplicates",
    "duplicate_images": "images in these groups",
    "patients": "patients",
    "excluded": "images excluded",
    "copies": "excluded copies of other images",
    "fingerprint": "fingerprint",
}


@dataclass(frozen=True, eq=False)
class Example:
    """An image of the report."""

    image: NDArray[np.uint8]  # ``(H, W, 3)`` uint8, the network's input
    overlay: NDArray[np.uint8] | None  # the same with its heat map for the predicted class, or None
    label: str
    predicted: str
    confidence: float  # calibrated probability of ``predicted``
    label_probability: float  # calibrated probability of ``label``
    path: str = ""  # its name for users; may be empty

    @classmethod
    def of(
        cls, evaluation: Evaluation, row: int, image: NDArray[np.uint8], overlay: NDArray[np.uint8] | None = None
    ) -> "Example":
        """Create an example with the classes, probabilities and name of one row of an evaluation."""
        label, predicted = int(evaluation.labels[row]), int(evaluation.predictions[row])
        return cls(
            image=image,
            overlay=overlay,
            label=evaluation.classes[label],
            predicted=evaluation.classes[predicted],
            confidence=float(evaluation.probabilities[row, predicted]),
            label_probability=float(evaluation.probabilities[row, label]),
            path=evaluation.paths[row] if evaluation.paths else "",
        )


def headline_row(evaluation: Evaluation, key: str) -> dict[str, Any]:
    """Return a headline metric with its interval and meaning."""
    low, high = evaluation.interval(key)
    return {
        "title": TITLES[key],
        "value": evaluation.metrics[f"{evaluation.prefix}/{key}"],
        "low": low,
        "high": high,
        "meaning": DEFINITIONS[key],
        "better": "lower" if key in LOWER_IS_BETTER else "higher",
        "per_image": evaluation.metrics[f"{evaluation.prefix}/{key}_per_image"],
    }


def per_class(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return each class's number of images, its scores, and under ``intervals`` their low and high limits."""
    support = np.bincount(evaluation.labels, minlength=len(evaluation.classes))
    return [
        {"name": name, "images": int(support[c])} | _scores(evaluation, {key: f"{key}/{name}" for key in CLASS_TITLES})
        for c, name in enumerate(evaluation.classes)
    ]


def _scores(evaluation: Evaluation, metrics: Mapping[str, str]) -> dict[str, Any]:
    """Return metrics under other keys, and under ``intervals`` their low and high limits."""
    return {key: evaluation.metrics[f"{evaluation.prefix}/{metric}"] for key, metric in metrics.items()} | {
        "intervals": {key: evaluation.interval(metric) for key, metric in metrics.items()}
    }


def operating_points(evaluation: Evaluation) -> dict[str, Any] | None:
    """Prepare the table of the classes' scores at their operating points; None without them."""
    points = evaluation.operating_points
    if points is None:
        return None
    return {
        "specificity": points.specificity,
        "titles": OPERATING_TITLES,
        "missing": [name for name in evaluation.classes if name not in points.thresholds],
        "rows": [
            {"name": name, "threshold": threshold}
            | _scores(evaluation, {key: f"operating/{key}/{name}" for key in OPERATING_TITLES})
            for name, threshold in points.thresholds.items()
        ],
    }


def answer_rules(evaluation: Evaluation) -> dict[str, Any] | None:
    """Prepare what prediction sets and withheld answers promise and what the test images show; None without them."""
    rules = evaluation.answer_rules
    if rules is None:
        return None
    titles = {"coverage": "sets/coverage"}
    abstention = rules.abstention
    answered = f"{evaluation.prefix}/answered/share"  # measured if there is a promise
    promised = evaluation.metrics.get(answered, 0.0) > 0
    thresholds = zip(evaluation.classes, rules.sets.groups, rules.sets.thresholds[DEFAULT_COVERAGE], strict=True)
    return {
        "coverage": DEFAULT_COVERAGE,
        "size": evaluation.metrics[f"{evaluation.prefix}/sets/size"],
        "abstention": abstention,
        "answered": _scores(evaluation, {key: f"answered/{key}" for key in ("share", "error")}) if promised else None,
        "rows": [{"name": "all classes", "groups": None, "threshold": ""} | _scores(evaluation, titles)]
        + [
            {"name": name, "groups": groups, "threshold": float(threshold)}
            | _scores(evaluation, {"coverage": f"sets/coverage/{name}"})
            for name, groups, threshold in thresholds
        ],
    }


def evaluation_figures(evaluation: Evaluation, weakest: str, calibrated: str) -> dict[str, Markup]:
    """Draw the figures of an evaluation as inline SVG by name; the two findings describe two of them."""
    probabilities, labels, classes = evaluation.probabilities, evaluation.labels, evaluation.classes
    before = reliability(evaluation.uncalibrated_probabilities, labels)
    after = reliability(probabilities, labels)
    bars = [
        consistency_bars(each, labels, evaluation.groups)
        for each in (evaluation.uncalibrated_probabilities, probabilities)
    ]
    confusion = plots.confusion_matrix(evaluation.confusion, classes)
    roc = plots.roc_curves(probabilities, labels, classes)
    precision_recall = plots.pr_curves(probabilities, labels, classes)
    return {
        "confusion": _svg(confusion, f"Confusion matrix of {len(classes)} classes. {weakest}", "confusion"),
        "roc": _svg(roc, "ROC curve of each class against the rest", "roc"),
        "pr": _svg(precision_recall, "Precision-recall curve of each class against the rest", "pr"),
        "reliability": _svg(plots.reliability_diagram(before, after, bars), calibrated, "reliability"),
    }


def run_figures(facts: Mapping[str, Any] | None, history: Path | None) -> dict[str, Markup]:
    """Draw the figures of the data and of the training, those that there is data for, as inline SVG by name."""
    figures = {}
    if facts and facts.get("images"):
        distribution = plots.class_distribution(facts["images"])
        figures["distribution"] = _svg(distribution, "Images of each class in each split", "distribution")
    if history and history.is_file() and (curves := plots.learning_curves(history)):
        figures["learning"] = _svg(curves, "Loss and validation score by epoch", "learning")
    return figures


def _svg(figure: Figure, label: str, name: str) -> Markup:
    return Markup(plots.to_svg(figure, label, name))  # noqa: S704 (Matplotlib escapes its texts, to_svg the label)


def calibration(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the measures of calibration before and after it."""
    prefix = evaluation.prefix
    return [
        {
            "title": TITLES[key],
            "before": evaluation.metrics[f"{prefix}/{key}_uncalibrated"],
            "after": evaluation.metrics[f"{prefix}/{key}"],
        }
        for key in ("ece", "ece_classwise", "nll", "brier")
    ]


def card(example: Example) -> dict[str, Any]:
    """Prepare one image, its overlay and their descriptions."""
    description = f"labeled {example.label}, predicted {example.predicted}"
    return {
        "example": example,
        "image": image_uri(example.image),
        "overlay": None if example.overlay is None else image_uri(example.overlay),
        "alt": f"Image {description}",
        "overlay_alt": f"Heat map of the evidence for {example.predicted}, on the image {description}",
    }


def leakage(leakage: Mapping[str, Any] | None, evaluation: Evaluation) -> dict[str, Any] | None:
    """Prepare the section on the split that came with the data, its scores next to this evaluation's."""
    if leakage is None:
        return None
    sheet = leakage.get("contact_sheet_png")
    folder = {key.split("/", 1)[-1]: value for key, value in (leakage.get("folder_score") or {}).items()}
    return {
        "finding": leakage_finding(leakage),
        "per_class": leakage.get("per_class") or {},
        "sheet": f"data:image/png;base64,{base64.b64encode(sheet).decode()}" if sheet else None,
        "epochs": leakage.get("folder_epochs"),
        "scores": [
            {"title": TITLES[key], "here": evaluation.metrics[f"{evaluation.prefix}/{key}"], "folder": folder[key]}
            for key in TITLES
            if folder.get(key) is not None
        ],
    }


def cross_validation(validation: CrossValidation) -> list[dict[str, Any]]:
    """Return each headline metric's scores of all trainings, their mean and its interval."""
    rows = []
    for key, title in TITLES.items():
        low, high = validation.interval(key)
        scores = [each[key] for each in validation.scores]
        rows.append({"title": title, "value": validation.mean(key), "low": low, "high": high, "scores": scores})
    return rows


def conflicts(facts: Mapping[str, Any] | None) -> list[list[Mapping[str, Any]]]:
    """Collect the rows of the same picture under several classes, one list per picture."""
    pictures: dict[Any, list[Mapping[str, Any]]] = {}
    for row in (facts or {}).get("conflicts") or ():
        pictures.setdefault(row["duplicate_group"], []).append(row)
    return list(pictures.values())


def image_uri(pixels: NDArray[np.uint8], longest: int = 224) -> str:
    """Encode pixels ``(H, W, 3)`` as a JPEG data URI with a longest side of at most ``longest``."""
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=86)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested facts as one table of texts; None values are left out."""
    rows: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            rows |= flat(value, f"{name} · ")
        elif isinstance(value, int) and not isinstance(value, bool):
            rows[name] = f"{value:,}"
        elif isinstance(value, list | tuple):
            rows[name] = ", ".join(str(item) for item in value)
        elif value is not None:
            rows[name] = str(value)
    return rows
