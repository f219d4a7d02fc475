"""Bootstrap intervals of the headline metrics, resampling whole groups of images that belong together."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import DataError
from lesion.evaluation.calibration import BINS, Floats, Ints, confidence_bins
from lesion.evaluation.metrics import brier_per_image, nll_per_image

LEVEL = 0.95
_CELLS = 4_000_000  # of a replicates × images matrix held at a time: about 16 MB of float32


def bootstrap_intervals(
    probabilities: Floats, labels: Ints, groups: Ints, *, replicates: int = 1000, seed: int = 0, prefix: str = "test"
) -> dict[str, tuple[float, float]]:
    """Estimate a 95 % percentile interval of every headline metric (Efron and Tibshirani, 1993; cluster bootstrap).

    Images of one patient, or near-duplicates of each other, are not independent: resampling images would make the
    interval too narrow, so whole groups are drawn with replacement. All replicates use the exact definitions of all
    metrics, with weights for the AUCs. A class that a replicate did not draw is left out of its macro averages.

    Args:
        probabilities: ``(N, C)`` in [0, 1].
        labels: ``(N,)`` indices below C.
        groups: ``(N,)`` any integers; equal ones belong together.
        replicates: Number of resamples; fewer than one is a DataError.
        seed: Seed of the resampling.
        prefix: The split's name in the keys.

    Returns:
        ``{"test/acc": (low, high), …}``, the keys of ``TITLES``; (NaN, NaN) with fewer than two groups, which
        show no variation between groups.
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    if groups.shape != labels.shape or replicates < 1:
        raise DataError(
            f"The bootstrap got {groups.shape} groups for {labels.shape} labels and {replicates} replicates; it needs "
            "one group per image and at least one replicate."
        )
    names, group_index = np.unique(groups, return_inverse=True)
    draws = _draws(len(names), replicates, np.random.default_rng(seed))
    values = _replicate_counts(probabilities, labels, group_index, draws)
    values |= _replicate_areas(probabilities, labels, group_index, draws)
    if len(names) < 2:
        return {f"{prefix}/{key}": (float("nan"), float("nan")) for key in values}
    return {f"{prefix}/{key}": _percentiles(value) for key, value in values.items()}


def _draws(groups: int, replicates: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return how often each replicate drew each group, ``(R, G)``; in float32 such counts are exact."""
    counts = np.empty((replicates, groups), dtype=np.float32)
    for row in counts:
        row[:] = np.bincount(rng.integers(groups, size=groups), minlength=groups)
    return counts


def _replicate_counts(
    probabilities: Floats, labels: Ints, group_index: Ints, draws: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """Return the metrics that are sums over images, hence sums over groups; each ``(R,)``."""
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    classes, correct = probabilities.shape[1], predicted == labels

    def per_replicate(column: Ints, columns: int, weights: NDArray[Any] | None) -> NDArray[Any]:
        flat = np.bincount(group_index * columns + column, weights=weights, minlength=draws.shape[1] * columns)
        return np.asarray(draws @ flat.reshape(-1, columns))

    zeros = np.zeros_like(group_index)
    hits = per_replicate(labels, classes, correct.astype(np.float64))
    support = per_replicate(labels, classes, None)
    predictions = per_replicate(predicted, classes, None)
    gap = per_replicate(confidence_bins(confidence), BINS, correct - confidence.astype(np.float64))
    images = support.sum(axis=1)
    absent = support == 0
    recall = _ratio(hits, support, absent)
    return {
        "acc": hits.sum(axis=1) / images,
        "balanced_acc": _macro(recall),
        "precision_macro": _macro(_ratio(hits, predictions, absent)),
        "recall_macro": _macro(recall),
        "f1_macro": _macro(_ratio(2 * hits, support + predictions, absent)),
        "nll": per_replicate(zeros, 1, nll_per_image(probabilities, labels))[:, 0] / images,
        "brier": per_replicate(zeros, 1, brier_per_image(probabilities, labels))[:, 0] / images,
        "ece": np.abs(gap).sum(axis=1) / images,
    }


def _replicate_areas(
    probabilities: Floats, labels: Ints, group_index: Ints, draws: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """Return the ROC-AUC and PR-AUC of each replicate, macro over classes; each ``(R,)``.

    A replicate is the same images with other weights, so one sort per class serves all replicates.
    """
    replicates, classes = len(draws), probabilities.shape[1]
    roc, precision_recall = np.full((2, replicates, classes), np.nan)
    rows = max(1, _CELLS // len(labels))
    for c in range(classes):
        if not (labels == c).any():
            continue
        order = np.argsort(-probabilities[:, c], kind="stable")
        scores = probabilities[order, c]
        # Tied scores enter a curve together: only the last image of a run of ties is a threshold.
        last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
        positive = labels[order] == c
        for start in range(0, replicates, rows):
            weights = draws[start : start + rows][:, group_index[order]]
            hits = np.cumsum(weights * positive, axis=1, dtype=np.float32)[:, last]
            selected = np.cumsum(weights, axis=1, dtype=np.float32)[:, last]
            roc[start : start + rows, c] = _roc_auc(hits, selected)
            precision_recall[start : start + rows, c] = _average_precision(hits, selected)
    return {"roc_auc": _macro(roc), "pr_auc": _macro(precision_recall)}


def _roc_auc(hits: NDArray[np.float32], selected: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sum the trapezoids under cumulative true over false positives, ``(R, thresholds)`` to ``(R,)``."""
    false = selected - hits
    steps = np.diff(false, axis=1, prepend=0)
    heights = hits - np.diff(hits, axis=1, prepend=0) / 2
    area = np.einsum("rt,rt->r", steps, heights, dtype=np.float64)
    total = hits[:, -1].astype(np.float64) * false[:, -1]
    return _ratio(area, total, total == 0)


def _average_precision(hits: NDArray[np.float32], selected: NDArray[np.float32]) -> NDArray[np.float64]:
    """Average the precision at each threshold, weighted by the recall gained, ``(R, thresholds)`` to ``(R,)``."""
    precision = hits / np.maximum(selected, 1)
    gained = np.diff(hits, axis=1, prepend=0)
    total = hits[:, -1].astype(np.float64)
    return _ratio(np.einsum("rt,rt->r", precision, gained, dtype=np.float64), total, total == 0)


def _ratio(
    numerator: NDArray[Any], denominator: NDArray[Any], undefined: NDArray[np.bool_] | np.bool_
) -> NDArray[np.float64]:
    """Divide with 0 / 0 = 0, as TorchMetrics does, and NaN where ``undefined``."""
    ratio = np.asarray(numerator, dtype=np.float64) / np.where(denominator == 0, 1, denominator)
    return np.where(undefined, np.nan, ratio)


def _macro(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average over the defined classes, ``(R, C)`` to ``(R,)``; NaN without any."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1), ~defined.any(axis=1))


def _percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    if not defined.size:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
