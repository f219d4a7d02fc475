"""Prediction sets: the ranks computed by hand, the promise kept over many draws, and what few images allow."""

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from scipy.stats import binom
from sklearn.base import BaseEstimator, ClassifierMixin

from lesion.conformal.prediction_sets import COVERAGES, PredictionSets
from lesion.conformal.ranks import conformal_quantile, fewest_groups


def drawn(rng: np.random.Generator, count: int, sizes: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, labels and groups of a model that confuses three classes; images of a group are alike."""
    groups = np.repeat(np.arange(count), rng.integers(1, sizes + 1, count))
    labels = rng.choice(3, count, p=[0.6, 0.3, 0.1])
    centers = 2.0 * np.eye(3)[labels] + rng.normal(size=(count, 3))
    logits = centers[groups] + 0.3 * rng.normal(size=(len(groups), 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), labels[groups], groups


class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier for MAPIE whose inputs are its probabilities."""

    def __init__(self) -> None:
        self.classes_ = np.arange(3)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict_proba(self, probabilities: np.ndarray) -> np.ndarray:
        return probabilities

    def predict(self, probabilities: np.ndarray) -> np.ndarray:
        return np.asarray(probabilities.argmax(axis=1))


@pytest.mark.filterwarnings("ignore:.*less labels than your training dataset")
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_the_sets_are_those_of_mapie(coverage: float) -> None:
    """MAPIE's sets by the least ambiguous classifier, on the calibration images of one class after the other."""
    rng = np.random.default_rng(5)
    probabilities, labels, groups = drawn(rng, 400)
    new, _, _ = drawn(rng, 300)
    expected = np.empty((300, 3), bool)
    for c in range(3):
        oracle = SplitConformalClassifier(Given(), confidence_level=coverage, conformity_score="lac", prefit=True)
        oracle.conformalize(probabilities[labels == c].astype(float), labels[labels == c])
        expected[:, c] = oracle.predict_set(new.astype(float))[1][:, c, 0]
    assert 0 < expected.mean() < 1
    sets = PredictionSets.fit(probabilities, labels, groups)
    np.testing.assert_array_equal(sets.members(new, coverage), expected)


def test_the_answer_is_in_its_own_list() -> None:
    sets = PredictionSets({0.9: np.array([0.95, 0.1, 0.9], np.float32)}, (20, 20, 20))
    probabilities = np.array([[0.8, 0.15, 0.05], [0.96, 0.02, 0.02], [0.5, 0.05, 0.45]], np.float32)
    assert sets.members(probabilities).tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    assert sets.listed(probabilities).tolist() == [[True, True, False], [True, False, False], [True, False, False]]
    assert sets.listed(probabilities[0]).tolist() == [True, True, False]


def test_the_rank_is_that_of_split_conformal_prediction() -> None:
    scores = np.array([5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 8.0, 7.0, 6.0])
    assert conformal_quantile(scores, np.arange(9), 0.9) == 9.0  # ceil(0.9 * 10) = 9th of 9
    assert conformal_quantile(scores, np.arange(9), 0.8) == 8.0
    assert conformal_quantile(scores, np.arange(9), 0.81) == 9.0
    assert conformal_quantile(scores, np.arange(9), 0.91) is None
    assert [fewest_groups(coverage) for coverage in COVERAGES] == [4, 9, 19, 99]
    assert conformal_quantile(scores[:0], np.arange(0), 0.5) is None


def test_a_group_has_one_vote() -> None:
    """Three groups: 0.5 * 4 = 2 votes are needed; the five images of the first have one together."""
    scores = np.array([1.0, 1.1, 1.2, 1.3, 1.4, 2.0, 3.0])
    groups = np.array([7, 7, 7, 7, 7, 1, 2])
    assert conformal_quantile(scores, groups, 0.5) == 2.0
    assert conformal_quantile(scores, groups, 0.25) == 1.4
    assert conformal_quantile(scores, groups, 0.2) == 1.3  # 0.8 votes: four of five images


@pytest.mark.parametrize("sizes", [1, 4])
def test_each_class_is_covered_as_promised_over_200_calibrations(sizes: int) -> None:
    """One image of one new group for each calibration and class: its coverage is binomial."""
    rng = np.random.default_rng(0)
    covered = {coverage: np.zeros(3) for coverage in (0.8, 0.9, 0.95)}
    draws = 200
    for _ in range(draws):
        sets = PredictionSets.fit(*drawn(rng, 300, sizes))
        probabilities, labels, _ = drawn(rng, 400)
        for c in range(3):
            image = probabilities[labels == c][0]
            for coverage, counts in covered.items():
                counts[c] += sets.members(image, coverage)[c]
    for coverage, counts in covered.items():
        assert (counts >= binom.ppf(0.001, draws, coverage)).all(), (coverage, counts / draws)
        # Not much above it either: the rarest class has 30 calibration images, so up to 1/31 more.
        assert (counts <= binom.ppf(0.999, draws, min(coverage + 1 / 20, 1.0))).all(), (coverage, counts / draws)


def test_a_class_with_too_few_groups_is_in_every_set_and_is_named() -> None:
    probabilities = np.full((20, 3), 1 / 3, dtype=np.float32)
    labels = np.r_[np.zeros(12, dtype=int), np.ones(8, dtype=int)]
    sets = PredictionSets.fit(probabilities, labels, np.arange(20))
    assert sets.groups == (12, 8, 0)
    assert sets.members(np.array([1.0, 0.0, 0.0], dtype=np.float32)).tolist() == [True, True, True]
    assert sets.members(np.array([0.0, 0.0, 1.0], dtype=np.float32)).tolist() == [False, True, True]
    (note,) = sets.notes(["a", "b", "c"])
    assert "9 groups" in note
    assert note.endswith("every set: b (8), c (0).")
    assert sets.notes(["a", "b", "c"], 0.8) != []
    assert PredictionSets.fit(probabilities, labels * 0, np.arange(20)).groups == (20, 0, 0)


def test_what_is_written_is_read_back() -> None:
    sets = PredictionSets.fit(*drawn(np.random.default_rng(1), 100))
    again = PredictionSets.from_json(sets.to_json())
    assert again.groups == sets.groups
    for coverage in COVERAGES:
        np.testing.assert_array_equal(again.thresholds[coverage], sets.thresholds[coverage])


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"thresholds": {}, "groups": [1, 2]},
        {"thresholds": {"0.9": [0.5]}, "groups": [1, 2]},
        {"thresholds": {"0.9": [0.5, float("nan")]}, "groups": [1, 2]},
        {"thresholds": {"0.9": [0.5, 2.0]}, "groups": [1, 2]},
        {"thresholds": {"much": [0.5, 0.5]}, "groups": [1, 2]},
        {"thresholds": {"0.9": None}, "groups": [1, 2]},
    ],
)
def test_other_values_are_refused(value: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        PredictionSets.from_json(value)
