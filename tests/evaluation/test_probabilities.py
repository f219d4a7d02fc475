import subprocess
import sys

import numpy as np
import pytest

from lesion.core.errors import ConfigError
from lesion.evaluation.probabilities import Calibration, log_softmax, parse_prevalence, softmax


def test_softmax_by_hand():
    logits = np.log(np.array([[1.0, 3.0]], np.float32))
    np.testing.assert_allclose(softmax(logits), [[0.25, 0.75]], atol=1e-7)
    # Temperature 0.5 squares the odds: 1 to 9.
    np.testing.assert_allclose(softmax(logits, 0.5), [[0.1, 0.9]], atol=1e-7)
    assert softmax(logits).dtype == np.float32


def test_softmax_does_not_overflow():
    logits = np.array([[1e4, 0.0], [-1e4, 0.0]], np.float32)
    np.testing.assert_array_equal(softmax(logits), [[1, 0], [0, 1]])
    np.testing.assert_allclose(log_softmax(logits), [[0, -1e4], [-1e4, 0]])


def test_a_bias_multiplies_the_odds():
    logits = np.log(np.array([[1.0, 3.0]]))
    # 1 : 3 at temperature 1, and twice the odds for the first class.
    np.testing.assert_allclose(Calibration(1.0, (np.log(2), 0.0)).probabilities(logits), [[0.4, 0.6]], atol=1e-7)
    # The temperature comes first: 1 : 9, then 2 : 9.
    np.testing.assert_allclose(Calibration(0.5, (np.log(2), 0.0)).probabilities(logits), [[2 / 11, 9 / 11]], atol=1e-7)


def test_a_prevalence_follows_bayes():
    """Likelihoods of 0.8 and 0.2 with shares of a half give 0.8; with shares of a tenth and nine tenths, 8/26."""
    calibration = Calibration().for_prevalence((0.5, 0.5), (0.1, 0.9))
    answer = calibration.probabilities(np.log([[0.8, 0.2]]))
    np.testing.assert_allclose(answer, [[0.8 * 0.1 / (0.8 * 0.1 + 0.2 * 0.9), 0.18 / 0.26]], atol=1e-7)
    assert calibration.prevalence == (0.1, 0.9)
    back = calibration.for_prevalence((0.1, 0.9), (0.5, 0.5))
    np.testing.assert_allclose(back.probabilities(np.log([[0.8, 0.2]])), [[0.8, 0.2]], atol=1e-7)


def test_a_prevalence_holds_among_images_of_those_shares():
    """An exact model of two normal classes, trained with equal shares: re-weighted, its answers hold among others."""
    rng = np.random.default_rng(0)
    labels = (rng.random(400_000) < 0.05).astype(int)
    values = rng.normal(2 * labels, 1)
    logits = np.stack([np.zeros(len(values)), 2 * values - 2], axis=1)  # log of the two densities' ratio
    answers = Calibration().for_prevalence((0.5, 0.5), (0.95, 0.05)).probabilities(logits)[:, 1]
    for low in (0.1, 0.3, 0.5, 0.7):
        near = (answers > low) & (answers < low + 0.1)
        assert labels[near].mean() == pytest.approx(answers[near].mean(), abs=0.025)


def test_prevalences_are_read():
    assert parse_prevalence(None, ("a", "b")) is None
    assert parse_prevalence("equal", ("a", "b")) == (0.5, 0.5)
    assert parse_prevalence({"b": 3, "a": 1}, ("a", "b")) == (0.25, 0.75)


@pytest.mark.parametrize("value", ["natural", {"a": 1}, {"a": 1, "b": 0}, {"a": 1, "b": True}, {"a": 1, "c": 1}, 3])
def test_prevalences_that_cannot_be_read_are_refused(value):
    with pytest.raises(ConfigError, match="a positive share of each class: a"):
        parse_prevalence(value, ("a", "b"))


def test_import_brings_no_heavy_library():
    """The server imports these modules, in an environment without torch or SciPy."""
    modules = "lesion.evaluation.probabilities, lesion.evaluation.reliability"
    code = f"import sys, {modules}; print({{'torch', 'scipy', 'pandas'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
