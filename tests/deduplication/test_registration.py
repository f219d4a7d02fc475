"""The parts of the search: borders, signatures, proposals, placement, registration and comparison."""

import numpy as np
import pytest

from lesion.deduplication.alignment import align, block_correlation, correlation_with_text, inverse, is_plausible
from lesion.deduplication.edge_signatures import COMPARED, SIZE, oriented, turning_matrices
from lesion.deduplication.features import extract_features
from lesion.deduplication.pictures import (
    ORIENTATIONS,
    SIDE,
    centers,
    content_bounds,
    even_contrast,
    extend,
    inner_bounds,
    orient,
    oriented_bounds,
    resample,
    trim,
    within,
)
from lesion.deduplication.placement import place
from lesion.deduplication.proposal import propose
from lesion.deduplication.verification import COPY, verify
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
    upright = extract_features(thumbnails).signatures
    np.testing.assert_allclose(np.linalg.norm(upright, axis=2), 1, atol=1e-5)
    for orientation, expected in enumerate(oriented(upright)):
        turned = np.ascontiguousarray(orient(thumbnails, orientation))
        np.testing.assert_allclose(extract_features(turned).signatures, expected, atol=2e-3)


def test_the_negative_has_the_same_signature(thumbnails: np.ndarray) -> None:
    both = extract_features(np.concatenate([thumbnails, 255 - thumbnails])).signatures
    np.testing.assert_allclose(both[:20], both[20:], atol=2e-3)


def test_proposals_are_the_pairs_of_mutual_nearest(thumbnails: np.ndarray) -> None:
    features = extract_features(thumbnails)
    query, reference = features.taken(slice(0, 8)), features.taken(slice(8, 20))
    turned = oriented(query.signatures)  # (8, Q, FRAMES, SIZE)
    similarity = np.max([turned[:, :, one] @ reference.signatures[:, other].T for one, other in COMPARED], axis=(0, 1))
    assert turned.shape[-1] == SIZE
    rows, columns = np.sort(similarity, axis=1)[:, -3:-2], np.sort(similarity, axis=0)[-3:-2]
    expected = np.argwhere((similarity >= rows) & (similarity >= columns) & (similarity >= 0.1))
    np.testing.assert_array_equal(propose(query, reference, least=0.1, nearest=3), expected)
    assert len(expected) > 5
    back = propose(reference, query, least=0.1, nearest=3)
    np.testing.assert_array_equal(np.unique(back[:, ::-1], axis=0), expected)


def test_placement_finds_orientation_zoom_shift_and_negative(thumbnails: np.ndarray) -> None:
    gray = thumbnails[:1].astype(np.float32)
    warp = np.array([[[0.8, 0, 0.1], [0, 0.8, 0.0]]], np.float32)
    for orientation in range(ORIENTATIONS):
        # the second picture, brought into the orientation, is the first under the map
        second = np.empty_like(gray)
        orient(second, orientation)[:] = 255 - resample(gray, warp)
        fine = even_contrast(np.concatenate([gray, second]), 1.2).astype(np.float16)
        found = place(fine, np.array([[0, 1]]))
        assert found.orientation[0, 0] == orientation
        assert found.correlation[0, 0] < -0.8
        np.testing.assert_allclose(found.warp[:, 0], warp, atol=1e-6)


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


def test_block_correlation_allows_for_a_gain() -> None:
    one = np.random.default_rng(0).normal(size=(1, SIDE, SIDE)).astype(np.float32)
    everywhere = np.ones((1, SIDE, SIDE), np.bool_)
    assert block_correlation(one, 3 * one, everywhere)[0] == pytest.approx(1, abs=1e-5)
    assert block_correlation(one, -one, everywhere)[0] == pytest.approx(-1, abs=1e-5)


def without_worst_box(one: np.ndarray, other: np.ndarray, height: int, width: int) -> tuple[float, float]:
    """The correlation without the box of this size that differs most, and its share of all differences."""
    difference = (one - other) ** 2 / 2
    boxes = [
        (slice(y, y + height), slice(x, x + width))
        for y in range(0, SIDE - height + 1, 2)
        for x in range(0, SIDE - width + 1, 2)
    ]
    worst = max(boxes, key=lambda box: difference[box].sum())
    kept = np.ones((SIDE, SIDE), np.bool_)
    kept[worst] = False
    left, right = one[kept], other[kept]
    correlation = (left * right).sum() / np.sqrt((left * left).sum() * (right * right).sum())
    return float(correlation), float(difference[worst].sum() / difference.sum())


@pytest.mark.parametrize(("spot", "noise"), [(5.0, 0.1), (1.5, 0.3), (0.0, 0.3)])
def test_a_box_of_text_is_left_out_and_counts_less_the_less_it_explains(spot: float, noise: float) -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(SIDE, SIDE)).astype(np.float32)
    other = one + noise * rng.normal(size=one.shape).astype(np.float32)
    other[10:40, 12:22] += spot * rng.choice([-1, 1], (30, 10)).astype(np.float32)
    everywhere = np.ones((1, SIDE, SIDE), np.bool_)
    whole = (one * other).sum() / np.sqrt((one * one).sum() * (other * other).sum())
    found = [float(whole)]
    for height, width in ((12, 30), (30, 12)):
        correlation, share = without_worst_box(one, other, height, width)
        doubt = min(max((0.8 - share) / 0.3, 0), 1)
        found.append(correlation - (0.005 + 0.03 * doubt))
    result = correlation_with_text(one[None], other[None], everywhere)[0]
    assert result == pytest.approx(max(found), abs=1e-4)
    assert (result > whole + 0.01) == (spot > 0)


def test_the_inner_bounds_leave_out_what_has_one_color(thumbnails: np.ndarray) -> None:
    picture = np.clip(thumbnails[:1].astype(np.float32), 60, 255)
    np.testing.assert_array_equal(inner_bounds(picture), [[[-1, 1], [-1, 1]]])
    picture[:, :5] = 0  # and the row below it may be half of it
    picture[:, :, -3:] = 0
    np.testing.assert_allclose(inner_bounds(picture), [[[-1, 1 - 4 / 24], [6 / 24 - 1, 1]]])


def test_signatures_turn_without_loss() -> None:
    matrices = turning_matrices()
    np.testing.assert_allclose(matrices @ matrices.transpose(0, 2, 1), np.tile(np.eye(SIZE), (8, 1, 1)), atol=1e-5)


def test_inverse_maps_lead_back() -> None:
    maps = np.array([[[1.2, 0.1, 0.3], [-0.2, 0.8, -0.1]], [[1, 0, 0], [0, 1, 0]]], np.float32)
    points = centers(SIDE, 7)
    there = np.concatenate([maps @ points, np.ones((2, 1, points.shape[1]), np.float32)], axis=1)
    np.testing.assert_allclose(inverse(maps) @ there, np.tile(points[:2], (2, 1, 1)), atol=1e-5)


@pytest.mark.parametrize("crop_first", [False, True])
def test_a_crop_is_recognized_whichever_picture_comes_first(crop_first: bool) -> None:
    """The picture with the coarser detail is the one at whose pixels both are compared."""
    image = textured(3, 224, 224, smoothness=2.0)
    features = extract_features(thumbnails_of(image, image[22:202, 22:202]))
    features.keys[:] = [2, 1] if crop_first else [1, 2]
    assert verify(features, np.array([[0, 1]]))[0] >= COPY


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
