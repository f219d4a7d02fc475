"""Sentences that say what an evaluation's numbers mean, for readers who do not read tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lesion.evaluation.evaluation import Evaluation
from lesion.explanation.faithfulness import RANDOM, Faithfulness

NBSP = "\N{NO-BREAK SPACE}"


def headline_finding(evaluation: Evaluation) -> str:
    """Say how often the model is right, on how much evidence, and how sure that number is."""
    images, groups = len(evaluation.labels), len(np.unique(evaluation.groups))
    right = int((evaluation.predictions == evaluation.labels).sum())
    text = f"The model classifies {right:,} of {count(images, 'test image')} correctly, {percent(right / images)}"
    low, high = evaluation.intervals.get(f"{evaluation.prefix}/acc", (float("nan"), float("nan")))
    if not np.isnan(low):
        text += f" (95{NBSP}% interval {percent(low)} to {percent(high)}"
        text += f", from {groups:,} groups of images that belong together)" if groups < images else ")"
    chance = np.bincount(evaluation.labels).max() / images
    return f"{text}. Always giving the most frequent class would be right for {percent(float(chance))}."


def weakest_finding(evaluation: Evaluation) -> str:
    """Say which class is told apart worst, and what it is taken for."""
    present = [c for c in range(len(evaluation.classes)) if (evaluation.labels == c).any()]
    f1 = {c: evaluation.metrics[f"{evaluation.prefix}/f1/{evaluation.classes[c]}"] for c in present}
    worst = min(f1, key=lambda c: f1[c])
    if (evaluation.predictions == evaluation.labels).all():
        return "No test image was misclassified."
    mistakes = evaluation.confusion.copy()
    np.fill_diagonal(mistakes, 0)
    labelled, predicted = np.unravel_index(int(mistakes.argmax()), mistakes.shape)
    return (
        f"The class told apart worst is “{evaluation.classes[worst]}” (F1 {f1[worst]:.3f}). The most frequent mistake "
        f"is “{evaluation.classes[int(labelled)]}” taken for “{evaluation.classes[int(predicted)]}”: "
        f"{mistakes[labelled, predicted]:,} of {count(int(evaluation.confusion[labelled].sum()), 'image')}."
    )


def calibration_finding(evaluation: Evaluation) -> str:
    """Say whether a confidence of 90 % means being right 90 % of the time, and what calibration changed."""
    before, after = (evaluation.metrics[f"{evaluation.prefix}/ece{suffix}"] for suffix in ("_uncalibrated", ""))
    gap = f"{100 * after:.1f} percentage points"
    if not evaluation.calibration_images:
        return f"Confidence and accuracy differ by {gap} on average; nothing was calibrated."
    confidence = evaluation.probabilities.max(axis=1).mean()
    right = (evaluation.predictions == evaluation.labels).mean()
    leaning = "over-confident" if confidence > right else "under-confident"
    return (
        f"Confidence and accuracy differ by {gap} on average after calibration with temperature "
        f"{evaluation.temperature:.2f}, fitted on {count(evaluation.calibration_images, 'other image')}, and by "
        f"{100 * before:.1f} before; what remains is {leaning}."
    )


def leakage_finding(leakage: Mapping[str, Any]) -> str:
    """Say how far the split that came with the data can be trusted."""
    images, leaked = int(leakage["test_images"]), int(leakage["leaked"])
    if not leaked:
        return f"None of the {images:,} images of the data's own test split has a near-duplicate in its training split."
    text = (
        f"{leaked:,} of the {count(images, 'image')} ({percent(leaked / max(images, 1))}) of the test split that came "
        "with the data have a near-duplicate in its training split. A score on that split partly measures memory."
    )
    copies, others = leakage.get("folder_accuracy_leaked"), leakage.get("folder_accuracy_others")
    if copies is None or others is None:
        return text
    return f"{text} A model trained on it got {percent(copies)} of those right, and {percent(others)} of the others."


def faithfulness_finding(rows: Sequence[Faithfulness]) -> str:
    """Say which explanation methods point at what the model uses, better than a random map does."""
    methods = [row for row in rows if row.method != RANDOM]
    if not methods:
        return ""
    better = [row.method for row in methods if row.low > 0]
    images = count(methods[0].images, "image")
    if not better:
        return (
            f"On {images} no method was clearly better than a random map: do not rely on the heat maps of this model."
        )
    text = f"On {images}, better than a random map: {', '.join(better)}"
    others = [row.method for row in methods if row.low <= 0]
    return f"{text}; not clearly better: {', '.join(others)}." if others else f"{text}."


def percent(share: float) -> str:
    """Write a share with one decimal, but never round something short of all up to 100 %, nor something to 0 %."""
    text = f"{100 * share:.1f}"
    if text == "100.0" and share < 1:
        text = "over 99.9"
    if text == "0.0" and share > 0:
        text = "under 0.1"
    return f"{text}{NBSP}%"


def count(number: int, noun: str) -> str:
    """Write a number with its noun, in the plural where it should be."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
