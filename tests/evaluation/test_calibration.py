import numpy as np
import pytest
from scipy.optimize import minimize

from lesion.core.errors import DataError
from lesion.evaluation.calibration import (
    TEMPERATURE_RANGE,
    expected_bias,
    fit_calibration,
    fit_temperature,
    fit_temperature_and_bias,
    is_separated,
)
from lesion.evaluation.probabilities import log_softmax, softmax


def test_temperature_recovers_a_known_factor():
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, (20_000, 4))
    labels = np.array([rng.choice(4, p=row / row.sum()) for row in softmax(true).astype(np.float64)])
    assert fit_temperature(true, labels) == pytest.approx(1.0, rel=0.03)
    assert fit_temperature(true * 2.5, labels) == pytest.approx(2.5 * fit_temperature(true, labels), rel=1e-3)
    assert fit_temperature(true * 0.2, labels) == pytest.approx(0.2 * fit_temperature(true, labels), rel=1e-3)


def test_temperature_of_separated_data_follows_laplace():
    """A thousand right answers of a thousand support a confidence of 1001/1002, whatever the logits' scale."""
    labels = np.arange(1000) % 2
    for scale in (4.0, 7.0, 12.0):
        logits = scale * np.eye(2)[labels]
        assert is_separated(logits, labels)
        temperature = fit_temperature(logits, labels)
        np.testing.assert_allclose(softmax(logits, temperature).max(axis=1), 1001 / 1002, atol=1.5e-3)


def test_temperature_of_wrong_answers_stays_in_its_range():
    labels = np.arange(10) % 2
    assert fit_temperature(50 * np.eye(2)[1 - labels], labels) == pytest.approx(TEMPERATURE_RANGE[1], rel=1e-3)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.zeros((0, 3)), np.zeros(0)),
        (np.zeros((2, 3)), np.zeros(3)),
        (np.array([[0.0, np.nan]]), np.zeros(1)),
        (np.zeros((2, 1)), np.zeros(2)),
    ],
)
def test_temperature_refuses_what_cannot_be_fitted(logits, labels):
    with pytest.raises(DataError):
        fit_temperature(logits, labels)


def drawn(count, seed, shares, distance=2.5, weights=None, sharpness=1.0):
    """Images of normal classes, with the logits of the exact model of data in which classes count by their weights."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(shares), count, p=shares)
    values = rng.normal(size=(count, len(shares)))
    values[np.arange(count), labels] += distance
    logits = distance * values + np.log(shares)
    return sharpness * (logits + np.log(weights if weights is not None else np.ones(len(shares)))), labels


def nll(logits, labels, temperature=1.0, bias=None):
    return -log_softmax(logits, temperature, bias)[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("images", [8, 15])
@pytest.mark.parametrize("sharpness", [0.8, 1.0, 1.5, 2.5])
def test_few_images_do_not_make_probabilities_worse(images, sharpness):
    """On average over 150 calibration sets; without the prior, eight images made a good model worse in most draws."""
    shares = np.array([0.4, 0.3, 0.3])
    test, test_labels = drawn(20_000, 99, shares, sharpness=sharpness)
    before = nll(test, test_labels)
    after = [
        nll(test, test_labels, fit_temperature(*drawn(images, seed, shares, sharpness=sharpness)))
        for seed in range(150)
    ]
    assert np.mean(after) < before + 0.03
    if sharpness >= 1.5:
        assert np.mean(after) < before


def test_many_images_are_not_moved_by_the_prior():
    logits, labels = drawn(50_000, 3, np.array([0.5, 0.5]), sharpness=3.0)
    assert fit_temperature(logits, labels) == pytest.approx(3.0, rel=0.03)


def test_the_bias_takes_back_the_weights():
    np.testing.assert_allclose(expected_bias([1, 1, 1]), 0, atol=1e-12)
    np.testing.assert_allclose(expected_bias([4, 1]), [-np.log(2), np.log(2)])
    np.testing.assert_allclose(expected_bias([0, 4, 1]), [0, -np.log(2), np.log(2)])


@pytest.mark.parametrize("images", [0, 20, 200, 5000])
def test_a_weighted_loss_still_gives_probabilities_that_hold(images):
    """Classes of 60, 20, 10, 6 and 4 %, each weighted by the inverse of its share, as class_weights=balanced does."""
    shares = np.array([0.6, 0.2, 0.1, 0.06, 0.04])
    weights = 1 / (5 * shares)
    logits, labels = drawn(images, 1, shares, weights=weights)
    classes = tuple("abcde")
    calibration = fit_calibration(logits.reshape(-1, 5), labels, classes, weights.tolist())
    test, test_labels = drawn(100_000, 2, shares, weights=weights)
    answers = calibration.probabilities(test)
    plain = softmax(test, fit_temperature(logits, labels)) if images else softmax(test)
    errors = [np.abs(answers[:, c].mean() - shares[c]) for c in range(5)]
    assert max(errors) < (0.03 if images in (20, 200) else 0.004)
    assert np.abs(plain[:, 0].mean() - shares[0]) > 0.02
    assert nll(test, test_labels, calibration.temperature, calibration.bias) < nll(test, test_labels) - 0.02


def test_temperature_and_bias_are_at_the_optimum():
    """Against a general minimizer without gradients, on the same objective, written out here."""
    logits, labels = drawn(300, 4, np.array([0.5, 0.3, 0.2]), weights=np.array([1.0, 2.0, 3.0]), sharpness=1.7)
    expected = expected_bias([1.0, 2.0, 3.0])

    def loss(parameters):
        scaled = logits / np.exp(parameters[0]) + expected + parameters[1:]
        likelihood = scaled[np.arange(300), labels] - np.log(np.exp(scaled).sum(axis=1))
        return -likelihood.sum() + 2 * (parameters**2).sum()  # standard deviations of ½

    best = minimize(loss, np.zeros(4), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 4000}).x
    temperature, bias = fit_temperature_and_bias(logits, labels, expected)
    assert temperature == pytest.approx(np.exp(best[0]), rel=1e-3)
    np.testing.assert_allclose(bias, expected + best[1:] - (expected + best[1:]).mean(), atol=2e-3)
