"""What the report's template shows, prepared from an evaluation: rows, figures and images as data URIs."""

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

from lesion.evaluation import findings, plots
from lesion.evaluation.calibration import reliability
from lesion.evaluation.evaluation import Evaluation
from lesion.evaluation.metrics import DEFINITIONS, TITLES

TILES = ("acc", "balanced_acc", "f1_macro", "roc_auc", "ece")
PER_CLASS = {"precision": "Precision", "recall": "Recall", "f1": "F1", "roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}
FACTS = {
    "name": "dataset",
    "policy": "how it was split",
    "groups": "groups that no split divides",
    "duplicate_groups": "groups of near-duplicates",
    "duplicate_images": "images in them",
    "patients": "patients named",
    "excluded": "images excluded",
    "copies": "of them copies of another image",
    "fingerprint": "fingerprint",
}


@dataclass(frozen=True, eq=False)
class Example:
    """One image to show.

    Attributes:
        image: ``(H, W, 3)`` uint8 as the network saw it.
        overlay: The same with its heat map for the predicted class, or None.
        label: The class it is labelled with.
        predicted: The class the model gave.
        confidence: Calibrated probability of ``predicted``.
        label_probability: Calibrated probability of ``label``.
        path: Its name, for people; may be empty.
    """

    image: NDArray[np.uint8]
    overlay: NDArray[np.uint8] | None
    label: str
    predicted: str
    confidence: float
    label_probability: float
    path: str = ""

    @classmethod
    def of(
        cls, evaluation: Evaluation, row: int, image: NDArray[np.uint8], overlay: NDArray[np.uint8] | None = None
    ) -> "Example":
        """Take the classes, probabilities and name of one row of an evaluation."""
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
    """One headline metric with its interval and meaning."""
    name = f"{evaluation.prefix}/{key}"
    low, high = evaluation.intervals.get(name, (float("nan"), float("nan")))
    return {
        "title": TITLES[key],
        "value": evaluation.metrics[name],
        "low": low,
        "high": high,
        "meaning": DEFINITIONS[key],
        "better": "lower" if key in ("nll", "brier", "ece") else "higher",
    }


def per_class(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Each class's number of images and its scores."""
    support = np.bincount(evaluation.labels, minlength=len(evaluation.classes))
    return [
        {"name": name, "images": int(support[c])}
        | {key: evaluation.metrics[f"{evaluation.prefix}/{key}/{name}"] for key in PER_CLASS}
        for c, name in enumerate(evaluation.classes)
    ]


def figures(evaluation: Evaluation, facts: Mapping[str, Any] | None, history: Path | None) -> dict[str, Markup]:
    """Draw every figure that there is data for, as inline SVG by name."""
    probabilities, labels, classes = evaluation.probabilities, evaluation.labels, evaluation.classes
    before = reliability(evaluation.uncalibrated_probabilities, labels)
    after = reliability(probabilities, labels)
    weakest = findings.weakest_finding(evaluation)
    drawn: dict[str, tuple[Figure | None, str]] = {
        "confusion": (
            plots.confusion_matrix(evaluation.confusion, classes),
            f"Confusion matrix of {len(classes)} classes. {weakest}",
        ),
        "roc": (plots.roc_curves(probabilities, labels, classes), "ROC curve of each class against the rest"),
        "pr": (
            plots.pr_curves(probabilities, labels, classes),
            "Precision-recall curve of each class against the rest",
        ),
        "reliability": (plots.reliability_diagram(before, after), findings.calibration_finding(evaluation)),
        "distribution": (
            plots.class_distribution(facts["images"]) if facts and facts.get("images") else None,
            "Images of each class in each split",
        ),
        "learning": (
            plots.learning_curves(history) if history and history.is_file() else None,
            "Loss and validation score by epoch",
        ),
    }
    return {
        name: Markup(plots.to_svg(figure, alt, name))  # noqa: S704 (Matplotlib escapes its texts, to_svg the label)
        for name, (figure, alt) in drawn.items()
        if figure is not None
    }


def calibration(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Give the measures of calibration before and after it."""
    prefix = evaluation.prefix
    return [
        {
            "title": TITLES[key],
            "before": evaluation.metrics[f"{prefix}/{key}_uncalibrated"],
            "after": evaluation.metrics[f"{prefix}/{key}"],
        }
        for key in ("ece", "nll", "brier")
    ]


def card(example: Example) -> dict[str, Any]:
    """Prepare one image, its overlay and their descriptions."""
    what = f"labelled {example.label}, predicted {example.predicted}"
    return {
        "example": example,
        "image": image_uri(example.image),
        "overlay": None if example.overlay is None else image_uri(example.overlay),
        "alt": f"Image {what}",
        "overlay_alt": f"Heat map of what speaks for {example.predicted}, on the image {what}",
    }


def leakage(leakage: Mapping[str, Any] | None, evaluation: Evaluation) -> dict[str, Any] | None:
    """Prepare the section on the split that came with the data, its scores beside this evaluation's."""
    if leakage is None:
        return None
    sheet = leakage.get("contact_sheet_png")
    folder = {key.split("/", 1)[-1]: value for key, value in (leakage.get("folder_score") or {}).items()}
    return {
        "finding": findings.leakage_finding(leakage),
        "per_class": leakage.get("per_class") or {},
        "sheet": f"data:image/png;base64,{base64.b64encode(sheet).decode()}" if sheet else None,
        "epochs": leakage.get("folder_epochs"),
        "scores": [
            {"title": TITLES[key], "here": evaluation.metrics[f"{evaluation.prefix}/{key}"], "folder": folder[key]}
            for key in TITLES
            if folder.get(key) is not None
        ],
    }


def conflicts(facts: Mapping[str, Any] | None) -> list[list[Mapping[str, Any]]]:
    """Collect the rows of the same picture under several classes, one list a picture."""
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
    """Write nested facts as one table of texts; what is None is left out."""
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


def decimals(value: float | None, digits: int = 3) -> str:
    """Write a number with fixed decimals, and a dash where there is none."""
    return "–" if value is None or np.isnan(value) else f"{value:.{digits}f}"
