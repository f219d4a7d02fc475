import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk

from lesion.core.errors import DataError
from lesion.evaluation.findings import CLASS_TITLES, TITLES
from lesion.evaluation.intervals.averages import macro
from lesion.evaluation.intervals.calibration_error import binned_gaps, calibration_error
from lesion.evaluation.intervals.confidence import consistency_bars, estimate_metrics
from lesion.evaluation.intervals.estimates import Estimate, Sample
from lesion.evaluation.intervals.proportions import f1, share, worth_of
from lesion.evaluation.intervals.rankings import average_precision, roc_auc
from lesion.evaluation.metrics import compute_metrics
from lesion.evaluation.probabilities import softmax
from scripts.bench import coverage


def drawn(images=200, classes=3, seed=0, strength=2.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=images)
    logits = rng.normal(size=(images, classes))
    logits[np.arange(images), labels] += strength
    return softmax(logits), labels


def single(images):
    return Sample.of(np.arange(images))


def test_one_vote_an_image_gives_the_metrics_of_the_images():
    probabilities, labels = drawn()
    estimates = estimate_metrics(probabilities, labels, np.arange(200), "abc")
    expected = compute_metrics(probabilities, labels, "abc")
    keys = (set(TITLES) - {"ece", "ece_classwise"}) | {f"{key}/{c}" for key in CLASS_TITLES for c in "abc"}
    for key in keys - {f"{name}/{c}" for c in "abc" for name in ("specificity", "npv")}:
        assert estimates[key].value == pytest.approx(expected[f"test/{key}"], abs=2e-6), key
    assert set(estimates) == set(TITLES) | {f"{key}/{c}" for key in CLASS_TITLES for c in "abc"}
    others = labels != 0
    assert estimates["specificity/a"].value == (probabilities.argmax(axis=1)[others] != 0).mean()
    assert estimates["npv/a"].value == others[probabilities.argmax(axis=1) != 0].mean()


def test_one_vote_a_group_by_hand():
    """Group 0 has three of four images right, group 1 its only one, group 2 none of two: (3/4 + 1 + 0) / 3."""
    right = np.array([1, 1, 1, 0, 1, 0, 0], bool)
    probabilities = np.where(right[:, None], [0.8, 0.2], [0.2, 0.8])
    estimate = estimate_metrics(probabilities, np.zeros(7, int), np.array([0, 0, 0, 0, 5, 9, 9]), "ab")["acc"]
    assert estimate.value == pytest.approx((3 / 4 + 1 + 0) / 3)


@pytest.mark.parametrize(("hits", "images"), [(27, 30), (30, 30), (0, 12), (412, 884)])
def test_single_images_have_the_exact_binomial_interval(hits, images):
    exact = binomtest(hits, images).proportion_ci(0.95, "exact")
    estimate = share(single(images), np.arange(images) < hits, np.ones(images, bool), worth=1.0)
    assert estimate.value == hits / images
    np.testing.assert_allclose([estimate.low, estimate.high], [exact.low, exact.high], atol=1e-9)


def test_copies_of_an_image_add_nothing():
    rng = np.random.default_rng(0)
    right = rng.random(150) < 0.8
    once = share(single(150), right, np.ones(150, bool))
    copies = share(Sample.of(np.repeat(np.arange(150), 4)), np.repeat(right, 4), np.ones(600, bool))
    assert copies.value == pytest.approx(once.value)
    assert copies.low == pytest.approx(once.low, abs=0.003)
    assert copies.high == pytest.approx(once.high, abs=0.003)


