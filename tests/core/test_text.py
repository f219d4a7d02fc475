"""Numbers and names in text, and the examples in docstrings."""

import doctest
from types import ModuleType

import pytest

from lesion.core import commands, text
from lesion.core.text import format_count, format_percent, join_names


@pytest.mark.parametrize("module", [commands, text])
def test_examples_in_docstrings_hold(module: ModuleType) -> None:
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [(0, "image", "0 images"), (1, "class", "1 class"), (2, "box", "2 boxes"), (1_000_000, "byte", "1,000,000 bytes")],
)
def test_a_count_has_the_right_plural(number: int, noun: str, words: str) -> None:
    assert format_count(number, noun) == words


@pytest.mark.parametrize(
    ("share", "decimals", "words"),
    [(0.0, 0, "0 %"), (1.0, 0, "100 %"), (0.994, 0, "99 %"), (0.004, 0, "under 1 %"), (0.9999, 2, "99.99 %"),
     (0.99999, 2, "over 99.99 %"), (0.0, 1, "0.0 %"), (1 / 3, 1, "33.3 %")],
)  # fmt: skip
def test_only_nothing_and_everything_are_written_as_0_and_100_percent(share: float, decimals: int, words: str) -> None:
    assert format_percent(share, decimals) == words


def test_a_list_of_names_is_bounded() -> None:
    assert join_names([]) == ""
    assert join_names(range(5)) == "0, 1, 2, 3, 4"
    assert join_names(range(6)) == "0, 1, 2, 3, 4 and 1 more"
    assert join_names(range(2005)) == "0, 1, 2, 3, 4 and 2,000 more"
