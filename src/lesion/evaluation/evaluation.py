"""One evaluation of a classifier on one split: its calibration, its measurements, and how they are stored."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import DataError
from lesion.core.files import write_atomically
from lesion.core.text import format_percent, join_names
from lesion.evaluation.bootstrap import bootstrap_intervals
from lesion.evaluation.calibration import TEMPERATURE_RANGE, Floats, Ints, fit_temperature, is_separated, softmax
from lesion.evaluation.curves import curves_json
from lesion.evaluation.findings import EvaluationRecord
from lesion.evaluation.metrics import DEFINITIONS, check_inputs, compute_metrics, confusion_matrix


@dataclass(frozen=True)
class Calibration:
    """The temperature of a model's probabilities."""

    temperature: float = 1.0  # divides the logits
    images: int = 0
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(cls, logits: Floats, labels: Ints, classes: Sequence[str]) -> "Calibration":
        """Fit the temperature on ``(M, C)`` logits and ``(M,)`` labels of the calibration split.

        Without images the temperature stays 1, and a note says so.
        """
        if not len(labels):
            return cls(notes=("There were no calibration images: the probabilities are not calibrated.",))
        check_inputs(logits, labels, classes)
        temperature, notes = fit_temperature(logits, labels), []
        if is_separated(logits, labels):
            notes.append(
                f"All {len(labels)} calibration images were classified correctly, so they tell little about the "
                "confidence of wrong answers: the temperature rests on Laplace's rule of succession."
            )
        low, high = TEMPERATURE_RANGE
        if temperature < low * 1.01 or temperature > high / 1.01:
            notes.append(
                f"The temperature stopped at the end of its range ({low}–{high}): do not trust the probabilities."
            )
        return cls(temperature, len(labels), tuple(notes))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The measurements of one model on one split."""

    classes: tuple[str, ...]  # C names
    labels: NDArray[np.int64]  # ``(N,)`` int64
    logits: NDArray[np.float32]  # ``(N, C)`` float32, not calibrated
    groups: NDArray[np.int64]  # ``(N,)`` int64; images that belong together share one
    paths: tuple[str, ...]  # N image names for users; empty if unknown
    temperature: float  # divides the logits; fitted on the calibration split
    calibration_images: int  # how many images the temperature was fitted on
    metrics: dict[str, float]  # calibrated numbers, and ``<split>/{nll,brier,ece}_uncalibrated``; NaN where undefined
    intervals: dict[str, tuple[float, float]]  # 95 % bootstrap interval of each headline metric, by key of ``metrics``
    notes: tuple[str, ...] = ()
    prefix: str = "test"  # the split's name in the keys

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Calibrated probabilities, ``(N, C)``."""
        return softmax(self.logits, self.temperature)

    @cached_property
    def uncalibrated_probabilities(self) -> NDArray[np.float32]:
        """Probabilities at temperature 1, ``(N, C)``."""
        return softmax(self.logits)

    @cached_property
    def predictions(self) -> NDArray[np.int64]:
        """Indices of the most probable classes, ``(N,)``."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Images by labeled (rows) and predicted class (columns), ``(C, C)``."""
        return confusion_matrix(self.predictions, self.labels, len(self.classes))

    def interval(self, key: str) -> tuple[float, float]:
        """Return the 95 % interval of a metric of this split, such as ``acc``; (NaN, NaN) if it has none."""
        return self.intervals.get(f"{self.prefix}/{key}", (float("nan"), float("nan")))

    def all_metrics(self) -> dict[str, float]:
        """Return the metrics and their intervals as one flat table, ``<key>_low`` and ``<key>_high``, for loggers."""
        flat = dict(self.metrics)
        for key, (low, high) in self.intervals.items():
            flat |= {f"{key}_low": low, f"{key}_high": high}
        return flat

    def to_json(self) -> EvaluationRecord:
        """Return everything but the arrays of images, JSON-ready; None stands for an undefined number."""
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


