"""Rows as a table of text."""

from collections.abc import Mapping, Sequence
from typing import Any


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows with the columns of the first row, aligned; a single row becomes one line per column."""
    if not rows:
        print("There is nothing yet.")
        return
    cells = [[_text(value) for value in row.values()] for row in rows]
    names = list(rows[0])
    table = [list(pair) for pair in zip(names, cells[0], strict=True)] if len(rows) == 1 else [names, *cells]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)
