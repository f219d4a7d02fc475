import numpy as np
import pytest

from lesion.evaluation.cross_validation import CrossValidation
from lesion.evaluation.findings import TITLES


def made(accuracies, folds=4, ratio=1 / 3, **others):
    scores = tuple(
        {key: others.get(key, [0.5] * 9)[n] for key in TITLES} | {"acc": a} for n, a in enumerate(accuracies)
    )
    return CrossValidation(folds, len(accuracies) // folds, scores, (25,) * len(accuracies), ratio)


def test_the_interval_of_nadeau_and_bengio_by_hand():
    """Accuracies 0.7, 0.8, 0.8, 0.9: variance 0.02/3; enlarged by 1/4 + 1/3; t of 3 degrees of freedom is 3.1824."""
    validation = made([0.7, 0.8, 0.8, 0.9])
    reach = 3.182446 * np.sqrt((1 / 4 + 1 / 3) * 0.02 / 3)
    assert validation.mean("acc") == pytest.approx(0.8)
    assert validation.interval("acc") == pytest.approx((0.8 - reach, min(0.8 + reach, 1)), abs=1e-6)
    assert validation.metrics()["folds/acc_low"] == pytest.approx(0.8 - reach, abs=1e-6)
    assert "is 0.800 on average, from 0.700 to 0.900; the mean's 95 % interval, corrected" in validation.finding()
    assert "Trained 4 times, each time without another fold of 4" in validation.finding()


def test_losses_may_be_above_one_and_no_score_is_below_zero():
    validation = made([0.5] * 4, nll=[0.1, 3.0, 0.2, 2.0], ece=[0.0, 0.3, 0.0, 0.1])
    assert validation.interval("nll")[0] == 0
    assert validation.interval("nll")[1] > 3
    assert validation.interval("ece")[0] == 0


def test_an_undefined_score_has_no_interval():
    validation = made([0.5] * 4, roc_auc=[0.9, float("nan"), 0.8, 0.9])
    assert np.isnan(validation.interval("roc_auc")).all()
    assert validation.interval("acc") == (0.5, 0.5)
    assert validation.to_json()["interval"]["acc"] == [0.5, 0.5]


def test_the_interval_holds_the_score_of_the_next_training_as_often_as_it_says():
    """Simulated: scores that share a part of their luck as far as trainings on shared images do, 2,000 times."""
    rng = np.random.default_rng(0)
    ratio, folds, held = 1 / 4, 5, 0
    shared = ratio / (1 + ratio)  # the correlation that the correction assumes
    for _ in range(2000):
        luck = np.sqrt(shared) * rng.normal() + np.sqrt(1 - shared) * rng.normal(size=folds)
        low, high = made(list(0.5 + 0.02 * luck), folds, ratio).interval("acc")
        held += low <= 0.5 <= high
    assert 0.93 < held / 2000 < 0.97
