"""What is shown where there are too many classes to show: those that matter most, and that there are more."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

MOST = 30
Each = TypeVar("Each")


def first(rows: Sequence[Each], rank: Callable[[Each], Any], most: int = MOST) -> list[Each]:
    """Return all rows as they stand, or of too many those with the lowest rank, the lowest first."""
    return list(rows) if len(rows) <= most else sorted(rows, key=rank)[:most]


def cut(shown: int, total: int, which: str) -> str:
    """Say that only some classes are shown, and which; nothing where all are."""
    return f"Shown are the {shown} classes {which}, of {total:,}." if shown < total else ""
