import numpy as np
import pytest
from scipy import stats

from lesion.promotion.non_inferiority import ErrorLevels, Outcome, judge_classes, judge_macro_f1, judge_mean
from lesion.promotion.paired_answers import ClassChanges, PairedAnswers

LEVELS, MARGIN = ErrorLevels(), 0.05


def judge_class(better, worse, images, margin, levels):
    [judgment] = judge_classes(ClassChanges(*(np.array([float(n)]) for n in (better, worse, images))), margin, levels)
    return judgment


def test_the_three_answers() -> None:
    assert judge_class(10, 10, 800, MARGIN, LEVELS).outcome == Outcome.HOLDS
    assert judge_class(10, 60, 800, MARGIN, LEVELS).outcome == Outcome.FAILS
    assert judge_class(0, 1, 10, MARGIN, LEVELS).outcome == Outcome.TOO_FEW_IMAGES


def test_a_small_loss_is_let_through_even_if_it_is_sure() -> None:
    """Of 4,000 images 40 got worse and none better: surely a loss, and surely less than 5 %."""
    assert judge_class(0, 40, 4000, MARGIN, LEVELS).outcome == Outcome.HOLDS


def test_a_class_without_images_has_no_judgment() -> None:
    assert judge_class(0, 0, 0, MARGIN, LEVELS) is None


def test_few_images_suffice_to_find_a_collapse() -> None:
    assert judge_class(0, 10, 20, MARGIN, LEVELS).outcome == Outcome.FAILS


def test_states_how_many_images_are_needed() -> None:
    """5 % and one image of 100 changed; 4.523 standard errors of sqrt(changed / n) must fit the margin."""
    judgment = judge_class(2, 3, 99, MARGIN, LEVELS)
    assert judgment.needed == int(np.ceil(0.06 * (4.52301 / 0.05) ** 2)) == 491


def outcomes(gain, loss, images, runs=4000, seed=0):
    drawn = np.random.default_rng(seed).multinomial(images, [gain, loss, 1 - gain - loss], size=runs)
    changes = ClassChanges(drawn[:, 0].astype(float), drawn[:, 1].astype(float), np.full(runs, float(images)))
    answers = [judgment.outcome for judgment in judge_classes(changes, MARGIN, LEVELS) if judgment]
    return {outcome: answers.count(outcome) / runs for outcome in Outcome}


@pytest.mark.parametrize(("gain", "loss"), [(0.0, 0.05), (0.005, 0.055), (0.03, 0.08)])
def test_a_class_with_enough_images_that_lost_the_margin_is_found(gain, loss) -> None:
    needed = int((gain + loss) * (4.52301 / 0.05) ** 2)
    assert 1 - outcomes(gain, loss, needed)[Outcome.FAILS] <= 0.06  # 5 %, and what 4,000 runs tell apart


@pytest.mark.parametrize("images", [20, 150, 600])
def test_a_class_that_lost_nothing_is_hardly_ever_blocked(images) -> None:
    assert outcomes(0.05, 0.05, images)[Outcome.FAILS] <= 0.005  # 0.2 %


def test_macro_f1() -> None:
    labels = np.arange(900) % 3
    lost = np.where(np.arange(900) < 200, (labels + 1) % 3, labels)
    same = PairedAnswers(labels, np.arange(900), labels, labels, 3)
    worse = PairedAnswers(labels, np.arange(900), labels, lost, 3)
    assert judge_macro_f1(same, 0.03, LEVELS).outcome == Outcome.HOLDS
    assert judge_macro_f1(worse, 0.03, LEVELS).outcome == Outcome.FAILS
    assert judge_macro_f1(worse.swapped(), 0.03, LEVELS).outcome == Outcome.HOLDS
    few = PairedAnswers(labels[:12], np.arange(12), labels[:12], labels[:12], 3)
    assert judge_macro_f1(few, 0.03, LEVELS).outcome == Outcome.TOO_FEW_IMAGES


def test_the_mean_is_bounded_as_by_scipys_t_test() -> None:
    gains = np.random.default_rng(0).normal(-0.01, 0.2, 80)
    judgment = judge_mean(gains, np.arange(80), 0.02, LEVELS)
    low = stats.ttest_1samp(gains, 0, alternative="greater").confidence_interval(0.95).low
    assert judgment.lower == pytest.approx(low)
    assert judgment.outcome == Outcome.TOO_FEW_IMAGES
    assert judge_mean(gains - 0.2, np.arange(80), 0.02, LEVELS).outcome == Outcome.FAILS
    assert judge_mean(gains + 0.2, np.arange(80), 0.02, LEVELS).outcome == Outcome.HOLDS


def test_the_mean_over_groups_is_that_of_the_groups() -> None:
    """Each of 40 gains three times, as one group: the same as 40 single ones."""
    gains = np.random.default_rng(1).normal(0, 0.2, 40)
    single = judge_mean(gains, np.arange(40), 0.02, LEVELS)
    grouped = judge_mean(np.repeat(gains, 3), np.repeat(np.arange(40), 3), 0.02, LEVELS)
    assert grouped.lower == pytest.approx(single.lower)
    assert judge_mean(gains, np.zeros(40), 0.02, LEVELS).outcome == Outcome.TOO_FEW_IMAGES
