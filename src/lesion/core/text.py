"""Numbers and lists of names as text: the same in messages, in reports and on the page."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

MAX_NAME = 100  # letters of a name that are shown
# Equals, plus, minus and at, also as wide letters, at the start of a cell or behind what may separate cells.
_FORMULA = re.compile(r"(^|[;\t\r\n])(?=[\s\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20])")


def format_count(number: int, noun: str) -> str:
    """Write a number with its noun in the singular or plural.

    >>> format_count(1, "image"), format_count(1234, "image"), format_count(2, "class")
    ('1 image', '1,234 images', '2 classes')
    """
    plural = "" if number == 1 else "es" if noun.endswith(("s", "x")) else "s"
    return f"{number:,} {noun}{plural}"


def format_percent(share: float, decimals: int = 0) -> str:
    """Write a share in [0, 1] as a percentage; only exactly 0 and 1 are written as 0 % and 100 %.

    >>> format_percent(0.25), format_percent(0.999), format_percent(0.0004, 1), format_percent(1.0, 1)
    ('25 %', 'over 99 %', 'under 0.1 %', '100.0 %')
    """
    step = 10.0**-decimals
    text = f"{100 * share:.{decimals}f}"
    if float(text) >= 100 and share < 1:
        text = f"over {100 - step:.{decimals}f}"
    elif float(text) <= 0 and share > 0:
        text = f"under {step:.{decimals}f}"
    return f"{text} %"


def natural_order(text: str) -> tuple[Any, ...]:
    """Return a key for sorting in which numbers within a text count as numbers.

    >>> sorted(["grade 10", "grade 2", "Grade 1"], key=natural_order)
    ['Grade 1', 'grade 2', 'grade 10']
    """
    parts = re.split(r"(\d+)", text.casefold())  # text and numbers take turns
    return *(int(part) if number % 2 else part for number, part in enumerate(parts)), text


def drop_hidden(text: str, kept: str = "") -> str:
    r"""Return a text without letters that control, hide or turn text, other than those in ``kept``.

    >>> drop_hidden("gl\u200bio\u202ema\n", kept="\n")
    'glioma\n'
    """
    return "".join(letter for letter in text if unicodedata.category(letter)[0] != "C" or letter in kept)


def clean_name(name: str, length: int = MAX_NAME) -> str:
    r"""Return a name from outside without letters that control, hide or turn text, cut in the middle if it is longer.

    >>> clean_name("scan\u202egnp.exe"), clean_name("a" * 300 + ".png", 9)
    ('scangnp.exe', 'aaaa….png')
    """
    shown = drop_hidden(name)
    if len(shown) <= length:
        return shown
    first, last = length // 2, length - length // 2 - 1
    return f"{shown[:first]}…{shown[-last:]}"


def defuse_formulas(text: str) -> str:
    """Put an apostrophe before what a spreadsheet would run as a formula, also where it splits cells at semicolons.

    >>> defuse_formulas("=1+1"), defuse_formulas("a; -2"), defuse_formulas("1 + 1 = 2")
    ("'=1+1", "a;' -2", '1 + 1 = 2')
    """
    return _FORMULA.sub(r"\1'", text)


def join_names(names: Iterable[object], limit: int = 5, quote: str = "") -> str:
    """List at most ``limit`` names for a sentence, and the number of further ones.

    >>> join_names(["a", "b", "c"], limit=2, quote="'")
    "'a', 'b' and 1 more"
    """
    listed = [f"{quote}{name}{quote}" for name in names]
    more = f" and {len(listed) - limit:,} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
