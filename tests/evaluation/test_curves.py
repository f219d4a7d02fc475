"""Curves of an evaluation: numbers by hand, the same in the report's figures, few enough in a file."""

import numpy as np
import pytest
from sklearn.metrics import auc

from lesion.evaluation import plots
from lesion.evaluation.calibration import fit_calibration
from lesion.evaluation.curves import POINTS, curves_json, precision_recall, roc
from lesion.evaluation.evaluation import Evaluation, evaluate_logits
from lesion.evaluation.reliability import reliability

CLASSES = ("x", "y", "z")


def scored(count: int, classes: int = 3, seed: int = 0) -> Evaluation:
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=count)
    logits = rng.normal(size=(count, classes)).astype(np.float32)
    logits[np.arange(count), labels] += 1
    return evaluate_logits(
        logits,
        labels,
        np.arange(count),
        CLASSES[:classes],
        fit_calibration(logits, labels, CLASSES[:classes]),
    )


def test_by_hand() -> None:
    # Of class x the scores are 0.9 (right), 0.8 (wrong), 0.6 (right), 0.1 (wrong).
    top = np.array([0.9, 0.8, 0.6, 0.1])
    probabilities, labels = np.stack([top, 1 - top], axis=1), np.array([0, 1, 0, 1])
    found = roc(probabilities, labels)[0]
    assert found.x.tolist() == [0, 0, 0.5, 0.5, 1]
    assert found.y.tolist() == [0, 0.5, 0.5, 1, 1]
    assert found.area == pytest.approx(0.75)
    found = precision_recall(probabilities, labels)[0]
    assert found.x.tolist() == [1, 1, 0.5, 0.5, 0]  # from the lowest threshold, which takes everything for x, up
    assert found.y.tolist() == pytest.approx([1 / 2, 2 / 3, 1 / 2, 1, 1])
    assert found.area == pytest.approx((1 + 2 / 3) / 2)


def test_classes_without_a_curve_are_left_out() -> None:
    probabilities = np.full((4, 3), 1 / 3)
    labels = np.array([0, 0, 1, 1])
    assert (set(roc(probabilities, labels)), set(precision_recall(probabilities, labels))) == ({0, 1}, {0, 1})
    alone = np.zeros(4, int)
    assert (set(roc(probabilities, alone)), set(precision_recall(probabilities, alone))) == (set(), {0})


def test_the_report_draws_the_same_points() -> None:
    evaluation = scored(80)
    for draw, compute in ((plots.roc_curves, roc), (plots.pr_curves, precision_recall)):
        figure = draw(evaluation.probabilities, evaluation.labels, CLASSES)
        drawn = [line for line in figure.axes[0].get_lines() if str(line.get_label())[0] in CLASSES]
        for line, curve in zip(drawn, compute(evaluation.probabilities, evaluation.labels).values(), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), curve.x)
            np.testing.assert_array_equal(line.get_ydata(), curve.y)
            assert str(line.get_label()).endswith(f"{curve.area:.3f}")


def test_many_points_are_thinned_along_the_curve() -> None:
    evaluation = scored(6000)
    kept = evaluation.to_json()["curves"]
    assert set(kept) == {"roc", "pr", "reliability"}
    for c, name in enumerate(CLASSES):
        whole = roc(evaluation.probabilities, evaluation.labels)[c]
        x, y = np.array(kept["roc"][name]["x"]), np.array(kept["roc"][name]["y"])
        assert 100 < len(x) == len(y) <= POINTS < len(whole.x)
        assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
        longest = np.hypot(np.diff(whole.x), np.diff(whole.y)).max()
        assert np.hypot(np.diff(x), np.diff(y)).max() < longest + 2 * 2 / POINTS  # no gap that the whole has not
        assert auc(x, y) == pytest.approx(evaluation.metrics[f"test/roc_auc/{name}"], abs=2e-3)
        pr = kept["pr"][name]
        assert len(pr["x"]) == len(pr["y"]) <= POINTS
        assert (pr["x"][0], pr["x"][-1], pr["y"][-1]) == (1, 0, 1)
        assert pr["x"] == sorted(pr["x"], reverse=True)
        steps = -np.diff(pr["x"]) @ np.array(pr["y"][:-1])
        assert steps == pytest.approx(evaluation.metrics[f"test/pr_auc/{name}"], abs=5e-3)


def test_reliability_is_what_the_calibration_error_is_made_of() -> None:
    evaluation = scored(300)
    found = evaluation.to_json()["curves"]["reliability"]
    before = reliability(evaluation.uncalibrated_probabilities, evaluation.labels).ece
    for stage, plain in (("before", before), ("after", evaluation.metrics["test/ece_per_image"])):
        rows = found[stage]
        assert sum(row["images"] for row in rows) == 300
        assert all(row["images"] > 0 for row in rows)
        assert [row["confidence"] for row in rows] == sorted(row["confidence"] for row in rows)
        error = sum(row["images"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / 300
        assert error == pytest.approx(plain)


def test_two_images_are_enough() -> None:
    probabilities, labels = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])
    found = curves_json(("x", "y"), labels, np.arange(2), probabilities, probabilities)
    assert found["roc"]["x"] == {"x": [0, 0, 1], "y": [0, 1, 1]}
    [row] = found["reliability"]["after"]
    assert (row["confidence"], row["accuracy"], row["images"]) == (1, 1, 2)
    # A calibrated model that is certain: half an image of three is imagined to be wrong, 5/6 · 1/6 / 2 is the variance.
    assert row["low"] == pytest.approx(1 - 1.96 * np.sqrt(5 / 72), abs=1e-3)
    assert row["high"] == 1
