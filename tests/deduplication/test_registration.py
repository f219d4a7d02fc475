"""The parts of the search: borders, signatures, proposals, placement, registration and comparison."""

import numpy as np
import pytest

from lesion.deduplication.alignment import align, block_correlation, correlation_beside_text, is_plausible
from lesion.deduplication.features import extract_features
from lesion.deduplication.pictures import (
    ORIENTATIONS,
    SIDE,
    centers,
    content_bounds,
    even_contrast,
    extend,
    orient,
    oriented_bounds,
    resample,
    trim,
    within,
)
from lesion.deduplication.placement import place
from lesion.deduplication.proposal import propose
from lesion.deduplication.signatures import COMPARED, SIZE, oriented
from tests.support.images.duplicates import textured, thumbnails_of


@pytest.fixture(scope="module")
def thumbnails() -> np.ndarray:
    return thumbnails_of(*(textured(seed, 150, 150) for seed in range(20)))


def test_a_border_is_trimmed_and_the_dark_around_a_disk_is_not(thumbnails: np.ndarray) -> None:
    picture = thumbnails[:1].astype(np.float32)
    bordered = np.full_like(picture, 255)
    bordered[:, 4:-4, 4:-4] = resample(picture, np.array([[[1.2, 0, 0], [0, 1.2, 0]]], np.float32))[:, 4:-4, 4:-4]
    inner = trim(bordered)
    assert np.abs(inner[:, 2:-2, 2:-2] - 255).mean() > 50
    y, x = np.mgrid[-1:1:48j, -1:1:48j]
    disk = np.where(np.hypot(x, y) < 0.7, 180, 0).astype(np.float32)[None]
    np.testing.assert_array_equal(trim(disk), disk)
    np.testing.assert_array_equal(trim(picture), picture)


def test_the_bounds_leave_out_a_band_and_the_content_goes_on_over_it(thumbnails: np.ndarray) -> None:
    picture = np.clip(thumbnails[:1].astype(np.float32), 60, 255)
    picture[:, :5] = 0  # five rows, and one more that may be half of it
    bounds = content_bounds(picture)
    np.testing.assert_allclose(bounds[0], np.array([[-1, 1], [6 / 24 - 1, 1]]))
    extended = extend(picture, bounds)
    np.testing.assert_array_equal(extended[0, :6], np.broadcast_to(picture[0, 6], (6, SIDE)))
    np.testing.assert_array_equal(extended[0, 6:], picture[0, 6:])


def test_bounds_turn_with_the_picture() -> None:
    bounds = np.array([[[-0.5, 1.0], [-1.0, 0.25]]], np.float32)
    points = centers(SIDE)[:2]
    mask = within(points, bounds).reshape(SIDE, SIDE)
    for orientation in range(ORIENTATIONS):
        turned = oriented_bounds(bounds, np.array([orientation]))
        np.testing.assert_array_equal(within(points, turned).reshape(SIDE, SIDE), orient(mask, orientation))


def test_the_signature_of_a_turned_picture_follows_from_its_own(thumbnails: np.ndarray) -> None:
    upright = extract_features(thumbnails).signatures[:, [1, 3, 5]]  # the frames that are not turned
    np.testing.assert_allclose(np.linalg.norm(upright, axis=2), 1, atol=1e-5)
    for orientation, expected in enumerate(oriented(upright)):
        turned = np.ascontiguousarray(orient(thumbnails, orientation))
        np.testing.assert_allclose(extract_features(turned).signatures[:, [1, 3, 5]], expected, atol=2e-3)


def test_the_negative_has_the_same_signature(thumbnails: np.ndarray) -> None:
    both = extract_features(np.concatenate([thumbnails, 255 - thumbnails])).signatures
    np.testing.assert_allclose(both[:20], both[20:], atol=2e-3)


