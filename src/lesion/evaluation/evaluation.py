"""One evaluation of a classifier on one split: its measurements, and how they are stored."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.conformal.answer_rules import AnswerRules
from lesion.core.errors import DataError
from lesion.core.files import write_atomically
from lesion.core.text import format_percent, join_names
from lesion.evaluation.answer_metrics import estimate_answers
from lesion.evaluation.curves import curves_json
from lesion.evaluation.findings import TITLES, EvaluationRecord
from lesion.evaluation.intervals.confidence import estimate_calibration, estimate_metrics
from lesion.evaluation.intervals.estimates import Estimate
from lesion.evaluation.metrics import DEFINITIONS, check_inputs, compute_metrics, confusion_matrix
from lesion.evaluation.operating_points import OperatingPoints, estimate_at
from lesion.evaluation.probabilities import Calibration, Floats, Ints, softmax
from lesion.evaluation.reliability import AnswerFrequency, answer_frequencies


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The measurements of one model on one split."""

    classes: tuple[str, ...]  # C names
    labels: NDArray[np.int64]  # ``(N,)`` int64
    logits: NDArray[np.float32]  # ``(N, C)`` float32, not calibrated
    groups: NDArray[np.int64]  # ``(N,)`` int64; images that belong together share one
    paths: tuple[str, ...]  # N image names for users; empty if unknown
    calibration: Calibration  # fitted on the calibration split
    # Numbers with one vote a group, after calibration; ``<key>_per_image`` with one vote an image, and
    # ``{nll,brier,ece,ece_classwise}_uncalibrated`` before calibration. NaN where undefined.
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]  # 95 % intervals by key of ``metrics``; NaN where images are too few
    notes: tuple[str, ...] = ()
    prefix: str = "test"  # the split's name in the keys
    operating_points: OperatingPoints | None = None  # chosen on the calibration split, if a specificity is set
    answer_rules: AnswerRules | None = None  # fitted on the calibration split, if it has images

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Calibrated probabilities, ``(N, C)``."""
        return self.calibration.probabilities(self.logits)

    @cached_property
    def uncalibrated_probabilities(self) -> NDArray[np.float32]:
        """Probabilities at temperature 1, ``(N, C)``."""
        return softmax(self.logits)

    @cached_property
    def answer_frequencies(self) -> tuple[AnswerFrequency, ...]:
        """How many images were answered right, by confidence, the highest first."""
        return answer_frequencies(self.probabilities, self.labels)

    @cached_property
    def predictions(self) -> NDArray[np.int64]:
        """Indices of the most probable classes, ``(N,)``."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Images by labeled (rows) and predicted class (columns), ``(C, C)``."""
        return confusion_matrix(self.predictions, self.labels, len(self.classes))

    def interval(self, key: str) -> tuple[float, float]:
        """Return the 95 % interval of a metric of this split, such as ``acc``; (NaN, NaN) if images are too few."""
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
            "temperature": self.calibration.temperature,
            "bias": self.calibration.bias,
            "prevalence": self.calibration.prevalence,
            "calibration_images": self.calibration.images,
            "answer_rules": None if self.answer_rules is None else self.answer_rules.to_json(),
            "answer_frequencies": [each.to_json() for each in self.answer_frequencies],
            "operating_points": None if self.operating_points is None else self.operating_points.to_json(),
            "metrics": finite(self.all_metrics()),
            "confusion_matrix": self.confusion.tolist(),
            "curves": curves_json(
                self.classes, self.labels, self.groups, self.uncalibrated_probabilities, self.probabilities
            ),
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
    notes: Sequence[str] = (),
    operating_points: OperatingPoints | None = None,
    answer_rules: AnswerRules | None = None,
) -> Evaluation:
    """Measure a model's outputs on one split: every metric, its interval, and warnings about them.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)`` indices below C.
        groups: ``(N,)`` integers; images of one patient or duplicate group share one, and one vote.
        classes: C names.
        calibration: Fitted on other images. If it is for a prevalence, so are all numbers but those per image.
        paths: N image names, or none.
        prefix: The split's name in the metrics' keys.
        notes: Sentences about what limits the numbers; more are added.
        operating_points: Thresholds of the classes, chosen on other images; the scores at them are measured too.
        answer_rules: The model's prediction sets and when it abstains, fitted on other images; they are measured too.

    Raises:
        DataError: Arrays that do not fit together, an empty split, or outputs that are not finite.
    """
    logits, targets = np.asarray(logits, dtype=np.float32), np.asarray(labels, dtype=np.int64)
    check_inputs(logits, targets, classes)
    if paths and len(paths) != len(targets):
        raise DataError(f"{len(paths)} image names came with {len(targets)} images; give one per image, or none.")
    probabilities = calibration.probabilities(logits)
    estimates = estimate_metrics(probabilities, targets, groups, classes, calibration.prevalence)
    if operating_points is not None:
        estimates |= estimate_at(operating_points, probabilities, targets, groups, classes, calibration.prevalence)
    if answer_rules is not None:
        estimates |= estimate_answers(answer_rules, probabilities, targets, groups, classes)
    metrics = {f"{prefix}/{key}": estimate.value for key, estimate in estimates.items()}
    before = estimate_calibration(softmax(logits), targets, groups, calibration.prevalence)
    metrics |= {f"{prefix}/{key}_uncalibrated": estimate.value for key, estimate in before.items()}
    per_image = compute_metrics(probabilities, targets, classes, prefix)
    metrics |= {f"{prefix}/{key}_per_image": per_image[f"{prefix}/{key}"] for key in TITLES}
    return Evaluation(
        classes=tuple(classes),
        labels=targets,
        logits=logits,
        groups=np.asarray(groups, dtype=np.int64),
        paths=tuple(paths),
        calibration=calibration,
        metrics=metrics,
        intervals={f"{prefix}/{key}": (each.low, each.high) for key, each in estimates.items()},
        notes=(
            *notes,
            *_prevalence_note(calibration, classes),
            *_notes(estimates, probabilities.argmax(axis=1), targets, groups, classes),
            *calibration.notes,
            *(answer_rules.notes(classes) if answer_rules is not None else ()),
        ),
        prefix=prefix,
        operating_points=operating_points,
        answer_rules=answer_rules,
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


def _prevalence_note(calibration: Calibration, classes: Sequence[str]) -> list[str]:
    if calibration.prevalence is None:
        return []
    shares = [f"{name} {format_percent(share, 1)}" for name, share in zip(classes, calibration.prevalence, strict=True)]
    return [
        "Probabilities, and all numbers but those per image, are for images among which the classes have these shares: "
        f"{join_names(shares, len(shares))}."
    ]


def _notes(
    estimates: Mapping[str, Estimate],
    predictions: Ints,
    labels: NDArray[np.int64],
    groups: Ints,
    classes: Sequence[str],
) -> list[str]:
    notes = []
    support = np.bincount(labels, minlength=len(classes))
    if absent := [name for name, images in zip(classes, support, strict=True) if not images]:
        notes.append(f"Left out of the averages because they have no test images: {join_names(absent, len(absent))}.")
    few = [name for name in classes if name not in absent and not estimates[f"recall/{name}"].has_interval]
    if few:
        notes.append(
            f"Too few groups of test images for an interval of these classes: {join_names(few, len(few))}. Averages "
            "over the classes have no interval either."
        )
    independent = len(np.unique(groups))
    if (predictions == labels).all():
        # With no error in n independent groups, an error rate above this would show one with 95 % probability.
        notes.append(
            f"No error was seen in {independent} independent groups; an error rate of up to "
            f"{format_percent(1 - 0.05 ** (1 / independent), 1)} would still be compatible with that (95 %)."
        )
    return notes
