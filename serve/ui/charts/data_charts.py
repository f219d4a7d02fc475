"""Altair charts of the data, from the API's aggregates; colours of the report, sizes that fit a phone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

# Okabe and Ito's colours, which people of any colour vision tell apart; the report's order.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
GREY = "#808495"  # to be read on white and on black
SPLITS = {"train": "learned from", "val": "for choosing", "calibration": "for calibrating", "gate": "for judging"}
SPLITS |= {"excluded": "left out"}
OUTCOMES = {"accepted": "accepted", "quarantined": "in quarantine", "rejected": "refused"}
_ROW, _NAME = 30, 130  # pixels of a bar and of the longest name
_SIZES, _DAYS = 10, 92  # bars at most

Row = dict[str, Any]
Figure = alt.Chart | alt.LayerChart | alt.FacetChart


def rows_of(rows: Sequence[Row], *times: str) -> pd.DataFrame:
    """Return rows as a chart's data; ``times`` are the columns that hold moments."""
    table = pd.DataFrame(list(rows))
    for name in times if rows else ():
        table[name] = pd.to_datetime(table[name], utc=True)
    return table


def names(title: str | None = None, field: str = "label", order: Sequence[str] | None = None) -> alt.Y:
    """Return an axis of names, the first one on top, long ones cut."""
    return alt.Y(f"{field}:N", sort=order, title=title, axis=alt.Axis(labelLimit=_NAME, ticks=False))


def colours(field: str, order: Iterable[str], picked: Sequence[str] = PALETTE) -> alt.Color:
    """Return the palette's colours for names, explained below the chart."""
    scale = alt.Scale(domain=list(order), range=list(picked))
    return alt.Color(f"{field}:N", scale=scale, legend=alt.Legend(title=None, orient="bottom", columns=2))


def high(plot: int, entries: int = 0) -> int:
    """Return the height of a chart: of the plot, its axis and its legend with so many entries."""
    return plot + 75 + (75 + 22 * math.ceil(entries / 2) if entries else 0)


def tall(bars: int, entries: int = 0) -> int:
    """Return the height of a chart with so many bars, and so many entries in its legend."""
    return high(_ROW * max(2, bars), entries)


