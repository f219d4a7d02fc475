"""Near-duplicates: what is found, what is not joined, and that groups do not explode."""

import doctest
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesion.deduplication import duplicates, features
from lesion.deduplication.alignment import align, correlation, displacement
from lesion.deduplication.duplicates import (
    groups,
    merge_groups,
    near_duplicate_pairs,
    near_duplicates_of,
)
from lesion.deduplication.features import make_thumbnail
from lesion.imaging.decode import decode, read
from tests.support.images.duplicates import as_lists, bench, textured, thumbnails_of


@pytest.fixture(scope="module")
def originals() -> list[np.ndarray]:
    return [textured(seed) for seed in range(30)]


@pytest.mark.parametrize("kind", bench.KINDS)
def test_each_planted_kind_is_found_and_nothing_else(kind: str, originals: list[np.ndarray]) -> None:
    rng = np.random.default_rng(1)
    copies = [np.asarray(bench.KINDS[kind](Image.fromarray(image), rng)) for image in originals]
    pairs = near_duplicate_pairs(thumbnails_of(*originals, *copies))
    assert as_lists(pairs) == [[row, row + 30] for row in range(30)]
    assert as_lists(near_duplicates_of(thumbnails_of(*copies), thumbnails_of(*originals))) == [
        [row, row] for row in range(30)
    ]


def test_unrelated_images_are_not_paired(originals: list[np.ndarray]) -> None:
    assert as_lists(near_duplicate_pairs(thumbnails_of(*originals))) == []


def test_a_different_picture_in_the_same_frame_is_not_a_duplicate() -> None:
    """The bright outline that all heads share must not outweigh what lies inside."""
    y, x = np.mgrid[-1:1:150j, -1:1:150j]
    radius = np.hypot(x / 0.7, y / 0.85)
    skull, inside = (radius < 1) & (radius > 0.9), radius <= 0.9
    heads = [
        np.where(skull, 230, np.where(inside, 0.5 * textured(seed, 150, 150)[:, :, 0], 0)).astype(np.uint8)
        for seed in range(12)
    ]
    assert (
        as_lists(near_duplicate_pairs(thumbnails_of(*[np.repeat(head[:, :, None], 3, axis=2) for head in heads]))) == []
    )


def test_beyond_the_promise_is_refused() -> None:
    image = Image.fromarray(textured(0, 200, 200))
    turned = image.rotate(25, Image.Resampling.BICUBIC)
    half = image.crop((0, 0, 100, 200))
    assert as_lists(near_duplicate_pairs(thumbnails_of(*(np.asarray(each) for each in (image, turned, half))))) == []


def test_blank_and_nearly_blank_images_match_nothing() -> None:
    rng = np.random.default_rng(0)
    noisy = [rng.integers(0, 3, (64, 64, 3), dtype=np.uint8) for _ in range(5)]
    blank = [np.full((64, 64, 3), value, np.uint8) for value in (0, 0, 128, 255, 255)]
    assert as_lists(near_duplicate_pairs(thumbnails_of(*blank, *noisy))) == []
    assert as_lists(near_duplicates_of(thumbnails_of(*blank), thumbnails_of(*blank, *noisy))) == []


def test_no_image_and_one_image() -> None:
    none, one = thumbnails_of(), thumbnails_of(textured(0))
    assert len(none) == 0
    for pairs in (near_duplicate_pairs(none), near_duplicate_pairs(one), near_duplicates_of(none, one)):
        assert as_lists(pairs) == []
    assert as_lists(near_duplicates_of(one, none)) == []
    assert as_lists(near_duplicates_of(one, one)) == [[0, 0]]
    assert groups(0, np.empty((0, 2), np.int64)).tolist() == []
    assert groups(1, np.empty((0, 2), np.int64)).tolist() == [0]