def test_proposals_are_the_pairs_of_mutual_nearest(thumbnails: np.ndarray) -> None:
    features = extract_features(thumbnails)
    query, reference = features.taken(slice(0, 8)), features.taken(slice(8, 20))
    turned = oriented(query.signatures.transpose(1, 0, 2))  # (8, FRAMES, Q, SIZE)
    similarity = np.max([turned[:, one] @ reference.signatures[:, other].T for one, other in COMPARED], axis=(0, 1))
    assert turned.shape[-1] == SIZE
    rows, columns = np.sort(similarity, axis=1)[:, -3:-2], np.sort(similarity, axis=0)[-3:-2]
    expected = np.argwhere((similarity >= rows) & (similarity >= columns) & (similarity >= 0.1))
    np.testing.assert_array_equal(propose(query, reference, least=0.1, nearest=3), expected)
    assert len(expected) > 5
    back = propose(reference, query, least=0.1, nearest=3)
    np.testing.assert_array_equal(np.unique(back[:, ::-1], axis=0), expected)


def test_placement_finds_orientation_zoom_shift_and_negative(thumbnails: np.ndarray) -> None:
    gray = thumbnails[:1].astype(np.float32)
    warp = np.array([[[0.8, 0, 0.15], [0, 0.8, 0.0]]], np.float32)
    for orientation in range(ORIENTATIONS):
        # the second picture, brought into the orientation, is the first under the map
        second = np.empty_like(gray)
        orient(second, orientation)[:] = 255 - resample(gray, warp)
        fine = even_contrast(np.concatenate([gray, second]), 1.2).astype(np.float16)
        found = place(fine, np.array([[0, 1]]))
        assert found.orientation.tolist() == [orientation]
        assert found.correlation[0] < -0.8
        np.testing.assert_allclose(found.warp, warp, atol=1e-6)


def test_alignment_recovers_a_known_map() -> None:
    def picture(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        waves: np.ndarray = np.sin(6 * x + 2 * y) + np.cos(7 * y - 3 * x) + np.sin(4 * x * y)
        return waves

    centres = (np.arange(48) + 0.5) / 24 - 1
    y, x = np.meshgrid(centres, centres, indexing="ij")
    true = np.array([[1.03, -0.03, 0.02], [0.03, 0.98, -0.03]])
    moving = picture(x, y)
    template = picture(*(true[row, 0] * x + true[row, 1] * y + true[row, 2] for row in (0, 1)))
    a, b = (field[None].astype(np.float32) for field in (template, moving))
    start = np.eye(2, 3, dtype=np.float32)[None]
    found = align(a, b, start, iterations=8, step=2)
    np.testing.assert_allclose(found[0], true, atol=2e-3)


def test_correlations_by_hand() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, SIDE, SIDE)).astype(np.float32)
    everywhere = np.ones((1, SIDE, SIDE), np.bool_)
    assert block_correlation(one, 3 * one, everywhere)[0] == pytest.approx(1, abs=1e-5)
    covered = one.copy()
    covered[:, 12:22, 6:32] = 5
    assert correlation_beside_text(one, covered, everywhere)[0] == pytest.approx(1, abs=1e-4)
    assert correlation_beside_text(one, np.ascontiguousarray(covered.swapaxes(1, 2)), everywhere)[0] < 0.5
    standing = one.copy()
    standing[:, 6:32, 12:22] = 5
    assert correlation_beside_text(one, standing, everywhere)[0] == pytest.approx(1, abs=1e-4)
    # two boxes: one of them remains, and the correlation is that of what is left
    standing[:, 40:48, 40:48] = 5
    kept = np.ones((SIDE, SIDE), np.bool_)
    kept[6:32, 12:22] = False
    left, right = one[0][kept], standing[0][kept]
    expected = (left * right).sum() / np.sqrt((left * left).sum() * (right * right).sum())
    assert correlation_beside_text(one, standing, everywhere)[0] == pytest.approx(expected, abs=1e-4)


def test_implausible_maps() -> None:
    maps = np.array(
        [
            [[1, 0, 0], [0, 1, 0]],
            [[1.6, 0, 0], [0, 1, 0]],
            [[1, 0, 0], [0, 0.6, 0]],
            [[1, 0, 0.6], [0, 1, 0]],
            [[0, -1.4, 0.4], [1.4, 0, 0]],
        ],
        np.float32,
    )
    assert is_plausible(maps, zoom=1.5, shift=0.25).tolist() == [True, False, False, False, True]