def class_counts(classes: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw how many images each class has, and what they are for."""
    rows = [
        {"label": row["label"], "use": words, "images": row["splits"].get(split, 0), "order": order}
        for row in classes
        for order, (split, words) in enumerate(SPLITS.items())
        if row["splits"].get(split, 0)
    ]
    chart: Figure = (
        alt.Chart(rows_of(rows))
        .mark_bar()
        .encode(
            names(order=[row["label"] for row in classes]),
            alt.X("images:Q", title="Images", axis=alt.Axis(tickCount=5)),
            colours("use", SPLITS.values()),
            order=alt.Order("order:Q"),
            tooltip=["label:N", "use:N", alt.Tooltip("images:Q", format=",")],
        )
        .properties(height=tall(len(classes), len(SPLITS)))
    )
    return chart


def class_shares(classes: Sequence[Mapping[str, Any]], total: int | None = None) -> Figure:
    """Draw classes' shares of all images, beside the share that each would have if all, ``total`` or these, were equal.

    Args:
        classes: Those to draw.
        total: How many there are.
    """
    rows = [{"label": row["label"], "share": row["share"]} for row in classes]
    base = alt.Chart(rows_of(rows)).encode(
        names(order=[row["label"] for row in classes]),
        alt.X("share:Q", title="Share of all images", axis=alt.Axis(format=".0%", tickCount=5)),
        tooltip=["label:N", alt.Tooltip("share:Q", format=".1%")],
    )
    written = alt.Text("share:Q", format=".1%")
    enough = 0.2 * max((row["share"] for row in rows), default=0)  # of the longest bar, to write inside it
    inside = base.mark_text(align="right", dx=-6, color="white").encode(text=written)
    beside = base.mark_text(align="left", dx=6, color=GREY).encode(text=written)
    even = alt.Chart(rows_of([{"share": 1 / max(1, total or len(rows))}])).mark_rule(
        color=PALETTE[1], strokeDash=[4, 3]
    )
    chart = alt.layer(
        base.mark_bar(color=PALETTE[0]),
        inside.transform_filter(f"datum.share >= {enough}"),
        beside.transform_filter(f"datum.share < {enough}"),
        even.encode(alt.X("share:Q")),
    )
    return chart.properties(height=tall(len(classes)))


def brightness_boxes(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw a box plot a class from its quantiles: least and most, middle half, median."""
    kept = ("label", "images", "low", "q1", "median", "q3", "high")
    found = [{name: row[name] for name in kept} for row in rows if row["images"]]
    tooltip = [alt.Tooltip("label:N"), *(alt.Tooltip(f"{name}:Q", format=",.0f") for name in kept[1:])]
    base = alt.Chart(rows_of(found)).encode(names(order=[row["label"] for row in found]), tooltip=tooltip)
    scale = alt.Scale(domain=[0, 255])
    title = "Mean brightness of an image (0 black, 255 white)"
    whisker = base.mark_rule(color=GREY, strokeWidth=2).encode(
        alt.X("low:Q", scale=scale, title=title), alt.X2("high:Q")
    )
    box = base.mark_bar(color=PALETTE[5], size=16).encode(alt.X("q1:Q", scale=scale, title=title), alt.X2("q3:Q"))
    middle = base.mark_tick(color=PALETTE[1], thickness=3, size=16).encode(alt.X("median:Q", scale=scale, title=title))
    return alt.layer(whisker, box, middle).properties(height=tall(len(found)))


def resolution_bars(rows: Sequence[Mapping[str, Any]], others: int) -> Figure:
    """Draw how many images have each of the most frequent sizes, and how many any other one."""
    found = [{"size": f"{row['width']} × {row['height']}", "images": row["images"]} for row in rows[:_SIZES]]
    if rest := others + sum(row["images"] for row in rows[_SIZES:]):
        found.append({"size": "any other", "images": rest})
    return _bars(found, "size", "Images")


def duplicate_bars(classes: Sequence[Mapping[str, Any]], found: Mapping[str, int]) -> Figure:
    """Draw what share of each class's images belongs to a group of several."""
    rows = [
        {
            "label": row["label"],
            "images": found.get(row["label"], 0),
            "share": found.get(row["label"], 0) / row["images"],
        }
        for row in classes
        if row["images"]
    ]
    chart: Figure = (
        alt.Chart(rows_of(rows))
        .mark_bar(color=PALETTE[3])
        .encode(
            names(order=[row["label"] for row in rows]),
            alt.X(
                "share:Q",
                title="Share in groups",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format=".0%", tickCount=5),
            ),
            tooltip=["label:N", alt.Tooltip("images:Q", format=","), alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(height=tall(len(rows)))
    )
    return chart


def leakage_bars(found: Mapping[str, Mapping[str, int]]) -> Figure:
    """Draw how many images of the data's own test split have a near-duplicate in its training split, by class."""
    kinds = ("with a near-duplicate", "without")
    rows = [
        {"label": label, "kind": kind, "images": images}
        for label, row in found.items()
        for kind, images in zip(kinds, (row["leaked"], row["test"] - row["leaked"]), strict=True)
    ]
    chart: Figure = (
        alt.Chart(rows_of(rows))
        .mark_bar()
        .encode(
            names(order=list(found)),
            alt.X("images:Q", title="Test images", axis=alt.Axis(tickCount=5)),
            colours("kind", kinds, (PALETTE[1], PALETTE[5])),
            tooltip=["label:N", "kind:N", alt.Tooltip("images:Q", format=",")],
        )
        .properties(height=tall(len(found), len(kinds)))
    )
    return chart


def upload_bars(days: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw how many files came on each day, or month where there are many days, and what became of them."""
    unit, form, title = ("yearmonthdate", "%d %b", "Day") if len(days) <= _DAYS else ("yearmonth", "%b %Y", "Month")
    rows = [
        {"day": day["day"], "outcome": words, "files": day[name]}
        for day in days
        for name, words in OUTCOMES.items()
        if day[name]
    ]
    chart: Figure = (
        alt.Chart(rows_of(rows, "day"))
        .mark_bar()
        .encode(
            alt.X(f"utc{unit}(day):T", title=f"{title} (UTC)", axis=alt.Axis(format=form, labelOverlap=True)),
            alt.Y("sum(files):Q", title="Files", axis=alt.Axis(tickMinStep=1)),
            colours("outcome", OUTCOMES.values(), (PALETTE[2], PALETTE[4], PALETTE[1])),
            tooltip=[
                alt.Tooltip(f"utc{unit}(day):T", title=title.lower(), format=form),
                "outcome:N",
                alt.Tooltip("sum(files):Q", title="files", format=","),
            ],
        )
        .properties(height=high(160, len(OUTCOMES)))
    )
    return chart


def _bars(rows: list[Row], field: str, title: str) -> Figure:
    chart: Figure = (
        alt.Chart(rows_of(rows))
        .mark_bar(color=PALETTE[0])
        .encode(
            names(field=field, order=[row[field] for row in rows]),
            alt.X("images:Q", title=title, axis=alt.Axis(tickCount=5)),
            tooltip=[f"{field}:N", alt.Tooltip("images:Q", format=",")],
        )
        .properties(height=tall(len(rows)))
    )
    return chart
