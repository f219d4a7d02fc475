import subprocess
import sys

import numpy as np
import pytest

from lesion.core.errors import DataError
from lesion.evaluation.calibration import (
    TEMPERATURE_RANGE,
    confidence_bins,
    fit_temperature,
    is_separated,
    log_softmax,
    reliability,
    softmax,
)


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


def test_temperature_recovers_a_known_factor():
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, (20_000, 4))
    labels = np.array([rng.choice(4, p=row / row.sum()) for row in softmax(true).astype(np.float64)])
    assert fit_temperature(true, labels) == pytest.approx(1.0, rel=0.03)
    assert fit_temperature(true * 2.5, labels) == pytest.approx(2.5 * fit_temperature(true, labels), rel=1e-3)
    assert fit_temperature(true * 0.2, labels) == pytest.approx(0.2 * fit_temperature(true, labels), rel=1e-3)


def test_temperature_of_separated_data_follows_laplace():
    """Ten right answers of ten support a confidence of 11/12, whatever the logits' scale."""
    labels = np.arange(10) % 2
    for scale in (0.7, 1.0, 5.0):
        logits = scale * np.eye(2)[labels]
        assert is_separated(logits, labels)
        temperature = fit_temperature(logits, labels)
        np.testing.assert_allclose(softmax(logits, temperature).max(axis=1), 11 / 12, atol=1e-4)


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


def test_bins_are_open_below_and_closed_above():
    edge = np.float32(0.6)  # a little above 0.6 in float64
    np.testing.assert_array_equal(confidence_bins(np.array([0.0, 0.2, 0.21, edge, 1.0]), 5), [0, 0, 1, 2, 4])


def test_reliability_by_hand():
    """Bins of 0.2: (0.6, 0.8] holds 0.7 right and 0.8 wrong; (0.8, 1] holds 0.9 right and 1.0 right."""
    top = np.array([0.7, 0.8, 0.9, 1.0])
    result = reliability(np.stack([top, 1 - top], axis=1), [0, 1, 0, 0], bins=5)
    np.testing.assert_array_equal(result.count, [0, 0, 0, 2, 2])
    np.testing.assert_allclose(result.confidence[3:], [0.75, 0.95])
    np.testing.assert_allclose(result.accuracy[3:], [0.5, 1.0])
    assert np.isnan(result.accuracy[:3]).all()
    assert result.ece == pytest.approx((2 * 0.25 + 2 * 0.05) / 4)


def test_import_brings_no_heavy_library():
    """The server imports this module, in an environment without torch or SciPy."""
    code = "import sys, lesion.evaluation.calibration; print({'torch', 'scipy', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
