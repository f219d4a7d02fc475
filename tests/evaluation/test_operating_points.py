import numpy as np
import pytest

from lesion.core.errors import ConfigError
from lesion.evaluation.evaluation import evaluate_logits
from lesion.evaluation.operating_points import OperatingPoints, choose_thresholds, estimate_at, parse_specificity
from lesion.evaluation.probabilities import Calibration
from lesion.evaluation.report import write_report


def two_columns(score):
    score = np.asarray(score, np.float32)
    return np.stack([1 - score, score], axis=1)


def test_the_threshold_is_just_above_the_rank_by_hand():
    """Of 9 others and an imagined tenth, 8 are below the 8th smallest: a specificity of 0.8 on average."""
    others = np.array([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45])
    score = np.append(others, [0.9, 0.02])
    labels = np.array([0] * 9 + [1] * 2)
    points = choose_thresholds(two_columns(score), labels, np.arange(11), "ab", 0.8)
    assert points.thresholds["b"] == pytest.approx(0.4, abs=1e-6)
    assert points.thresholds["b"] > np.float32(0.4)
    # two images of "b" are too few to keep a specificity of 0.8 for "a"
    assert list(points.thresholds) == ["b"]


def test_a_group_has_one_vote():
    score = np.array([0.1] * 3 + [0.2] * 3 + [0.3] * 3 + [0.4, 0.4, 0.9])
    labels, groups = np.zeros(12, int), np.repeat(np.arange(4), 3)
    points = choose_thresholds(two_columns(score), labels, groups, "ab", 0.6)  # 3 of 4 groups and an imagined fifth
    assert points.thresholds["b"] == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize("images", [20, 50, 300])
def test_new_images_of_other_classes_stay_below_as_often_as_promised(images):
    rng = np.random.default_rng(images)
    kept = []
    for _ in range(300):
        score = rng.beta(1, 3, images)
        points = choose_thresholds(two_columns(score), np.zeros(images, int), np.arange(images), "ab", 0.9)
        kept.append((rng.beta(1, 3, 2000) < points.thresholds["b"]).mean())
    assert 0.9 - 3 * np.std(kept) / np.sqrt(300) <= np.mean(kept) <= 0.9 + 1 / images + 3 * np.std(kept) / np.sqrt(300)


def test_scores_at_a_threshold_by_hand_and_under_a_prevalence():
    score = np.array([0.9, 0.8, 0.2, 0.7, 0.1, 0.1, 0.1, 0.3, 0.2, 0.1])
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    points = OperatingPoints(0.8, {"b": 0.5})
    plain = estimate_at(points, two_columns(score), labels, np.arange(10), "ab")
    values = {key: plain[f"operating/{key}/b"].value for key in ("sensitivity", "specificity", "ppv", "npv")}
    assert values == pytest.approx({"sensitivity": 2 / 3, "specificity": 6 / 7, "ppv": 2 / 3, "npv": 6 / 7})
    rare = estimate_at(points, two_columns(score), labels, np.arange(10), "ab", [0.9, 0.1])
    assert rare["operating/sensitivity/b"].value == pytest.approx(2 / 3)
    expected = (2 / 3 * 0.1) / (2 / 3 * 0.1 + 1 / 7 * 0.9)
    assert rare["operating/ppv/b"].value == pytest.approx(expected)
    assert rare["operating/npv/b"].value == pytest.approx((6 / 7 * 0.9) / (6 / 7 * 0.9 + 1 / 3 * 0.1))
    assert plain["operating/sensitivity/b"].low < 2 / 3 < plain["operating/sensitivity/b"].high


@pytest.mark.usefixtures("blank_figures")
def test_the_report_has_the_table_and_names_classes_without_a_threshold(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=80)
    logits = rng.normal(size=(80, 3)).astype(np.float32)
    logits[np.arange(80), labels] += 2
    probabilities = Calibration().probabilities(logits)
    points = choose_thresholds(probabilities, labels, np.arange(80), ("x", "y", "z"), 0.98)
    assert list(points.thresholds) == ["z"]  # 40 images of the others give at most 0.975
    evaluation = evaluate_logits(logits, labels, np.arange(80), ("x", "y", "z"), Calibration(), operating_points=points)
    assert evaluation.metrics["test/operating/specificity/z"] == pytest.approx(79 / 80, abs=0.013)
    assert evaluation.to_json()["operating_points"] == {"specificity": 0.98, "thresholds": dict(points.thresholds)}
    text = write_report(tmp_path / "report.html", evaluation, title="t", model={}).read_text("utf-8")
    assert "At a specificity of 98.0 %" in text
    assert "Too few calibration images for a threshold: x, y." in text
    without = evaluate_logits(logits, labels, np.arange(80), ("x", "y", "z"), Calibration())
    assert "At a specificity" not in write_report(tmp_path / "b.html", without, title="t", model={}).read_text("utf-8")


def test_settings():
    assert parse_specificity(None) is None
    assert parse_specificity(0.95) == 0.95
    for wrong in (95, 1, 0.4, "high", True):
        with pytest.raises(ConfigError, match=r"evaluation\.specificity=.* such as 0\.95"):
            parse_specificity(wrong)
