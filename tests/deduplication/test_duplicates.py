"""Near-duplicates: what is found, what is not joined, and that groups do not explode."""

import doctest
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesion.deduplication import batches, duplicates, grouping, proposal, verification
from lesion.deduplication.duplicates import near_duplicate_pairs, near_duplicates_of
from lesion.deduplication.features import extract_features, make_thumbnail
from lesion.deduplication.grouping import groups, merge_groups
from lesion.deduplication.pictures import SIDE
from lesion.imaging.decode import decode, read
from tests.support.images.duplicates import as_lists, bench, textured, thumbnails_of


def related_pairs(thumbnails: np.ndarray) -> np.ndarray:
    return near_duplicate_pairs(thumbnails).related


def related_of(query: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return near_duplicates_of(query, reference).related


@pytest.fixture(scope="module")
def originals() -> list[np.ndarray]:
    return [textured(seed) for seed in range(30)]


PAIRS = (
    "inverted; cropped by 10 % at each edge", "another orientation; text on 40 % x 12 %",
    "rotated by 2° to 15°; cropped by 10 % at each edge", "inverted; shifted by up to 10 %",
)  # fmt: skip


@pytest.mark.parametrize("kind", [*(kind for kind in bench.KINDS if ";" not in kind), *PAIRS])
def test_each_planted_kind_is_found_and_nothing_else(kind: str, originals: list[np.ndarray]) -> None:
    rng = np.random.default_rng(1)
    copies = [np.asarray(bench.KINDS[kind](Image.fromarray(image), rng)) for image in originals]
    expected = [[row, row + 30] for row in range(30)]
    assert as_lists(related_pairs(thumbnails_of(*originals, *copies))) == expected
    forth = near_duplicates_of(thumbnails_of(*copies), thumbnails_of(*originals))
    back = near_duplicates_of(thumbnails_of(*originals), thumbnails_of(*copies))
    assert as_lists(forth.related) == [[row, row] for row in range(30)]
    assert bench.same_pairs(forth, back)
    assert len(forth.copies) >= 24  # the search may call the hardest copies related


def test_copies_are_the_related_pairs_with_the_higher_score() -> None:
    matches = duplicates.Matches(np.array([[0, 1], [0, 2], [1, 2]]), np.array([0.9, 0.95, 1.0], np.float32))
    assert as_lists(matches.copies) == [[0, 2], [1, 2]]
    assert verification.RELATED < verification.COPY


def test_unrelated_images_are_not_paired(originals: list[np.ndarray]) -> None:
    assert as_lists(related_pairs(thumbnails_of(*originals))) == []


def test_a_different_picture_in_the_same_frame_is_not_a_duplicate() -> None:
    """The bright outline that all heads share must not outweigh what lies inside."""
    y, x = np.mgrid[-1:1:150j, -1:1:150j]
    radius = np.hypot(x / 0.7, y / 0.85)
    skull, inside = (radius < 1) & (radius > 0.9), radius <= 0.9
    heads = [
        np.where(skull, 230, np.where(inside, 0.5 * textured(seed, 150, 150)[:, :, 0], 0)).astype(np.uint8)
        for seed in range(12)
    ]
    found = near_duplicate_pairs(thumbnails_of(*[np.repeat(head[:, :, None], 3, axis=2) for head in heads]))
    assert as_lists(found.copies) == []


def test_beyond_the_promise_is_refused() -> None:
    image = Image.fromarray(textured(0, 200, 200))
    turned = image.rotate(25, Image.Resampling.BICUBIC)
    half = image.crop((0, 0, 100, 200))
    assert as_lists(related_pairs(thumbnails_of(*(np.asarray(each) for each in (image, turned, half))))) == []


def test_blank_and_nearly_blank_images_match_nothing() -> None:
    rng = np.random.default_rng(0)
    noisy = [rng.integers(0, 3, (64, 64, 3), dtype=np.uint8) for _ in range(5)]
    blank = [np.full((64, 64, 3), value, np.uint8) for value in (0, 0, 128, 255, 255)]
    assert as_lists(related_pairs(thumbnails_of(*blank, *noisy))) == []
    assert as_lists(related_of(thumbnails_of(*blank), thumbnails_of(*blank, *noisy))) == []


def test_no_image_and_one_image() -> None:
    none, one = thumbnails_of(), thumbnails_of(textured(0))
    assert len(none) == 0
    for pairs in (related_pairs(none), related_pairs(one), related_of(none, one)):
        assert as_lists(pairs) == []
    assert as_lists(related_of(one, none)) == []
    assert as_lists(related_of(one, one)) == [[0, 0]]
    assert groups(0, np.empty((0, 2), np.int64)).tolist() == []
    assert groups(1, np.empty((0, 2), np.int64)).tolist() == [0]


@pytest.mark.parametrize("shape", [(16, 16), (16, 2000), (2000, 16), (1, 1), (3000, 3000)])
def test_any_size_has_a_thumbnail(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    thumbnail = make_thumbnail(image)
    assert thumbnail.shape == (SIDE, SIDE)
    assert thumbnail.dtype == np.uint8


def test_small_and_extreme_shapes_still_match_their_mirror_image() -> None:
    images = [textured(0, 16, 16, smoothness=1.5), textured(1, 40, 1200)]
    mirrored = [image[:, ::-1] for image in images]
    assert as_lists(related_pairs(thumbnails_of(*images, *mirrored))) == [[0, 2], [1, 3]]


def test_equal_images_give_linearly_many_pairs() -> None:
    thumbnail = make_thumbnail(textured(0))
    other = make_thumbnail(textured(1))
    thumbnails = np.concatenate([np.repeat(thumbnail[None], 5000, axis=0), other[None]])
    pairs = related_pairs(thumbnails)
    assert as_lists(pairs) == [[0, row] for row in range(1, 5000)]
    assert np.bincount(groups(5001, pairs)).tolist() == [5000, 1]


def test_nearly_equal_images_give_one_group_of_boundedly_many_pairs() -> None:
    rng = np.random.default_rng(0)
    base = make_thumbnail(textured(0)).astype(int)
    noisy = np.clip(base + rng.integers(-3, 4, (200, *base.shape)), 0, 255).astype(np.uint8)
    pairs = related_pairs(noisy)
    assert 199 <= len(pairs) <= 200 * verification.FITTING_NEAREST
    assert groups(200, pairs).max() == 0


def test_two_groups_of_copies_that_keep_to_themselves_are_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The nearest partners of each image are those of its own group, so that the first search pairs no others."""
    monkeypatch.setattr(duplicates, "NEAREST", 4)
    monkeypatch.setattr(verification, "ALWAYS", 0)
    monkeypatch.setattr(proposal, "_ALWAYS", 1)
    rng = np.random.default_rng(0)
    base = make_thumbnail(textured(0)).astype(int)
    copies = np.clip(base + rng.integers(-2, 3, (12, *base.shape)), 0, 255).astype(np.uint8)
    others = np.rint(255 * (copies / 255) ** 0.5).astype(np.uint8)[:, :, ::-1]
    thumbnails = np.concatenate([copies, others])
    first = duplicates.search(extract_features(thumbnails), None)
    assert groups(24, first.related).tolist() == [0] * 12 + [1] * 12
    assert groups(24, related_pairs(thumbnails)).max() == 0


def test_queries_with_equal_thumbnails_all_get_their_matches() -> None:
    a, b, c = textured(0), textured(1), textured(2)
    query, reference = thumbnails_of(a, c, a, b), thumbnails_of(b, a[:, ::-1], a)
    assert as_lists(related_of(query, reference)) == [[0, 1], [0, 2], [2, 1], [2, 2], [3, 0]]


def test_the_search_is_deterministic_and_thumbnails_pickle(originals: list[np.ndarray]) -> None:
    both = thumbnails_of(*originals, *[image[:, ::-1] for image in originals])
    again = pickle.loads(pickle.dumps(both))
    np.testing.assert_array_equal(related_pairs(both), related_pairs(again))


def test_chunks_do_not_change_the_result(originals: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    both = thumbnails_of(*originals, *[image[:, ::-1] for image in originals])
    whole = related_pairs(both)
    monkeypatch.setattr(batches, "_CHUNK", 7)
    np.testing.assert_array_equal(related_pairs(both), whole)


def test_groups_are_connected_components_in_order_of_appearance() -> None:
    pairs = np.array([[4, 5], [1, 3], [3, 5]])
    assert groups(7, pairs).tolist() == [0, 1, 2, 1, 1, 1, 3]


def test_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(grouping) == (0, 2)


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


def test_the_bench_counts_by_hand() -> None:
    # images 0 1 2 3 of subjects 0 0 1 1, and 1 has the thumbnail of 0; copies 0 (of 0), 1 (of 2) and 2 (of 3)
    pairs = np.array([[0, 1], [1, 0], [1, 3]])
    result = bench.score(pairs, np.array([0, 2, 3]), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]))
    assert result.found == pytest.approx(1 / 3)  # copy 0; copy 1 hangs on the wrong images, copy 2 on none
    assert result.wrong == pytest.approx(1 / 6)  # 1-0, of the 3 x 2 pairs of different subjects


def test_two_searches_differ_if_a_pair_or_a_score_differs() -> None:
    def matches(pairs: list[list[int]], *scores: float) -> duplicates.Matches:
        return duplicates.Matches(np.array(pairs), np.array(scores, np.float32))

    forth = matches([[0, 1], [0, 2], [3, 1]], 0.9, 1.0, 0.95)
    assert bench.same_pairs(forth, matches([[1, 0], [1, 3], [2, 0]], 0.9, 0.95, 1.0))
    assert not bench.same_pairs(forth, matches([[1, 0], [1, 3], [2, 0]], 0.9, 1.0, 0.95))
    assert not bench.same_pairs(forth, matches([[1, 0], [1, 3], [2, 1]], 0.9, 0.95, 1.0))


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
    sources = np.sort(rng.choice(count, planted, replace=False))
    for kind in ("re-encoded at quality 40", "rotated by ±2°", "cropped by 3 %", "all six", "inverted"):
        copies = [np.asarray(bench.KINDS[kind](Image.fromarray(pictures[source]), rng)) for source in sources]
        found = near_duplicates_of(thumbnails_of(*copies), reference)
        related, copied = (
            bench.score(pairs, sources, labels, np.arange(count)) for pairs in (found.related, found.copies)
        )
        assert related.found >= 0.99, kind
        assert copied.found >= 0.95, kind
        assert copied.wrong < 0.001
