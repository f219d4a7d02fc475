"""Colors, axes, tooltips and sizes that all charts share; the sizes fit a phone."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import altair as alt
import pandas as pd

from lesion.core.palette import PALETTE

GRAY = "#808495"  # of lines, which it draws on light and on dark pages
INK = "currentColor"  # of text on the page: that of the page's text, in either mode
UNIT = alt.Scale(domain=[0, 1])
TICKS = alt.Axis(tickCount=5)
PERCENT_TICKS = alt.Axis(format=".0%", tickCount=5)
LINE = alt.MarkDef(type="line", point=True)
_TIMES = ("at", "day")  # columns that hold points in time
_BAR, _LONGEST_NAME = 30, 130  # pixels

Row = dict[str, Any]
Figure = alt.Chart | alt.LayerChart | alt.FacetChart


def data_chart(rows: Sequence[Row], mark: Literal["bar"] | alt.MarkDef = "bar", **settings: Any) -> alt.Chart:  # noqa: ANN401 - Altair's
    """Return a chart of rows without encodings; ``settings`` are Altair's, such as ``height``."""
    frame = pd.DataFrame(list(rows))
    for name in set(_TIMES) & set(frame.columns):
        frame[name] = pd.to_datetime(frame[name], utc=True)
    return alt.Chart(frame, mark=mark, **settings)


def name_axis(title: str | None = None, field: str = "label", order: Sequence[str] | None = None) -> alt.Y:
    """Return a vertical axis of names, the first one at the top; long names are cut."""
    return alt.Y(f"{field}:N", sort=order, title=title, axis=alt.Axis(labelLimit=_LONGEST_NAME, ticks=False))


def color_scale(field: str, names: Iterable[str], palette: Sequence[str] = PALETTE) -> alt.Color:
    """Return the colors of names, with a legend below the chart."""
    scale = alt.Scale(domain=list(names), range=list(palette))
    return alt.Color(f"{field}:N", scale=scale, legend=alt.Legend(title=None, orient="bottom", columns=2))


def tooltips(*names: str, **number_formats: str) -> list[alt.Tooltip]:
    """Return tooltips with names as they are, and numbers in the format given for their field."""
    numbers = [alt.Tooltip(f"{field}:Q", format=number_format) for field, number_format in number_formats.items()]
    return [alt.Tooltip(f"{name}:N") for name in names] + numbers


def plot_height(plot: int, legend_entries: int = 0) -> int:
    """Return the height of a chart in pixels: the plot, its axis and its legend."""
    return plot + 75 + (75 + 22 * math.ceil(legend_entries / 2) if legend_entries else 0)


def bars_height(bars: int, legend_entries: int = 0) -> int:
    """Return the height in pixels of a chart with horizontal bars, and perhaps a legend."""
    return plot_height(_BAR * max(2, bars), legend_entries)
