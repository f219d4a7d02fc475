"""One evaluation of a classifier on one split: what was measured, and how it is kept."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import DataError
from lesion.evaluation.bootstrap import bootstrap_intervals
from lesion.evaluation.calibration import TEMPERATURE_RANGE, fit_temperature, is_separated, softmax
from lesion.evaluation.curves import curves_json
from lesion.evaluation.metrics import DEFINITIONS, check_inputs, compute_metrics, confusion_matrix


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What ``evaluate`` found.

    Attributes:
        classes: C names.
        labels: ``(N,)`` int64.
        logits: ``(N, C)`` float32, not calibrated.
        groups: ``(N,)`` int64; images that belong together share one.
        paths: N image names for people; empty when not known.
        temperature: Divides the logits; fitted on the calibration split.
        calibration_images: How many images the temperature was fitted on.
        metrics: Calibrated numbers, and ``<split>/{nll,brier,ece}_uncalibrated``; NaN where not defined.
        intervals: 95 % bootstrap interval of each headline metric, by key of ``metrics``.
        notes: Sentences that a reader of the numbers must know.
        prefix: The split's name in the keys.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    groups: NDArray[np.int64]
    paths: tuple[str, ...]
    temperature: float
    calibration_images: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    notes: tuple[str, ...] = field(default=())
    prefix: str = "test"

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Calibrated, ``(N, C)``."""
        return softmax(self.logits, self.temperature)

    @cached_property
    def uncalibrated_probabilities(self) -> NDArray[np.float32]:
        """Those of temperature 1, ``(N, C)``."""
        return softmax(self.logits)

    @cached_property
    def predictions(self) -> NDArray[np.int64]:
        """Indices of the most probable classes, ``(N,)``."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Images by labelled (rows) and predicted class (columns), ``(C, C)``."""
        return confusion_matrix(self.predictions, self.labels, len(self.classes))

    def all_metrics(self) -> dict[str, float]:
        """The metrics and their intervals as one flat table, ``<key>_low`` and ``<key>_high``, for loggers."""
        flat = dict(self.metrics)
        for key, (low, high) in self.intervals.items():
            flat |= {f"{key}_low": low, f"{key}_high": high}
        return flat

    def to_json(self) -> dict[str, Any]:
        """Everything but the arrays of images, free of NaN (None stands for a number that is not defined)."""
        return {
            "split": self.prefix,
            "classes": list(self.classes),
            "images": len(self.labels),
            "groups": len(np.unique(self.groups)),
            "temperature": self.temperature,
            "calibration_images": self.calibration_images,
            "metrics": finite(self.all_metrics()),
            "confusion_matrix": self.confusion.tolist(),
            "curves": curves_json(self.classes, self.labels, self.uncalibrated_probabilities, self.probabilities),
            "definitions": dict(DEFINITIONS),
            "notes": list(self.notes),
        }


