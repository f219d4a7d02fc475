"""The measurement of a trained model: its calibration, its test metrics, and those that rank runs."""

from collections.abc import Sequence

import numpy as np

from lesion.conformal.answer_rules import AnswerRules
from lesion.data.datamodule import DataModule
from lesion.evaluation.calibration import fit_calibration
from lesion.evaluation.cross_validation import CrossValidation
from lesion.evaluation.evaluation import Evaluation, evaluate_logits
from lesion.evaluation.findings import TITLES, patients_notes
from lesion.evaluation.metrics import compute_metrics
from lesion.evaluation.operating_points import choose_thresholds
from lesion.evaluation.probabilities import Calibration
from lesion.model.classifier import ImageClassifier
from lesion.model.inference import dataset_logits


def evaluate_model(
    model: ImageClassifier,
    datamodule: DataModule,
    prevalence: Sequence[float] | None = None,
    specificity: float | None = None,
) -> Evaluation:
    """Calibrate a model on the calibration split and measure it on the test split, in float32.

    ``prevalence`` are the shares of the classes where the model is used; None for those of the data. With a
    ``specificity``, each class also has the threshold at which the calibration images reach it.
    """
    test, calibration = datamodule.dataset("test"), datamodule.dataset("calibration")
    manifest, classes = datamodule.manifest, datamodule.classes
    rows, used = manifest.split("test"), manifest.used()
    logits = dataset_logits(model.network, calibration)
    fitted = fit_calibration(logits, calibration.labels, classes, training_weights(model, datamodule))
    if prevalence is not None:
        counts = datamodule.class_counts()
        fitted = fitted.for_prevalence((counts / counts.sum()).tolist(), prevalence)
    known = fitted.probabilities(logits), calibration.labels, manifest.split("calibration")["group"].to_numpy()
    points = None if specificity is None else choose_thresholds(*known, classes, specificity)
    rules = AnswerRules.fit(*known, same_shares=prevalence is None) if len(calibration.labels) else None
    return evaluate_logits(
        dataset_logits(model.network, test),
        test.labels,
        rows["group"].to_numpy(),
        classes,
        fitted,
        paths=rows["path"].tolist(),
        notes=patients_notes(len(used), int((used["patient"] != "").sum())),
        operating_points=points,
        answer_rules=rules,
    )


def training_weights(model: ImageClassifier, datamodule: DataModule) -> list[float] | None:
    """Return how much more each class counted in training than its share of the images; None if all were equal."""
    weights = np.array(model.class_weights.tolist())
    if datamodule.balanced:
        counts = datamodule.class_counts()
        weights = weights * counts.sum() / np.maximum(counts, 1)
    return None if np.ptp(weights) < 1e-6 else [float(weight) for weight in weights]


def cross_validate(
    models: Sequence[ImageClassifier], folds: Sequence[DataModule], prevalence: Sequence[float] | None
) -> CrossValidation | None:
    """Measure each fold's model on its test images; return None without folds."""
    if not folds:
        return None
    scores = [evaluate_model(model, fold, prevalence).metrics for model, fold in zip(models, folds, strict=True)]
    images = [[len(fold.manifest.split(name)) for name in ("train", "test")] for fold in folds]
    ratio = float(np.mean([test / train for train, test in images]))
    repeats = len({fold.manifest.seed for fold in folds})
    return CrossValidation(
        folds=len(folds) // repeats,
        repeats=repeats,
        scores=tuple({key: each[f"test/{key}"] for key in TITLES} for each in scores),
        test_images=tuple(test for _, test in images),
        ratio=ratio,
    )


def validation_metrics(model: ImageClassifier, datamodule: DataModule, calibration: Calibration) -> dict[str, float]:
    """Measure a model on the validation split, which selected the checkpoint: to rank runs, not to report."""
    dataset = datamodule.dataset("val")
    probabilities = calibration.probabilities(dataset_logits(model.network, dataset))
    return compute_metrics(probabilities, dataset.labels, datamodule.classes, "val")