def evaluate_logits(
    logits: Floats,
    labels: Ints,
    groups: Ints,
    classes: Sequence[str],
    calibration: Calibration,
    *,
    paths: Sequence[str] = (),
    prefix: str = "test",
    replicates: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Measure a model's outputs on one split: every metric, its interval, and warnings about them.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)`` indices below C.
        groups: ``(N,)`` integers; images of one patient or duplicate group share one.
        classes: C names.
        calibration: The temperature, fitted on other images.
        paths: N image names, or none.
        prefix: The split's name in the metrics' keys.
        replicates: Number of bootstrap replicates.
        seed: Seed of the bootstrap.

    Raises:
        DataError: Arrays that do not fit together, an empty split, or outputs that are not finite.
    """
    logits, targets = np.asarray(logits, dtype=np.float32), np.asarray(labels, dtype=np.int64)
    check_inputs(logits, targets, classes)
    if paths and len(paths) != len(targets):
        raise DataError(f"{len(paths)} image names came with {len(targets)} images; give one per image, or none.")
    probabilities, uncalibrated = softmax(logits, calibration.temperature), softmax(logits)
    metrics = compute_metrics(probabilities, targets, classes, prefix)
    before = compute_metrics(uncalibrated, targets, classes, prefix)
    metrics |= {f"{prefix}/{key}_uncalibrated": before[f"{prefix}/{key}"] for key in ("nll", "brier", "ece")}
    return Evaluation(
        classes=tuple(classes),
        labels=targets,
        logits=logits,
        groups=np.asarray(groups, dtype=np.int64),
        paths=tuple(paths),
        temperature=calibration.temperature,
        calibration_images=calibration.images,
        metrics=metrics,
        intervals=bootstrap_intervals(probabilities, targets, groups, replicates=replicates, seed=seed, prefix=prefix),
        notes=(*_notes(probabilities.argmax(axis=1), targets, groups, classes), *calibration.notes),
        prefix=prefix,
    )


def write_metrics(path: Path, evaluation: Evaluation, **extra: Any) -> None:  # noqa: ANN401 (any JSON value)
    """Write ``Evaluation.to_json`` and further facts as sorted, NaN-free JSON; the same input gives the same bytes."""
    content = finite({**evaluation.to_json(), **extra})
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")


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
    """Return up to ``limit`` row numbers of misclassified images, the most confident first."""
    wrong = np.flatnonzero(evaluation.predictions != evaluation.labels)
    confidence = evaluation.probabilities[wrong, evaluation.predictions[wrong]]
    return wrong[np.argsort(-confidence, kind="stable")][:limit]


def correct_examples(evaluation: Evaluation, per_class: int = 2, seed: int = 0) -> NDArray[np.int64]:
    """Draw up to ``per_class`` correctly classified images of each class at random, so that they are typical."""
    rng = np.random.default_rng(seed)
    correct = evaluation.predictions == evaluation.labels
    rows = [
        rng.permutation(np.flatnonzero(correct & (evaluation.labels == c)))[:per_class]
        for c in range(len(evaluation.classes))
    ]
    return np.concatenate(rows).astype(np.int64)


def _notes(predictions: Ints, labels: NDArray[np.int64], groups: Ints, classes: Sequence[str]) -> list[str]:
    notes = []
    support = np.bincount(labels, minlength=len(classes))
    if absent := [name for name, images in zip(classes, support, strict=True) if not images]:
        notes.append(f"Left out of the averages because they have no test images: {join_names(absent, len(absent))}.")
    independent = len(np.unique(groups))
    if independent < 2:
        notes.append("All test images belong to one group, so there are no intervals.")
    elif (predictions == labels).all():
        # With no error in n independent groups, an error rate above this would show one with 95 % probability.
        notes.append(
            f"No error was seen in {independent} independent groups, so the bootstrap shows no variation; an error "
            f"rate of up to {format_percent(1 - 0.05 ** (1 / independent), 1)} would still be compatible with that "
            "(95 %)."
        )
    return notes
