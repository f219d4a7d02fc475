"""The index that grows: the verdicts of the search over all, image by image."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from lesion.deduplication import duplicate_index
from lesion.deduplication.duplicate_index import DuplicateIndex
from lesion.deduplication.duplicates import near_duplicates_of
from lesion.deduplication.features import Features, extract_features, make_thumbnail
from tests.support.images.duplicates import as_lists, bench, textured, thumbnails_of

KINDS = ("re-encoded at quality 40", "mirrored", "cropped by 3 %", "all six")


def filled(images: list[np.ndarray], page: int) -> DuplicateIndex:
    index = DuplicateIndex()
    for start in range(0, len(images), page):
        index.add(
            thumbnails_of(*images[start : start + page]),
            [str(start + row) for row in range(len(images[start:][:page]))],
        )
    return index


@pytest.mark.parametrize("page", [1, 4, 100])
def test_the_verdicts_are_those_of_the_search_over_all(page: int) -> None:
    rng = np.random.default_rng(1)
    originals = [textured(seed) for seed in range(14)]
    copies = [np.asarray(bench.KINDS[kind](Image.fromarray(image), rng)) for image in originals[:6] for kind in KINDS]
    reference = [*originals[:3], *copies, *originals[3:]]
    index = filled(reference, page)
    assert len(index) == len(reference)
    queries = [*originals, *copies[:5], textured(99), np.zeros((64, 64, 3), np.uint8)]
    matches = near_duplicates_of(thumbnails_of(*queries), thumbnails_of(*reference))
    expected = as_lists(matches.copies)
    answers = [index.query(make_thumbnail(query)) for query in queries]
    assert [[row, int(key)] for row, answer in enumerate(answers) for key in answer.copies] == expected
    both = [[row, int(key)] for row, answer in enumerate(answers) for key in answer.copies + answer.related]
    assert sorted(both) == as_lists(matches.related)
    assert len(expected) > 6 * len(KINDS)


def test_images_with_equal_thumbnails_are_all_named() -> None:
    index = DuplicateIndex()
    one, other = textured(0), textured(1)
    index.add(thumbnails_of(one, other, one), ["a", "b", "c"])
    index.add(thumbnails_of(one), ["d"])
    assert index.query(make_thumbnail(one)).copies == ["a", "c", "d"]
    assert index.query(make_thumbnail(one[:, ::-1])).copies == ["a", "c", "d"]
    assert index.query(make_thumbnail(other)).copies == ["b"]


def test_a_search_is_continued_where_it_ended() -> None:
    index = DuplicateIndex()
    images = [textured(seed) for seed in range(4)]
    query = make_thumbnail(images[0])
    index.add(thumbnails_of(images[0], images[1]), ["a", "b"])
    first = index.find(query)
    index.add(thumbnails_of(images[2], images[0][:, ::-1], images[0], images[3]), ["c", "d", "e", "f"])
    assert first.searched == 2
    assert sorted(index.names(first).copies) == ["a", "e"]  # an equal picture is found without a search
    continued = index.find(query, first)
    assert continued.searched == 5
    assert sorted(index.names(continued).copies) == sorted(index.query(query).copies) == ["a", "d", "e"]
    assert index.find(query, continued) is continued


def test_threads_add_and_search_at_the_same_time() -> None:
    index = DuplicateIndex()
    images = [textured(seed) for seed in range(40)]

    def put_and_find(seed: int) -> list[str]:
        thumbnail = make_thumbnail(images[seed])
        before = index.find(thumbnail)
        index.add(thumbnail[None], [str(seed)])
        return index.names(index.find(thumbnail, before)).copies

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(put_and_find, range(40)))
    assert answers == [[str(seed)] for seed in range(40)]
    assert [index.query(make_thumbnail(image)).copies for image in images] == answers


def test_nothing_and_blank_images_match_nothing() -> None:
    index = DuplicateIndex()
    blank = np.zeros((64, 64, 3), np.uint8)
    assert index.query(make_thumbnail(textured(0))) == ([], [])
    index.add(thumbnails_of(blank), ["a"])
    assert index.query(make_thumbnail(blank)) == ([], [])
    assert len(index) == 1


def test_a_query_computes_the_features_of_its_own_image_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    thumbnails = thumbnails_of(*(textured(seed) for seed in range(9)))
    index = DuplicateIndex()
    index.add(thumbnails, [str(row) for row in range(9)])
    computed = []

    def counted(thumbnails: np.ndarray) -> Features:
        computed.append(len(thumbnails))
        return extract_features(thumbnails)

    monkeypatch.setattr(duplicate_index, "extract_features", counted)
    assert index.query(thumbnails[5][:, ::-1]) == (["5"], [])
    assert computed == [1]