def evaluate(
    logits: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    groups: NDArray[np.integer[Any]],
    classes: Sequence[str],
    calibration_logits: NDArray[np.floating[Any]] | None,
    calibration_labels: NDArray[np.integer[Any]] | None,
    *,
    paths: Sequence[str] = (),
    prefix: str = "test",
    replicates: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Calibrate on one split, measure on another: every number, its interval, and what to know about them.

    Args:
        logits: ``(N, C)`` of the split to measure on.
        labels: ``(N,)`` indices below C.
        groups: ``(N,)`` integers; images of one patient or duplicate group share one.
        classes: C names.
        calibration_logits: ``(M, C)`` of the calibration split, the only images the temperature is fitted on. None or
            M = 0: the temperature stays 1, and the notes say so.
        calibration_labels: ``(M,)``.
        paths: N image names, or none.
        prefix: The split's name in the metrics' keys.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        DataError: Arrays that do not fit together, an empty split, or outputs that are not finite.
    """
    logits, targets = np.asarray(logits, dtype=np.float32), np.asarray(labels, dtype=np.int64)
    check_inputs(logits, targets, classes)
    if paths and len(paths) != len(targets):
        raise DataError(f"{len(paths)} image names were given for {len(targets)} images; give one an image, or none.")
    temperature, calibration_images, calibration_notes = _calibrate(calibration_logits, calibration_labels, classes)
    probabilities, uncalibrated = softmax(logits, temperature), softmax(logits)
    metrics = compute_metrics(probabilities, targets, classes, prefix)
    before = compute_metrics(uncalibrated, targets, classes, prefix)
    metrics |= {f"{prefix}/{key}_uncalibrated": before[f"{prefix}/{key}"] for key in ("nll", "brier", "ece")}
    return Evaluation(
        classes=tuple(classes),
        labels=targets,
        logits=logits,
        groups=np.asarray(groups, dtype=np.int64),
        paths=tuple(paths),
        temperature=temperature,
        calibration_images=calibration_images,
        metrics=metrics,
        intervals=bootstrap_intervals(probabilities, targets, groups, replicates=replicates, seed=seed, prefix=prefix),
        notes=(*_notes(probabilities.argmax(axis=1), targets, groups, classes), *calibration_notes),
        prefix=prefix,
    )


def write_metrics(path: Path, evaluation: Evaluation, **extra: Any) -> None:  # noqa: ANN401 (any JSON value)
    """Write ``Evaluation.to_json`` and further facts as sorted, NaN-free JSON; the same input gives the same bytes."""
    text = json.dumps(
        finite(evaluation.to_json() | extra), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False
    )
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text so that a reader sees the old file or the whole new one; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def finite(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    """Copy a tree of dicts and lists with NaN and infinities as None and NumPy values as Python's."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def worst_errors(evaluation: Evaluation, limit: int = 12) -> NDArray[np.int64]:
    """Find the misclassified images of highest confidence, most confident first; up to ``limit`` row numbers."""
    wrong = np.flatnonzero(evaluation.predictions != evaluation.labels)
    confidence = evaluation.probabilities[wrong, evaluation.predictions[wrong]]
    return wrong[np.argsort(-confidence, kind="stable")][:limit]


def right_examples(evaluation: Evaluation, per_class: int = 2, seed: int = 0) -> NDArray[np.int64]:
    """Draw up to ``per_class`` rightly classified images of each class at random, so that they are typical ones."""
    rng = np.random.default_rng(seed)
    right = evaluation.predictions == evaluation.labels
    chosen = [
        rng.permutation(np.flatnonzero(right & (evaluation.labels == c)))[:per_class]
        for c in range(len(evaluation.classes))
    ]
    return np.concatenate(chosen).astype(np.int64)


def _calibrate(
    logits: NDArray[np.floating[Any]] | None, labels: NDArray[np.integer[Any]] | None, classes: Sequence[str]
) -> tuple[float, int, list[str]]:
    """Fit the temperature: its value, the number of images it rests on, and what to know about it."""
    if logits is None or labels is None or not len(labels):
        return 1.0, 0, ["There were no calibration images: the probabilities are not calibrated."]
    check_inputs(logits, labels, classes)
    temperature = fit_temperature(logits, labels)
    notes = []
    if is_separated(logits, labels):
        notes.append(
            f"All {len(labels)} calibration images were classified correctly, which says little about how confident a "
            "wrong answer is: the temperature rests on Laplace's rule of succession."
        )
    low, high = TEMPERATURE_RANGE
    if temperature < low * 1.01 or temperature > high / 1.01:
        notes.append(f"The temperature stopped at the end of its range ({low}–{high}): do not trust the probabilities.")
    return temperature, len(labels), notes


def _notes(
    predictions: NDArray[np.integer[Any]],
    labels: NDArray[np.int64],
    groups: NDArray[np.integer[Any]],
    classes: Sequence[str],
) -> list[str]:
    notes = []
    support = np.bincount(labels, minlength=len(classes))
    if absent := [name for name, count in zip(classes, support, strict=True) if not count]:
        notes.append(f"Left out of the averages for want of test images: {', '.join(absent)}.")
    count = len(np.unique(groups))
    if count < 2:
        notes.append("All test images belong to one group, so no interval can be given.")
    elif (predictions == labels).all():
        # With no error in n independent groups, an error rate above this would show one with 95 % probability.
        notes.append(
            f"No error was seen in {count} independent groups, so the bootstrap shows no variation; an error rate "
            f"of up to {1 - 0.05 ** (1 / count):.1%} would still be compatible with that (95 %)."
        )
    return notes