def test_independent_images_in_groups_are_worth_their_number():
    rng = np.random.default_rng(1)
    right, groups = rng.random(4000) < 0.7, np.repeat(np.arange(1000), 4)
    grouped = share(Sample.of(groups), right, np.ones(4000, bool))
    alone = share(single(4000), right, np.ones(4000, bool))
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_a_class_without_errors_learns_the_worth_of_an_image_from_the_others():
    """All right in five groups of four. If nothing else is known, they are five; if an image is worth half, ten."""
    groups, all_right = np.repeat(np.arange(5), 4), np.ones(20, bool)
    unknown = share(Sample.of(groups), all_right, all_right)
    assert unknown.low == pytest.approx(0.025 ** (1 / 5))
    half = share(Sample.of(groups), all_right, all_right, worth=0.5)
    assert 0.025 ** (1 / 5) <= half.low < 0.025 ** (1 / 10)
    assert half.high == unknown.high == 1
    errors = np.repeat(np.arange(40) % 4 > 0, 4)  # whole groups are wrong: four images are worth one
    assert worth_of(Sample.of(np.repeat(np.arange(40), 4)), errors) == pytest.approx(0.25)


def test_two_groups_are_too_few_to_say():
    estimate = share(Sample.of(np.array([1, 1, 2])), np.array([True, False, True]), np.ones(3, bool))
    assert estimate.value == pytest.approx(0.75)
    assert not estimate.has_interval
    probabilities, labels = drawn(40)
    estimates = estimate_metrics(probabilities, labels, np.arange(40) % 2, "abc")
    assert not any(estimate.has_interval for estimate in estimates.values())


def test_f1_by_hand():
    """Three right, one image of the class missed, one of another class taken for it: F1 is 6/8, and J is 3/5."""
    labeled = np.array([1, 1, 1, 1, 0, 0, 0], bool)
    predicted = np.array([1, 1, 1, 0, 1, 0, 0], bool)
    estimate = f1(single(7), labeled, predicted)
    exact = binomtest(3, 5).proportion_ci(0.95, "exact")
    assert estimate.value == pytest.approx(6 / 8)
    assert estimate.low == pytest.approx(2 * exact.low / (1 + exact.low))
    assert estimate.high == pytest.approx(2 * exact.high / (1 + exact.high))


def test_an_average_by_hand():
    """Two classes that move independently: the distances are combined as 3, 4 → 5."""
    first = Estimate(0.8, 0.74, 0.86, np.array([0.1, -0.1, 0.0, 0.0]))
    second = Estimate(0.6, 0.52, 0.68, np.array([0.0, 0.0, 0.1, -0.1]))
    average = macro([first, second])
    assert average.value == pytest.approx(0.7)
    np.testing.assert_allclose([average.low, average.high], [0.7 - 0.05, 0.7 + 0.05])
    together = macro([first, Estimate(0.6, 0.54, 0.66, first.influence)])  # both move alike
    assert together.high == pytest.approx(0.7 + 0.06)
    assert not macro([first, Estimate(0.6)]).has_interval
    assert macro([first, Estimate(float("nan"))]).value == 0.8


@pytest.mark.parametrize(
    ("estimate", "oracle"), [(roc_auc, sk.roc_auc_score), (average_precision, sk.average_precision_score)]
)
def test_areas_and_what_each_group_adds_to_them(estimate, oracle):
    """The influence of a group is the derivative of the area by the group's weight; ties included."""
    probabilities, labels = drawn(60)
    score, positive = np.round(probabilities[:, 0], 1), labels == 0
    groups = np.arange(60) // 3
    sample = Sample.of(groups)
    found = estimate(sample, score, positive)
    assert found.value == pytest.approx(oracle(positive, score, sample_weight=sample.weight))
    for group in (0, 7, 19):
        step = 1e-5
        heavier = np.where(groups == group, 1 + step, 1.0)
        changed = oracle(positive, score, sample_weight=sample.weight * heavier)
        assert found.influence[group] == pytest.approx((changed - found.value) / step, abs=1e-3)
    assert found.influence.sum() == pytest.approx(0, abs=1e-9)


