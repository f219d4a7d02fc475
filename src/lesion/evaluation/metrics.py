"""The metrics of a classifier, by TorchMetrics."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional import classification

from lesion.core.errors import DataError
from lesion.evaluation.probabilities import Floats, Ints, brier_per_image
from lesion.evaluation.reliability import classwise_calibration_error, reliability

DEFINITIONS = {
    "acc": "share of images whose most probable class is the labeled one",
    "balanced_acc": "recall of each class that has test images, averaged with equal weights (the same as macro recall)",
    "precision_macro": "precision of each class that has test images, averaged; 0 for a class that is never predicted",
    "recall_macro": "recall of each class that has test images, averaged",
    "f1_macro": "F1 of each class that has test images, averaged",
    "roc_auc": "area under the ROC curve of each class against the rest, averaged over classes that have test images",
    "pr_auc": "average precision of each class against the rest, averaged over the classes that have test images",
    "nll": "mean negative log-likelihood of the labeled class, natural logarithm",
    "brier": "squared distance of the probabilities to the one-hot label, summed over classes (0 to 2); mean of images",
    "ece": "expected calibration error of the most probable class in 15 equal-width bins (lower, upper], corrected for "
    "what chance alone would show; not corrected per image",
    "ece_classwise": "the same for the probability of each class, averaged over the classes",
}


def check_inputs(scores: NDArray[Any], labels: NDArray[Any], classes: Sequence[str]) -> None:
    """Refuse scores ``(N, C)``, labels ``(N,)`` and C class names that do not fit together, with a DataError."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise DataError(f"An evaluation needs at least two classes with different names; given: {list(classes)}.")
    if scores.ndim != 2 or scores.shape[1] != len(classes) or labels.shape != scores.shape[:1]:
        raise DataError(
            f"{len(classes)} classes came with scores of shape {scores.shape} and labels of shape {labels.shape}; "
            "they must be (images, classes) and (images,)."
        )
    if not len(labels):
        raise DataError("There are no images to evaluate: the split is empty. Give the test split some images.")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise DataError(f"Labels run from {labels.min()} to {labels.max()}, but there are {len(classes)} classes.")
    if not np.isfinite(scores).all():
        raise DataError("The model's outputs contain NaN or infinity: the training diverged. Lower the learning rate.")


def compute_metrics(
    probabilities: Floats, labels: Ints, classes: Sequence[str], prefix: str = "test"
) -> dict[str, float]:
    """Compute every metric of ``DEFINITIONS`` for single images, and each class's precision, recall, F1 and areas.

    A class without a labeled image has NaN per-class numbers and is left out of every macro average (TorchMetrics alone
    would count it as 0). Arrays that do not fit together, or are not probabilities, are a DataError.

    Args:
        probabilities: ``(N, C)`` in [0, 1], rows summing to 1.
        labels: ``(N,)`` indices below C.
        classes: C names.
        prefix: The split's name, before the slash of each key.

    Returns:
        ``{"test/acc": …, "test/f1_macro": …, "test/f1/<class>": …}``; NaN where a metric is undefined.
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    check_inputs(probabilities, labels, classes)
    # TorchMetrics silently treats values outside [0, 1] as logits and applies a softmax.
    if probabilities.min() < -1e-5 or np.abs(probabilities.sum(axis=1, dtype=np.float64) - 1).max() > 1e-3:
        raise DataError("Metrics need probabilities whose rows sum to 1; logits must go through `softmax` first.")
    probabilities = probabilities.clip(0, 1).astype(np.float32)
    per_class = _per_class(probabilities, labels)
    headline = {
        "acc": float((probabilities.argmax(axis=1) == labels).mean()),
        "balanced_acc": _mean(per_class["recall"]),
        "precision_macro": _mean(per_class["precision"]),
        "recall_macro": _mean(per_class["recall"]),
        "f1_macro": _mean(per_class["f1"]),
        "roc_auc": _mean(per_class["roc_auc"]),
        "pr_auc": _mean(per_class["pr_auc"]),
        "nll": float(nll_per_image(probabilities, labels).mean()),
        "brier": float(brier_per_image(probabilities, labels).mean()),
        "ece": reliability(probabilities, labels).ece,
        "ece_classwise": classwise_calibration_error(probabilities, labels),
    }
    metrics = {f"{prefix}/{key}": value for key, value in headline.items()}
    for key, values in per_class.items():
        metrics |= {f"{prefix}/{key}/{name}": float(value) for name, value in zip(classes, values, strict=True)}
    return metrics


def confusion_matrix(predictions: Ints, labels: Ints, num_classes: int) -> NDArray[np.int64]:
    """Count images per labeled class (rows) and predicted class (columns), ``(C, C)``."""
    counts = classification.multiclass_confusion_matrix(
        torch.as_tensor(predictions), torch.as_tensor(labels), num_classes=num_classes
    )
    return counts.numpy().astype(np.int64)


def nll_per_image(probabilities: Floats, labels: Ints) -> NDArray[np.float64]:
    """Return −log of the labeled class's probability, ``(N,)``; a probability of 0 in float32 counts as 1.2e-38."""
    labeled = np.asarray(probabilities, dtype=np.float64)[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.maximum(labeled, float(np.finfo(np.float32).tiny))))


def _per_class(probabilities: NDArray[np.float32], labels: Ints) -> dict[str, NDArray[np.float64]]:
    scores, target = torch.from_numpy(probabilities), torch.from_numpy(np.asarray(labels, dtype=np.int64))
    num_classes = probabilities.shape[1]
    support = np.bincount(labels, minlength=num_classes)
    # The argmax is NumPy's, as everywhere: TorchMetrics may break ties differently.
    predicted = torch.from_numpy(probabilities.argmax(axis=1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No (positive|negative) samples", category=UserWarning)
        values = {
            "precision": classification.multiclass_precision(predicted, target, num_classes, average=None),
            "recall": classification.multiclass_recall(predicted, target, num_classes, average=None),
            "f1": classification.multiclass_f1_score(predicted, target, num_classes, average=None),
            "roc_auc": classification.multiclass_auroc(scores, target, num_classes, average=None),
            "pr_auc": classification.multiclass_average_precision(scores, target, num_classes, average=None),
        }
    ranked = (support > 0) & (support < len(labels))
    return {
        key: np.where(ranked if key == "roc_auc" else support > 0, value.numpy().astype(np.float64), np.nan)
        for key, value in values.items()
    }


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
