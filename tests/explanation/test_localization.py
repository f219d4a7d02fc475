"""The measures of heat maps against masks, by hand."""

import numpy as np
import pytest

from lesion.explanation.localization import distance_to_mask, hottest_point, overlap, share_inside


def box(rows: slice, columns: slice, value: float = 1.0) -> np.ndarray:
    heat = np.zeros((20, 20))
    heat[rows, columns] = value
    return heat


def test_the_hottest_point_is_the_middle_of_its_plateau() -> None:
    assert hottest_point(box(slice(0, 5), slice(10, 20))) == (2.0, 14.5)
    assert hottest_point(box(slice(3, 4), slice(7, 8))) == (3.0, 7.0)


def test_of_two_places_the_hottest_point_is_one() -> None:
    heat = box(slice(2, 3), slice(2, 3)) + box(slice(10, 12), slice(17, 18))
    assert heat[int(hottest_point(heat)[0]), int(hottest_point(heat)[1])] == 1


def test_the_distance_to_a_mask() -> None:
    mask = box(slice(5, 10), slice(5, 10)).astype(bool)
    assert distance_to_mask(box(slice(6, 7), slice(6, 7)), mask) == 0
    assert distance_to_mask(box(slice(6, 7), slice(14, 15)), mask) == 5
    # without heat the middle of the image: (9.5, 9.5), and (9, 9) is a corner of the mask
    assert distance_to_mask(np.zeros((20, 20)), mask) == pytest.approx(np.sqrt(0.5))


def test_the_overlap_takes_as_many_pixels_as_the_mask_has() -> None:
    mask = box(slice(0, 4), slice(0, 4)).astype(bool)
    heat = box(slice(0, 4), slice(2, 6)) + box(slice(0, 20), slice(0, 20), 0.1)
    assert overlap(heat, mask) == pytest.approx(8 / 24)
    assert overlap(mask + 0.0, mask) == 1
    assert overlap(np.zeros((20, 20)), mask) == 0


def test_the_share_inside() -> None:
    mask = box(slice(0, 20), slice(0, 10)).astype(bool)
    assert share_inside(np.ones((20, 20)), mask) == 0.5
    assert share_inside(np.zeros((20, 20)), mask) == 0
