import numpy as np
import pytest

from lesion.evaluation.reliability import (
    AnswerFrequency,
    answer_frequencies,
    classwise_calibration_error,
    confidence_bins,
    find_frequency,
    reliability,
)


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


def test_right_answers_are_counted_where_there_are_enough_of_them():
    """25 at 0.995 (2 wrong), 19 at 0.96 and 6 at 0.92 (5 wrong), 20 at 0.75, 3 at 0.55 (all wrong)."""
    top = np.repeat([0.995, 0.96, 0.92, 0.75, 0.55], [25, 19, 6, 20, 3]).astype(np.float32)
    labels = np.zeros(73, int)
    labels[[0, 1, *range(44, 49), 70, 71, 72]] = 1
    order = np.random.default_rng(0).permutation(73)
    counted = answer_frequencies(np.stack([top, 1 - top], axis=1)[order], labels[order])
    assert counted == (
        AnswerFrequency(0.99, 1.0, 25, 23),
        AnswerFrequency(0.9, 0.99, 25, 20),
        AnswerFrequency(0.7, 0.9, 20, 20),
    )  # and the three that are left are not enough
    found = [find_frequency(counted, confidence) for confidence in (1.0, 0.99, 0.95, 0.9, 0.7, 0.69)]
    assert found == [counted[0], counted[0], counted[1], counted[1], counted[2], None]
    assert [AnswerFrequency.from_json(each.to_json()) for each in counted] == list(counted)


@pytest.mark.parametrize(
    ("confidences", "counts", "expected"),
    [
        ((0.97, 0.92, 0.3), (12, 7, 1), []),  # nineteen, and one that has nothing to do with them
        ((0.97, 0.92), (12, 8), [(0.9, 1.0, 20)]),
        ((0.995, 0.85, 0.3), (100, 19, 1), [(0.99, 1.0, 100)]),
        ((0.995, 0.65), (15, 5), []),
        ((0.85, 0.75, 0.45), (15, 5, 25), [(0.7, 0.9, 20), (0.0, 0.5, 25)]),
    ],
)
def test_low_confidences_do_not_share_in_what_high_ones_earned(confidences, counts, expected):
    top = np.repeat(confidences, counts)
    rest = (1 - top) / 9  # ten classes, so that the most probable one may have any of these confidences
    counted = answer_frequencies(np.column_stack([top, *[rest] * 9]), np.zeros(len(top), int))
    assert [(each.low, each.high, each.images) for each in counted] == expected


def test_of_few_images_nothing_is_counted():
    assert answer_frequencies(np.full((19, 2), 0.5), np.zeros(19, int)) == ()
    assert find_frequency((), 0.9) is None