def test_a_perfect_ranking_is_not_certain():
    score, positive = np.r_[np.linspace(0, 0.4, 20), np.linspace(0.6, 1, 10)], np.arange(30) >= 20
    for estimate in (roc_auc, average_precision):
        found = estimate(single(30), score, positive)
        assert (found.value, found.high) == (1, 1)
        assert 0.6 < found.low < 0.95


def test_a_prevalence_gives_the_predictive_values_of_bayes():
    probabilities, labels = drawn(400, classes=2, strength=1.0)
    shares = (0.9, 0.1)
    found = estimate_metrics(probabilities, labels, np.arange(400), "ab", shares)
    plain = estimate_metrics(probabilities, labels, np.arange(400), "ab")
    sensitivity, specificity = plain["recall/b"].value, plain["specificity/b"].value
    expected = sensitivity * 0.1 / (sensitivity * 0.1 + (1 - specificity) * 0.9)
    assert found["precision/b"].value == pytest.approx(expected)
    assert found["recall/b"].value == pytest.approx(sensitivity)
    assert found["acc"].value == pytest.approx(0.9 * plain["recall/a"].value + 0.1 * sensitivity)


def test_a_rare_class_without_images_leaves_the_averages_without_interval():
    probabilities, labels = drawn(90)
    labels[labels == 2] = 0
    found = estimate_metrics(probabilities, labels, np.arange(90), "abc")
    assert found["acc"].has_interval
    assert np.isnan(found["recall/c"].value)
    assert not found["f1_macro"].has_interval
    assert found["f1_macro"].value == pytest.approx(np.mean([found["f1/a"].value, found["f1/b"].value]))


def test_chance_alone_is_no_calibration_error():
    """The plain error of 200 images of a calibrated model is several points; the corrected one is near 0."""
    rng = np.random.default_rng(0)
    plain, corrected = [], []
    for _ in range(100):
        confidence = rng.uniform(0.5, 1, 200)
        gaps = binned_gaps(single(200), confidence, rng.random(200) < confidence)
        plain.append(np.abs(gaps.gap).sum())
        found = calibration_error(gaps, 200)
        corrected.append(found.value)
        assert found.low <= found.value <= found.high
        assert found.high > 0
    assert np.mean(plain) > 0.06
    assert np.mean(corrected) < 0.025


def test_a_known_calibration_error_is_found():
    rng = np.random.default_rng(0)
    right = rng.random(5000) < 0.7
    found = calibration_error(binned_gaps(single(5000), np.full(5000, 0.9), right), 5000)
    assert found.value == pytest.approx(0.2, abs=0.02)
    assert found.low < 0.2 < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / 5000), rel=0.1)


def test_bars_of_a_reliability_diagram_by_hand():
    """Images at 0.8: a share of them is right in 95 % of samples within 1.96 standard errors."""
    probabilities = np.tile([0.8, 0.2], (100, 1))
    labels = (np.arange(100) >= 80).astype(int)
    low, high = consistency_bars(probabilities, labels, np.arange(100))
    accuracy = 80.5 / 101
    reach = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 100)
    filled = ~np.isnan(low)
    assert filled.sum() == 1
    assert low[filled][0] == pytest.approx(0.8 - reach, abs=1e-4)
    assert high[filled][0] == pytest.approx(0.8 + reach, abs=1e-4)


def test_arrays_that_do_not_fit_are_refused():
    probabilities, labels = drawn(10)
    with pytest.raises(DataError, match=r"groups of shape \(9,\)"):
        estimate_metrics(probabilities, labels, np.arange(9), "abc")


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 3])
def test_intervals_hold_the_truth_as_often_as_they_say(number):
    """A hundred test sets of two settings of the bench, which has six more and more test sets of each."""
    cells, _ = coverage.run(coverage.SETTINGS[number], 100, seed=7)
    own = {key: cell for (key, method), cell in cells.items() if method == coverage.OWN}
    assert len(own) >= 10
    for key, cell in own.items():
        assert cell.bound(len(own)) >= coverage.LEAST, (key, cell.coverage)
        assert min(cell.widths) > 0, key
