import json
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from lesion.core.errors import DataError
from lesion.evaluation.calibration import fit_calibration
from lesion.evaluation.evaluation import (
    correct_examples,
    evaluate_logits,
    finite,
    worst_errors,
    write_metrics,
)
from lesion.evaluation.findings import TITLES
from lesion.evaluation.metrics import DEFINITIONS, compute_metrics, confusion_matrix
from lesion.evaluation.probabilities import Calibration, softmax

CLASSES = ("a", "b", "c")


def simulated(n=300, classes=4, seed=0, strength=2.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += strength
    return logits, labels


def test_four_images_by_hand():
    """Right with 0.8, right with 0.6, wrong with 0.7 (0.3 for its label), wrong with 0.9 (0.1)."""
    probabilities = np.array([[0.8, 0.2], [0.4, 0.6], [0.7, 0.3], [0.1, 0.9]], np.float32)
    result = compute_metrics(probabilities, np.array([0, 1, 1, 0]), ("x", "y"), prefix="val")
    assert result["val/acc"] == 0.5
    assert result["val/nll"] == pytest.approx(-np.log([0.8, 0.6, 0.3, 0.1]).mean(), abs=1e-6)
    assert result["val/brier"] == pytest.approx(2 * (0.2**2 + 0.4**2 + 0.7**2 + 0.9**2) / 4, abs=1e-6)
    # Four bins of one image each: |1 − 0.8|, |1 − 0.6|, |0 − 0.7|, |0 − 0.9|.
    assert result["val/ece"] == pytest.approx((0.2 + 0.4 + 0.7 + 0.9) / 4, abs=1e-6)
    assert result["val/f1/x"] == pytest.approx(0.5)
    # Scores of x: its images 0.8 and 0.1, the others 0.4 and 0.7: two of four pairs in the right order.
    assert result["val/roc_auc/x"] == pytest.approx(0.5)
    # Ranked 0.8 (x), 0.7, 0.4, 0.1 (x): precision 1 and 2/4 at the two hits.
    assert result["val/pr_auc/x"] == pytest.approx(0.75)


def test_agrees_with_scikit_learn():
    logits, labels = simulated()
    probabilities = softmax(logits)
    result = compute_metrics(probabilities, labels, "abcd")
    predicted = probabilities.argmax(axis=1)
    onehot = np.eye(4)[labels]
    expected = {
        "acc": sk.accuracy_score(labels, predicted),
        "balanced_acc": sk.balanced_accuracy_score(labels, predicted),
        "precision_macro": sk.precision_score(labels, predicted, average="macro"),
        "recall_macro": sk.recall_score(labels, predicted, average="macro"),
        "f1_macro": sk.f1_score(labels, predicted, average="macro"),
        "roc_auc": sk.roc_auc_score(onehot, probabilities, average="macro"),
        "pr_auc": sk.average_precision_score(onehot, probabilities, average="macro"),
        "nll": sk.log_loss(labels, probabilities.astype(np.float64)),
        "brier": np.square(probabilities - onehot).sum(axis=1).mean(),
        "ece": float(multiclass_calibration_error(torch.tensor(probabilities), torch.tensor(labels), 4, n_bins=15)),
        "ece_classwise": np.mean(
            [
                float(binary_calibration_error(torch.tensor(probabilities[:, c]), torch.tensor(labels == c), n_bins=15))
                for c in range(4)
            ]
        ),
    }
    assert set(expected) == set(TITLES) == set(DEFINITIONS)
    for key, value in expected.items():
        assert result[f"test/{key}"] == pytest.approx(value, abs=2e-6), key


def test_absent_class_is_left_out_of_the_averages():
    """Class c has no image but is predicted once: TorchMetrics alone would count its recall and AUC as 0."""
    probabilities = np.array([[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = compute_metrics(probabilities, np.array([0, 1, 1]), CLASSES)
    assert result["test/balanced_acc"] == pytest.approx((1 + 0.5) / 2)
    assert result["test/recall_macro"] == result["test/balanced_acc"]
    assert result["test/f1_macro"] == pytest.approx((1 + 2 / 3) / 2)
    assert result["test/roc_auc"] == pytest.approx((1 + 0.75) / 2)
    assert all(np.isnan(result[f"test/{key}/c"]) for key in ("precision", "recall", "f1", "roc_auc", "pr_auc"))


def test_class_never_predicted_has_precision_zero():
    result = compute_metrics(np.array([[0.9, 0.1], [0.8, 0.2]], np.float32), np.array([0, 1]), ("x", "y"))
    assert result["test/precision/y"] == result["test/f1/y"] == 0
    assert result["test/precision_macro"] == pytest.approx(0.25)


def test_one_image():
    result = compute_metrics(np.array([[0.25, 0.75]], np.float32), np.array([1]), ("x", "y"))
    assert result["test/acc"] == result["test/balanced_acc"] == result["test/pr_auc"] == 1
    assert np.isnan(result["test/roc_auc"])  # there is no other class to rank against


def test_certain_and_wrong_stays_finite():
    result = compute_metrics(np.array([[1.0, 0.0]], np.float32), np.array([1]), ("x", "y"))
    assert 80 < result["test/nll"] < 90
    assert result["test/brier"] == 2


def test_logits_are_refused():
    """TorchMetrics would take them and apply a softmax without a word."""
    with pytest.raises(DataError, match="softmax"):
        compute_metrics(np.array([[3.0, -1.0]]), np.array([0]), ("x", "y"))


@pytest.mark.parametrize(
    ("probabilities", "labels", "classes"),
    [
        (np.full((2, 2), 0.5), [0, 2], ("x", "y")),
        (np.full((2, 2), 0.5), [0], ("x", "y")),
        (np.full((2, 2), 0.5), [0, 1], ("x", "x")),
        (np.full((2, 2), np.nan), [0, 1], ("x", "y")),
        (np.empty((0, 2)), [], ("x", "y")),
        (np.ones((2, 1)), [0, 0], ("x",)),
    ],
)
def test_refuses_what_does_not_fit(probabilities, labels, classes):
    with pytest.raises(DataError):
        compute_metrics(probabilities, np.array(labels, int), classes)


def test_confusion_matrix_has_labels_in_rows():
    np.testing.assert_array_equal(confusion_matrix(np.array([1, 1, 0]), np.array([0, 1, 0]), 2), [[1, 1], [0, 1]])


def test_evaluate_calibrates_on_the_calibration_split_alone():
    logits, labels = simulated(2000)
    other, other_labels = simulated(2000, seed=1)
    calibration = fit_calibration(other * 5, other_labels, "abcd")
    first = evaluate_logits(logits * 5, labels, np.arange(2000), "abcd", calibration)
    second = evaluate_logits(logits[:10], labels[:10], np.arange(10), "abcd", calibration)
    assert first.calibration == second.calibration
    assert first.metrics["test/ece"] < 0.03 < 0.09 < first.metrics["test/ece_uncalibrated"]
    assert first.metrics["test/nll"] < first.metrics["test/nll_uncalibrated"]
    flat = first.all_metrics()
    for key in TITLES:
        assert flat[f"test/{key}_low"] <= flat[f"test/{key}_high"]


def test_evaluate_without_calibration_images_says_so():
    logits, labels = simulated(50)
    result = evaluate_logits(logits, labels, np.arange(50), "abcd", fit_calibration(logits[:0], labels[:0], "abcd"))
    assert result.calibration.temperature == 1
    assert any("not calibrated" in note for note in result.notes)


def test_notes_name_what_the_numbers_hide():
    logits = 5 * np.eye(3, dtype=np.float32)[[0, 1, 0]]
    labels = np.array([0, 1, 0])
    calibration = fit_calibration(logits, labels, CLASSES)
    result = evaluate_logits(logits, labels, np.arange(3), CLASSES, calibration)
    assert any(note.endswith("test images: c.") for note in result.notes)
    # 1 − 0.05^(1/3): an error rate at which three right answers of three still come up one time in twenty.
    assert any("63.2 %" in note for note in result.notes)
    assert any("Laplace" in note for note in result.notes)


def test_metrics_file_is_strict_sorted_and_stable(tmp_path):
    logits, labels = np.array([[2.0, 0.0, 1.0]]), np.array([0])
    calibration = fit_calibration(logits, labels, CLASSES)
    result = evaluate_logits(logits, labels, np.array([7]), ("é", "b/c", "<c>"), calibration)
    write_metrics(tmp_path / "one" / "metrics.json", result, run=np.int64(3))
    write_metrics(tmp_path / "two.json", result, run=3)
    text = (tmp_path / "two.json").read_text("utf-8")
    assert (tmp_path / "one" / "metrics.json").read_text("utf-8") == text

    def refuse(constant):
        raise AssertionError(constant)

    read = json.loads(text, parse_constant=refuse)
    assert read["metrics"]["test/roc_auc"] is None
    assert read["metrics"]["test/acc_low"] is None
    assert read["metrics"]["test/acc"] == 1
    assert read["run"] == 3
    assert list(read) == sorted(read)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_finite_reaches_everything():
    assert finite({"a": [np.float32("nan"), (float("inf"), np.array([1.0, np.nan]))], 2: np.bool_(True)}) == {
        "a": [None, [None, [1.0, None]]],
        "2": True,
    }


def test_worst_errors_and_correct_examples():
    # Predictions: 0 right, 1 wrong mildly, 2 wrong strongly, 3 right.
    logits = np.array([[3, 0], [1, 0], [4, 0], [0, 2]], np.float32)
    labels = np.array([0, 1, 1, 1])
    result = evaluate_logits(logits, labels, np.arange(4), ("x", "y"), Calibration())
    np.testing.assert_array_equal(worst_errors(result), [2, 1])
    np.testing.assert_array_equal(worst_errors(result, limit=1), [2])
    np.testing.assert_array_equal(correct_examples(result), [0, 3])
