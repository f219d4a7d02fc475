"""Altair charts of the data, drawn from the API's aggregates."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from lesion.core.palette import PALETTE
from serve.ui.charts import style
from serve.ui.charts.style import Figure, color_scale, data_chart, name_axis, tooltips

SPLITS = {
    "train": "training",
    "val": "model selection",
    "calibration": "calibration",
    "gate": "model comparison",
    "excluded": "left out",
}
OUTCOMES = {"accepted": "accepted", "quarantined": "in quarantine", "rejected": "refused"}
_MOST_SIZES = 10  # image sizes with a bar of their own
_MOST_DAYS = 92  # with more days than this, bars are months


def class_counts(classes: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw how many images each class has, by what they are used for."""
    rows = [
        {"label": row["label"], "use": use, "images": row["splits"].get(split, 0), "order": order}
        for row in classes
        for order, (split, use) in enumerate(SPLITS.items())
        if row["splits"].get(split, 0)
    ]
    return data_chart(rows, height=style.bars_height(len(classes), len(SPLITS))).encode(
        name_axis(order=[row["label"] for row in classes]),
        alt.X("images:Q", title="Images", axis=style.TICKS),
        color_scale("use", SPLITS.values()),
        order=alt.Order("order:Q"),
        tooltip=tooltips("label", "use", images=","),
    )


def class_shares(classes: Sequence[Mapping[str, Any]], total: int | None = None) -> Figure:
    """Draw the share of all images that each class has, and a line at the share if all ``total`` classes were equal."""
    rows = [{"label": row["label"], "share": row["share"]} for row in classes]
    base = data_chart(rows).encode(
        name_axis(order=[row["label"] for row in classes]),
        alt.X("share:Q", title="Share of all images", axis=style.PERCENT_TICKS),
        tooltip=tooltips("label", share=".1%"),
    )
    text = alt.Text("share:Q", format=".1%")
    long = 0.2 * max((row["share"] for row in rows), default=0)  # bars from this share on have room for their text
    inside = base.mark_text(align="right", dx=-6, color="white").encode(text=text)
    outside = base.mark_text(align="left", dx=6, color=style.INK).encode(text=text)
    even = data_chart([{"share": 1 / max(1, total or len(rows))}])
    chart = alt.layer(
        base.mark_bar(color=PALETTE[0]),
        inside.transform_filter(f"datum.share >= {long}"),
        outside.transform_filter(f"datum.share < {long}"),
        even.mark_rule(color=PALETTE[1], strokeDash=[4, 3]).encode(alt.X("share:Q")),
    )
    return chart.properties(height=style.bars_height(len(classes)))


def brightness_boxes(classes: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw a box plot for each class from its quantiles: minimum, quartiles, median and maximum."""
    fields = ("images", "low", "q1", "median", "q3", "high")
    rows = [{name: row[name] for name in ("label", *fields)} for row in classes if row["images"]]
    numbers = dict.fromkeys(fields, ",.0f")
    base = data_chart(rows).encode(
        name_axis(order=[row["label"] for row in rows]), tooltip=tooltips("label", **numbers)
    )

    def x_axis(field: str) -> alt.X:
        title = "Mean brightness of an image (0 black, 255 white)"
        return alt.X(f"{field}:Q", scale=alt.Scale(domain=[0, 255]), title=title)

    whisker = base.mark_rule(color=style.GRAY, strokeWidth=2).encode(x_axis("low"), alt.X2("high:Q"))
    box = base.mark_bar(color=PALETTE[5], size=16).encode(x_axis("q1"), alt.X2("q3:Q"))
    middle = base.mark_tick(color=PALETTE[1], thickness=3, size=16).encode(x_axis("median"))
    return alt.layer(whisker, box, middle).properties(height=style.bars_height(len(rows)))


def resolution_bars(sizes: Sequence[Mapping[str, Any]], other_images: int) -> Figure:
    """Draw how many images have each of the most frequent sizes, and how many have any other size."""
    rows = [{"size": f"{row['width']} × {row['height']}", "images": row["images"]} for row in sizes[:_MOST_SIZES]]
    if rest := other_images + sum(row["images"] for row in sizes[_MOST_SIZES:]):
        rows.append({"size": "any other", "images": rest})
    return data_chart(rows, height=style.bars_height(len(rows))).encode(
        name_axis(field="size", order=[row["size"] for row in rows]),
        alt.X("images:Q", title="Images", axis=style.TICKS),
        color=alt.value(PALETTE[0]),
        tooltip=tooltips("size", images=","),
    )


def duplicate_bars(classes: Sequence[Mapping[str, Any]], grouped_images: Mapping[str, int]) -> Figure:
    """Draw which share of each class's images belongs to a group of several images."""
    rows = []
    for row in classes:
        images = grouped_images.get(row["label"], 0)
        if row["images"]:
            rows.append({"label": row["label"], "images": images, "share": images / row["images"]})
    return data_chart(rows, height=style.bars_height(len(rows))).encode(
        name_axis(order=[row["label"] for row in rows]),
        alt.X("share:Q", title="Share in groups", scale=style.UNIT, axis=style.PERCENT_TICKS),
        color=alt.value(PALETTE[3]),
        tooltip=tooltips("label", images=",", share=".1%"),
    )


def leakage_bars(classes: Mapping[str, Mapping[str, int]]) -> Figure:
    """Draw how many test images of the data's own split have a near-duplicate in its training split, by class."""
    kinds = ("with a near-duplicate", "without")
    rows = [
        {"label": label, "kind": kind, "images": images}
        for label, row in classes.items()
        for kind, images in zip(kinds, (row["leaked"], row["test"] - row["leaked"]), strict=True)
    ]
    return data_chart(rows, height=style.bars_height(len(classes), len(kinds))).encode(
        name_axis(order=list(classes)),
        alt.X("images:Q", title="Test images", axis=style.TICKS),
        color_scale("kind", kinds, (PALETTE[1], PALETTE[5])),
        tooltip=tooltips("label", "kind", images=","),
    )


def upload_bars(days: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw how many files were uploaded on each day, by outcome; of many days, in each month."""
    unit, date_format, title = ("yearmonthdate", "%d %b", "Day")
    if len(days) > _MOST_DAYS:
        unit, date_format, title = ("yearmonth", "%b %Y", "Month")
    rows = [
        {"day": day["day"], "outcome": outcome, "files": day[name]}
        for day in days
        for name, outcome in OUTCOMES.items()
        if day[name]
    ]
    date = alt.Tooltip(f"utc{unit}(day):T", title=title.lower(), format=date_format)
    return data_chart(rows, height=style.plot_height(160, len(OUTCOMES))).encode(
        alt.X(f"utc{unit}(day):T", title=f"{title} (UTC)", axis=alt.Axis(format=date_format, labelOverlap=True)),
        alt.Y("sum(files):Q", title="Files", axis=alt.Axis(tickMinStep=1)),
        color_scale("outcome", OUTCOMES.values(), (PALETTE[2], PALETTE[4], PALETTE[1])),
        tooltip=[date, "outcome:N", alt.Tooltip("sum(files):Q", title="files", format=",")],
    )
