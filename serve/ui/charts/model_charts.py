"""Altair charts of a model's scores, of a training run and of the server's requests, drawn from the API's JSON."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import altair as alt

from lesion.core.palette import PALETTE
from serve.ui.charts import style
from serve.ui.charts.style import Figure, color_scale, data_chart, name_axis, tooltips

MOST_CURVES = len(PALETTE)
SHADES = ("#eaf2f8", PALETTE[0])  # of a cell of the confusion matrix, from no to all images of a class
WHITE_FROM = 0.92  # the share from which white stands out from the shade more than black
MOST_LABELED = 8  # with more classes than this, the cells of a matrix are too small for numbers
_CURVE_AXES = {"roc": ("False positive rate", "True positive rate"), "pr": ("Recall", "Precision")}
_CALIBRATION = {"before": "before calibration", "after": "after calibration"}
_OUTCOMES = {"answered": "answered", "client_errors": "refused", "server_errors": "failed"}
_QUANTILES = {"p50_ms": "half within", "p95_ms": "95 of 100 within", "p99_ms": "99 of 100 within"}
_MODELS = ("champion", "challenger")
_SQUARE, _LOW = 260, 160  # pixels of a plot
_MINUTE = "utcyearmonthdatehoursminutes(at):T"
_MINUTE_TOOLTIP = alt.Tooltip(_MINUTE, title="minute", format="%H:%M")


def confusion(
    matrix: Sequence[Sequence[int]], classes: Sequence[str], predicted: Sequence[str] | None = None
) -> Figure:
    """Draw how many images of each class (rows) were predicted as which class (columns), shaded by share of the row."""
    columns = classes if predicted is None else predicted
    rows = [
        {"labeled": label, "predicted": column, "images": images, "share": images / max(1, sum(counts))}
        for label, counts in zip(classes, matrix, strict=True)
        for column, images in zip(columns, counts, strict=True)
    ]
    axis = alt.Axis(labelLimit=90, ticks=False, labelAngle=-40)
    base = data_chart(rows).encode(
        alt.X("predicted:N", sort=list(columns), title="Predicted", axis=axis),
        name_axis("Labeled", "labeled", list(classes)),
        tooltip=tooltips("labeled", "predicted", images=",", share=".1%"),
    )
    scale = alt.Scale(domain=[0, 1], range=[*SHADES], interpolate="rgb")
    shade = alt.Color("share:Q", scale=scale, legend=None)
    layers = [base.mark_rect(stroke="white").encode(shade)]
    if len(classes) <= MOST_LABELED:
        ink = alt.condition(f"datum.share > {WHITE_FROM}", alt.value("white"), alt.value("black"))
        for field, number_format, dy in (("images", ",", -7), ("share", ".0%", 8)):
            layers.append(base.mark_text(dy=dy).encode(color=ink, text=alt.Text(f"{field}:Q", format=number_format)))
    return alt.layer(*layers).properties(height=style.plot_height(max(200, min(60 * len(classes), 600))) + 40)


def curves(points: Mapping[str, Mapping[str, Sequence[float]]], kind: str, classes: Sequence[str]) -> Figure:
    """Draw the ``roc`` or ``pr`` curves of some classes, each class against all others."""
    x_title, y_title = _CURVE_AXES[kind]
    rows = [
        {"label": label, "x": x, "y": y, "order": order}
        for label in classes
        if label in points
        for order, (x, y) in enumerate(zip(points[label]["x"], points[label]["y"], strict=True))
    ]
    numbers = [alt.Tooltip(f"{axis}:Q", title=title, format=".3f") for axis, title in (("x", x_title), ("y", y_title))]
    mark = alt.MarkDef(type="line", interpolate="linear" if kind == "roc" else "step-after", strokeWidth=2)
    line = data_chart(rows, mark).encode(
        alt.X("x:Q", title=x_title, scale=style.UNIT, axis=style.TICKS),
        alt.Y("y:Q", title=y_title, scale=style.UNIT, axis=style.TICKS),
        color_scale("label", classes),
        order=alt.Order("order:Q"),
        tooltip=["label:N", *numbers],
    )
    layers = [_diagonal(), line] if kind == "roc" else [line]
    return alt.layer(*layers).properties(height=style.plot_height(_SQUARE, len(classes)))


def reliability(bins: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw the share of right answers against the stated confidence, before and after calibration.

    A line through each bin shows how far chance alone moves it if the model is calibrated; bundles of older versions do
    not say that.
    """
    rows = [
        {"calibration": words} | {name: row.get(name) for name in ("confidence", "accuracy", "images", "low", "high")}
        for stage, words in _CALIBRATION.items()
        for row in bins[stage]
        if row["images"]
    ]
    base = data_chart(rows).encode(
        alt.X("confidence:Q", title="Confidence of the answer", scale=style.UNIT, axis=style.TICKS),
        alt.Y("accuracy:Q", title="Share of right answers", scale=style.UNIT, axis=style.TICKS),
        color_scale("calibration", _CALIBRATION.values(), (PALETTE[1], PALETTE[0])),
        tooltip=tooltips("calibration", confidence=".1%", accuracy=".1%", images=","),
    )
    size = alt.Size("images:Q", scale=alt.Scale(range=[30, 400]), legend=None)
    chance = base.mark_rule(opacity=0.6).encode(
        alt.Y("low:Q", title="Share of right answers", scale=style.UNIT, axis=style.TICKS), alt.Y2("high:Q")
    )
    layers = (_diagonal(), chance, base.mark_line(opacity=0.5), base.mark_circle(opacity=0.8).encode(size))
    return alt.layer(*layers).properties(height=style.plot_height(_SQUARE, len(_CALIBRATION)))


