"""One self-contained HTML page that says how good a model is, why it decides, and on what data that was seen."""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lesion.evaluation import findings, plots
from lesion.evaluation.calibration import reliability
from lesion.evaluation.evaluation import Evaluation
from lesion.evaluation.metrics import DEFINITIONS
from lesion.explanation.faithfulness import Faithfulness

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
}
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
    "fingerprint": "fingerprint",
}
RANDOM_WEIGHTS = (
    "The network started from random weights, not from ones pretrained on a large image collection. Its scores are "
    "probably lower than the same data allows."
)
DISCLAIMER = (
    "This report describes a statistical model on one collection of images. The model is not a medical device, has not "
    "been assessed by any authority, and must not be used to diagnose or treat anyone. Its scores hold for images like "
    "those it was tested on; other scanners, clinics, populations and diseases can give very different ones. Heat maps "
    "show what the model used, not where a disease is."
)


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


def write_report(
    path: Path,
    evaluation: Evaluation,
    *,
    title: str,
    model: Mapping[str, Any],
    warnings: Sequence[str] = (),
    errors: Sequence[Example] = (),
    examples: Sequence[Example] = (),
    faithfulness: Sequence[Faithfulness] = (),
    facts: Mapping[str, Any] | None = None,
    leakage: Mapping[str, Any] | None = None,
    history: Path | None = None,
    config: str | None = None,
    lineage: Mapping[str, Any] | None = None,
    created: datetime | None = None,
) -> Path:
    """Write the report as one HTML file that needs nothing else: no script, no network, images inside.

    Sections whose data is left out do not appear.

    Args:
        path: The file to write; its folder is made, and an older file replaced.
        evaluation: What ``evaluate`` returned.
        title: The dataset's or run's name, as a heading.
        model: Facts of the model by name, nested at will; ``weights.source`` of "none" is warned about.
        warnings: Sentences for the top of the page.
        errors: Misclassified images, as ``worst_errors`` orders them.
        examples: Rightly classified images, as ``right_examples`` draws them.
        faithfulness: What ``faithfulness`` returned.
        facts: ``Manifest.facts()``.
        leakage: ``Leakage.to_dict()`` with, if there are any, ``contact_sheet_png`` (bytes) and ``folder_score`` (the
            metrics on the split that came with the data).
        history: ``metrics.csv`` of Lightning's CSV logger.
        config: The run's configuration as YAML.
        lineage: Where the model comes from: versions, commit, parent.
        created: Now when left out.

    Returns:
        ``path``.
    """
    environment = Environment(
        loader=PackageLoader("lesion.evaluation"),
        autoescape=True,  # by file name would leave a .j2 file unescaped
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": findings.percent, "number": _number}
    page = environment.get_template("report.html.j2").render(
        title=title,
        created=(created or datetime.now(UTC)).strftime("%d %B %Y, %H:%M %Z"),
        warnings=[*warnings, *_weights_warning(model), *evaluation.notes],
        findings=[
            findings.headline_finding(evaluation),
            findings.weakest_finding(evaluation),
            findings.calibration_finding(evaluation),
        ],
        tiles=[_row(evaluation, key) for key in TILES],
        headline=[_row(evaluation, key) for key in TITLES],
        per_class=_per_class(evaluation),
        per_class_titles=PER_CLASS,
        figures=_figures(evaluation, facts, history),
        calibration=_calibration(evaluation),
        errors=[_view(example) for example in errors],
        error_count=int((evaluation.predictions != evaluation.labels).sum()),
        examples=[_view(example) for example in examples],
        faithfulness=faithfulness,
        faithfulness_finding=findings.faithfulness_finding(faithfulness),
        model=_flat(model),
        facts=facts,
        fact_rows=_flat({title: (facts or {}).get(key) for key, title in FACTS.items()}),
        conflicts=_conflicts(facts),
        leakage=_leakage(leakage, evaluation),
        config=config,
        lineage=_flat(lineage or {}),
        disclaimer=DISCLAIMER,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    return path


def _weights_warning(model: Mapping[str, Any]) -> list[str]:
    weights = model.get("weights")
    source = weights.get("source") if isinstance(weights, Mapping) else weights
    return [RANDOM_WEIGHTS] if source == "none" else []


def _row(evaluation: Evaluation, key: str) -> dict[str, Any]:
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


def _per_class(evaluation: Evaluation) -> list[dict[str, Any]]:
    support = np.bincount(evaluation.labels, minlength=len(evaluation.classes))
    return [
        {"name": name, "images": int(support[c])}
        | {key: evaluation.metrics[f"{evaluation.prefix}/{key}/{name}"] for key in PER_CLASS}
        for c, name in enumerate(evaluation.classes)
    ]


def _figures(evaluation: Evaluation, facts: Mapping[str, Any] | None, history: Path | None) -> dict[str, Markup]:
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


def _calibration(evaluation: Evaluation) -> list[dict[str, Any]]:
    prefix = evaluation.prefix
    return [
        {
            "title": TITLES[key],
            "before": evaluation.metrics[f"{prefix}/{key}_uncalibrated"],
            "after": evaluation.metrics[f"{prefix}/{key}"],
        }
        for key in ("ece", "nll", "brier")
    ]


def _view(example: Example) -> dict[str, Any]:
    what = f"labelled {example.label}, predicted {example.predicted}"
    return {
        "example": example,
        "image": _image_uri(example.image),
        "overlay": None if example.overlay is None else _image_uri(example.overlay),
        "alt": f"Image {what}",
        "overlay_alt": f"Heat map of what speaks for {example.predicted}, on the image {what}",
    }


def _leakage(leakage: Mapping[str, Any] | None, evaluation: Evaluation) -> dict[str, Any] | None:
    if leakage is None:
        return None
    sheet = leakage.get("contact_sheet_png")
    folder = {key.rsplit("/", 1)[-1]: value for key, value in (leakage.get("folder_score") or {}).items()}
    return {
        "finding": findings.leakage_finding(leakage),
        "per_class": leakage.get("per_class") or {},
        "sheet": f"data:image/png;base64,{base64.b64encode(sheet).decode()}" if sheet else None,
        "scores": [
            {"title": TITLES[key], "here": evaluation.metrics[f"{evaluation.prefix}/{key}"], "folder": folder[key]}
            for key in TITLES
            if folder.get(key) is not None
        ],
    }


def _conflicts(facts: Mapping[str, Any] | None) -> list[list[Mapping[str, Any]]]:
    """Rows of the same picture under several classes, one list a picture."""
    pictures: dict[Any, list[Mapping[str, Any]]] = {}
    for row in (facts or {}).get("conflicts") or ():
        pictures.setdefault(row["duplicate_group"], []).append(row)
    return list(pictures.values())


def _image_uri(pixels: NDArray[np.uint8], longest: int = 224) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=86)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested facts as one table of texts; what is None is left out."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name} · ")
        elif isinstance(value, int) and not isinstance(value, bool):
            flat[name] = f"{value:,}"
        elif isinstance(value, list | tuple):
            flat[name] = ", ".join(str(item) for item in value)
        elif value is not None:
            flat[name] = str(value)
    return flat


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.{digits}f}"