@pytest.mark.parametrize("shape", [(16, 16), (16, 2000), (2000, 16), (1, 1), (3000, 3000)])
def test_any_size_has_a_thumbnail(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    thumbnail = make_thumbnail(image)
    assert thumbnail.shape == (features.SIDE, features.SIDE)
    assert thumbnail.dtype == np.uint8


def test_small_and_extreme_shapes_still_match_their_mirror_image() -> None:
    images = [textured(0, 16, 16, smoothness=1.5), textured(1, 40, 1200)]
    mirrored = [image[:, ::-1] for image in images]
    assert as_lists(near_duplicate_pairs(thumbnails_of(*images, *mirrored))) == [[0, 2], [1, 3]]


def test_equal_images_give_linearly_many_pairs() -> None:
    thumbnail = make_thumbnail(textured(0))
    other = make_thumbnail(textured(1))
    thumbnails = np.concatenate([np.repeat(thumbnail[None], 5000, axis=0), other[None]])
    pairs = near_duplicate_pairs(thumbnails)
    assert as_lists(pairs) == [[0, row] for row in range(1, 5000)]
    assert np.bincount(groups(5001, pairs)).tolist() == [5000, 1]


def test_nearly_equal_images_give_one_group_of_boundedly_many_pairs() -> None:
    rng = np.random.default_rng(0)
    base = make_thumbnail(textured(0)).astype(int)
    noisy = np.clip(base + rng.integers(-3, 4, (200, *base.shape)), 0, 255).astype(np.uint8)
    pairs = near_duplicate_pairs(noisy)
    assert 199 <= len(pairs) <= 200 * duplicates.MAX_CANDIDATES
    assert groups(200, pairs).max() == 0


def test_queries_with_equal_thumbnails_all_get_their_matches() -> None:
    a, b, c = textured(0), textured(1), textured(2)
    query, reference = thumbnails_of(a, c, a, b), thumbnails_of(b, a[:, ::-1], a)
    assert as_lists(near_duplicates_of(query, reference)) == [[0, 1], [0, 2], [2, 1], [2, 2], [3, 0]]


def test_the_search_is_deterministic_and_thumbnails_pickle(originals: list[np.ndarray]) -> None:
    both = thumbnails_of(*originals, *[image[:, ::-1] for image in originals])
    again = pickle.loads(pickle.dumps(both))
    np.testing.assert_array_equal(near_duplicate_pairs(both), near_duplicate_pairs(again))


def test_chunks_do_not_change_the_result(originals: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    both = thumbnails_of(*originals, *[image[:, ::-1] for image in originals])
    whole = near_duplicate_pairs(both)
    monkeypatch.setattr(features, "_CHUNK", 7)
    np.testing.assert_array_equal(near_duplicate_pairs(both), whole)


def test_groups_are_connected_components_in_order_of_appearance() -> None:
    pairs = np.array([[4, 5], [1, 3], [3, 5]])
    assert groups(7, pairs).tolist() == [0, 1, 2, 1, 1, 1, 3]


def test_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(duplicates) == (0, 2)


def test_merge_groups_joins_through_any_key() -> None:
    patient = ["p", "", "q", "", "p", ""]
    pixels = np.array(["a", "b", "b", "c", "d", ""], dtype=object)
    near = np.array([-1, 0, 1, 0, 2, -1])
    # 0-4 by patient; 1-2 by pixels; 1-3 by near-duplicate; nothing ties 5
    assert merge_groups(patient, pixels, near).tolist() == [0, 1, 1, 1, 0, 2]
    assert merge_groups(patient).tolist() == [0, 1, 2, 3, 0, 4]
    assert merge_groups(np.array([-1, -1])).tolist() == [0, 1]
    assert merge_groups([], []).tolist() == []


def test_merge_groups_refuses_keys_of_different_length() -> None:
    with pytest.raises(ValueError, match="one value per image"):
        merge_groups([1, 2], [1])


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
    # the corner (1, -1) moves most: x by 0.03 + 0.03 + 0.02 = 0.08 of a side that is 2 long
    assert displacement(true[None].astype(np.float32))[0] == pytest.approx(0.04, abs=1e-6)
    assert correlation(a, b, found, margin=0.05, step=1)[0] > 0.999 > correlation(a, b, start, margin=0.05, step=1)[0]


def test_correlation_by_hand() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(1, 48, 48)).astype(np.float32)
    b = rng.normal(size=(1, 48, 48)).astype(np.float32)
    same = np.eye(2, 3, dtype=np.float32)[None]
    expected = np.corrcoef(a[0, 6:-6, 6:-6].ravel(), b[0, 6:-6, 6:-6].ravel())[0, 1]
    assert correlation(a, b, same, margin=0.12, step=1)[0] == pytest.approx(expected, abs=1e-4)
    assert correlation(a, 3 * a + 5, same, margin=0.12, step=1)[0] == pytest.approx(1, abs=1e-4)


def test_the_bench_counts_by_hand() -> None:
    # images 0 1 2 3 of classes 0 0 1 1; copies 4 (of 0) and 5 (of 2); 0-1 are joined, copy 4 hangs on 1, copy 5 is lost
    result = bench.score(
        np.array([[0, 1]]), np.array([[0, 1]]), np.array([0, 2]), np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3])
    )
    assert (result.direct, result.grouped) == (0.0, 0.5)
    assert result.cross_class == 0
    assert result.overall == pytest.approx((3 - 1) / 15)


@pytest.mark.real
@pytest.mark.parametrize(("folder", "count", "planted"), [("brain_tumor_mri", 1000, 100), ("cassava", 253, 100)])
def test_real_copies_are_found_and_unrelated_images_stay_apart(
    shared: Path, folder: str, count: int, planted: int
) -> None:
    rng = np.random.default_rng(0)
    listed = bench.labeled_images(shared / "data" / folder)
    chosen = [listed[row] for row in np.sort(rng.choice(len(listed), count, replace=False))]
    labels = np.unique([label for _, label in chosen], return_inverse=True)[1]
    pictures = [decode(read(path)) for path, _ in chosen]
    reference = thumbnails_of(*pictures)
    pairs, equal = near_duplicate_pairs(reference), np.arange(count)
    sources = np.sort(rng.choice(count, planted, replace=False))
    for kind in ("re-encoded at quality 40", "rotated by ±2°", "cropped by 3 %", "all six"):
        copies = [np.asarray(bench.KINDS[kind](Image.fromarray(pictures[source]), rng)) for source in sources]
        found = near_duplicates_of(thumbnails_of(*copies), reference)
        result = bench.score(pairs, found, sources, labels, equal)
        assert result.grouped >= 0.99, kind
        assert result.cross_class < 0.001
        assert result.overall < 0.01