def recalls(classes: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw each class's recall by the champion and by the challenger, from the ``recalls`` of a comparison."""
    rows = [
        {"label": row["label"], "model": model, "recall": row[model], "images": row["images"]}
        for row in classes
        for model in _MODELS
        if row[model] is not None
    ]
    return data_chart(rows, height=style.bars_height(2 * len(classes), len(_MODELS))).encode(
        name_axis(order=[row["label"] for row in classes]),
        alt.X("recall:Q", title="Share of the class that is recognized", scale=style.UNIT, axis=style.PERCENT_TICKS),
        color_scale("model", _MODELS, (PALETTE[5], PALETTE[1])),
        yOffset=alt.YOffset("model:N", sort=list(_MODELS)),
        tooltip=tooltips("label", "model", recall=".1%", images=","),
    )


def epochs(rows: Sequence[dict[str, Any]], title: str, names: Sequence[str]) -> Figure:
    """Draw curves by epoch from rows of ``Epoch``, ``Curve`` and a value under the title."""
    return data_chart(rows, style.LINE, height=style.plot_height(_LOW, len(names))).encode(
        alt.X("Epoch:Q", axis=alt.Axis(tickMinStep=1, format="d")),
        alt.Y(f"{title}:Q", scale=alt.Scale(zero=False), axis=style.TICKS),
        color_scale("Curve", names),
    )


def requests(minutes: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw how many requests came in each minute, and how many of them were refused or failed."""
    rows = []
    for minute in minutes:
        answered = minute["requests"] - minute["client_errors"] - minute["server_errors"]
        counts = {**minute, "answered": answered}
        rows += [{"at": minute["at"], "kind": words, "requests": counts[kind]} for kind, words in _OUTCOMES.items()]
    return data_chart(rows, height=style.plot_height(_LOW, len(_OUTCOMES))).encode(
        _last_hour(minutes),
        alt.Y("requests:Q", title="Requests per minute", axis=alt.Axis(tickMinStep=1)),
        color_scale("kind", _OUTCOMES.values(), (PALETTE[0], PALETTE[4], PALETTE[1])),
        tooltip=[_MINUTE_TOOLTIP, *tooltips("kind", requests=",")],
    )


def latencies(minutes: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw how fast requests were answered in each minute; minutes without requests leave gaps."""
    rows = [
        {"at": minute["at"], "share": words, "ms": minute[name]}
        for minute in minutes
        for name, words in _QUANTILES.items()
        if minute[name] is not None
    ]
    return data_chart(rows, style.LINE, height=style.plot_height(_LOW, len(_QUANTILES))).encode(
        _last_hour(minutes),
        alt.Y("ms:Q", title="Milliseconds", scale=alt.Scale(type="log"), axis=alt.Axis(grid=False)),
        color_scale("share", _QUANTILES.values(), (PALETTE[2], PALETTE[4], PALETTE[1])),
        tooltip=[_MINUTE_TOOLTIP, *tooltips("share", ms=",.1f")],
    )


def _last_hour(minutes: Sequence[Mapping[str, Any]]) -> alt.X:
    """Return an axis that always spans the hour up to the last minute, also when the server has just started."""
    last = max((datetime.fromisoformat(minute["at"]) for minute in minutes), default=datetime.fromtimestamp(0, UTC))
    end = last + timedelta(minutes=1)
    # As text: Streamlit has Vega interpret its expressions, which would read a number of milliseconds as a year.
    scale = alt.Scale(domain=[(end - timedelta(hours=1)).isoformat(), end.isoformat()])
    axis = alt.Axis(format="%H:%M", labelOverlap=True, tickCount=6)
    return alt.X(_MINUTE, title="Time (UTC)", axis=axis, scale=scale)


def _diagonal() -> alt.Chart:
    mark = alt.MarkDef(type="line", color=style.GRAY, strokeDash=[4, 4], strokeWidth=1)
    return data_chart([{"x": 0, "y": 0}, {"x": 1, "y": 1}], mark).encode(alt.X("x:Q"), alt.Y("y:Q"))
