"""The Jinja templates of reports and model cards."""

import html
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


def load_template(name: str, *packages: str, autoescape: bool = True, **filters: Callable[..., str]) -> "Template":
    """Return a template from the first of the packages that has it, with ``filters`` besides ``number``.

    What it inserts is escaped for HTML unless ``autoescape`` is off, and a name without a value is an error.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined  # a server has no jinja2

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in packages]),
        autoescape=autoescape,  # noqa: S701 - by file name would leave a .j2 file unescaped
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _decimals, **filters}
    return environment.get_template(name)


def literal_markdown(text: str) -> str:
    """Return Markdown that shows a text literally, in one line: names come from others' folders and tables."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _decimals(value: float | None, digits: int = 3) -> str:
    """Write a number with fixed decimals; None and NaN become a dash."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"
