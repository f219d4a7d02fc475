import numpy as np
import pytest

from lesion.evaluation.reliability import classwise_calibration_error, confidence_bins, reliability


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


def test_classwise_error_by_hand():
    """Two images at 0.9 for x, one of each class. x: |1 − 1.8| / 2 = 0.4; y: |1 − 0.2| / 2 = 0.4."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1]])
    assert classwise_calibration_error(probabilities, [0, 1]) == pytest.approx(0.4)
    assert classwise_calibration_error(np.array([[1.0, 0.0], [0.0, 1.0]]), [0, 1]) == 0
