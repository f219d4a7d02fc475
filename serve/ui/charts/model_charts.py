"""Altair charts of a model's scores and of the server's work, from the API's JSON."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import altair as alt

from serve.ui.charts.data_charts import GREY, PALETTE, Figure, colours, high, names, rows_of, tall

MOST_CURVES = len(PALETTE)
WRITTEN = 8  # with more classes than this the cells of a matrix are too small for words
_CURVES = {
    "roc": ("False positive rate", "True positive rate"),
    "pr": ("Recall", "Precision"),
}
_STAGES = {"before": "before calibration", "after": "after calibration"}
_KINDS = {"answered": "answered", "client_errors": "refused", "server_errors": "failed"}
_QUANTILES = {"p50_ms": "half within", "p95_ms": "95 of 100 within", "p99_ms": "99 of 100 within"}
_SIDES = ("champion", "challenger")
_SQUARE, _LOW = 260, 160  # pixels of a plot
_UNIT = alt.Scale(domain=[0, 1])
_TICKS = alt.Axis(tickCount=5)


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], answers: Sequence[str] | None = None) -> Figure:
    """Draw how many images of each class (rows) got which answer (columns), shaded by their share of the row.

    Args:
        matrix: Images, a row a class.
        classes: The rows' names.
        answers: The columns' names, if they are not the classes again.
    """
    answers = classes if answers is None else answers
    rows = [
        {
            "labelled": labelled,
            "predicted": predicted,
            "images": images,
            "share": images / max(1, sum(counts)),
        }
        for labelled, counts in zip(classes, matrix, strict=True)
        for predicted, images in zip(answers, counts, strict=True)
    ]
    axis = alt.Axis(labelLimit=90, ticks=False, labelAngle=-40)
    base = alt.Chart(rows_of(rows)).encode(
        alt.X("predicted:N", sort=list(answers), title="Predicted", axis=axis),
        names("Labelled", "labelled", list(classes)),
        tooltip=[
            "labelled:N",
            "predicted:N",
            alt.Tooltip("images:Q", format=","),
            alt.Tooltip("share:Q", format=".1%"),
        ],
    )
    shade = alt.Color("share:Q", scale=alt.Scale(domain=[0, 1], range=["#eaf2f8", PALETTE[0]]), legend=None)
    layers = [base.mark_rect(stroke="white").encode(shade)]
    if len(classes) <= WRITTEN:
        ink = alt.condition("datum.share > 0.55", alt.value("white"), alt.value("#1d2530"))
        for field, form, dy in (("images", ",", -7), ("share", ".0%", 8)):
            layers.append(base.mark_text(dy=dy).encode(color=ink, text=alt.Text(f"{field}:Q", format=form)))
    return alt.layer(*layers).properties(height=high(max(200, min(60 * len(classes), 600))) + 40)


def curves(found: Mapping[str, Mapping[str, Sequence[float]]], kind: str, shown: Sequence[str]) -> Figure:
    """Draw the curves of some classes, ``roc`` or ``pr``, each class against all others."""
    across, up = _CURVES[kind]
    rows = [
        {"label": label, "x": x, "y": y, "order": order}
        for label in shown
        if label in found
        for order, (x, y) in enumerate(zip(found[label]["x"], found[label]["y"], strict=True))
    ]
    line = (
        alt.Chart(rows_of(rows))
        .mark_line(interpolate="linear" if kind == "roc" else "step-after", strokeWidth=2)
        .encode(
            alt.X("x:Q", title=across, scale=_UNIT, axis=_TICKS),
            alt.Y("y:Q", title=up, scale=_UNIT, axis=_TICKS),
            colours("label", shown),
            order=alt.Order("order:Q"),
            tooltip=[
                "label:N",
                alt.Tooltip("x:Q", title=across, format=".3f"),
                alt.Tooltip("y:Q", title=up, format=".3f"),
            ],
        )
    )
    return alt.layer(*([_diagonal()] if kind == "roc" else []), line).properties(height=high(_SQUARE, len(shown)))


def reliability(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw the share of right answers over the stated confidence, before and after calibration."""
    rows = [
        {
            "stage": words,
            "confidence": point["confidence"],
            "accuracy": point["accuracy"],
            "images": point["images"],
        }
        for stage, words in _STAGES.items()
        for point in found[stage]
        if point["images"]
    ]
    base = alt.Chart(rows_of(rows)).encode(
        alt.X("confidence:Q", title="Confidence of the answer", scale=_UNIT, axis=_TICKS),
        alt.Y("accuracy:Q", title="Share of right answers", scale=_UNIT, axis=_TICKS),
        colours("stage", _STAGES.values(), (PALETTE[1], PALETTE[0])),
        tooltip=[
            "stage:N",
            alt.Tooltip("confidence:Q", format=".1%"),
            alt.Tooltip("accuracy:Q", format=".1%"),
            alt.Tooltip("images:Q", format=","),
        ],
    )
    size = alt.Size("images:Q", scale=alt.Scale(range=[30, 400]), legend=None)
    points = base.mark_circle(opacity=0.8).encode(size)
    return alt.layer(_diagonal(), base.mark_line(opacity=0.5), points).properties(height=high(_SQUARE, len(_STAGES)))


def recalls(found: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw both models' recall of each class, from the ``recalls`` of a comparison."""
    rows = [
        {"label": row["label"], "model": side, "recall": row[side], "images": row["images"]}
        for row in found
        for side in _SIDES
        if row[side] is not None
    ]
    chart: Figure = (
        alt.Chart(rows_of(rows))
        .mark_bar()
        .encode(
            names(order=[row["label"] for row in found]),
            alt.X(
                "recall:Q",
                title="Share of the class that is recognised",
                scale=_UNIT,
                axis=alt.Axis(format=".0%", tickCount=5),
            ),
            colours("model", _SIDES, (PALETTE[5], PALETTE[1])),
            yOffset=alt.YOffset("model:N", sort=list(_SIDES)),
            tooltip=["label:N", "model:N", alt.Tooltip("recall:Q", format=".1%"), alt.Tooltip("images:Q", format=",")],
        )
        .properties(height=tall(2 * len(found), len(_SIDES)))
    )
    return chart


def requests(minutes: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw how many requests each minute brought, and how many of them were refused or failed."""
    rows = [
        {"at": minute["at"], "kind": words, "requests": _of_kind(minute, kind)}
        for minute in minutes
        for kind, words in _KINDS.items()
    ]
    chart: Figure = (
        alt.Chart(rows_of(rows, "at"))
        .mark_bar()
        .encode(
            _last_hour(minutes),
            alt.Y("requests:Q", title="Requests a minute", axis=alt.Axis(tickMinStep=1)),
            colours("kind", _KINDS.values(), (PALETTE[0], PALETTE[4], PALETTE[1])),
            tooltip=[_when(), "kind:N", alt.Tooltip("requests:Q", format=",")],
        )
        .properties(height=high(_LOW, len(_KINDS)))
    )
    return chart


def latencies(minutes: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw how fast requests were answered in each minute; minutes without requests leave gaps."""
    rows = [
        {"at": minute["at"], "share": words, "ms": minute[name]}
        for minute in minutes
        for name, words in _QUANTILES.items()
        if minute[name] is not None
    ]
    chart: Figure = (
        alt.Chart(rows_of(rows, "at"))
        .mark_line(point=True)
        .encode(
            _last_hour(minutes),
            alt.Y("ms:Q", title="Milliseconds", scale=alt.Scale(type="log"), axis=alt.Axis(grid=False)),
            colours("share", _QUANTILES.values(), (PALETTE[2], PALETTE[4], PALETTE[1])),
            tooltip=[_when(), "share:N", alt.Tooltip("ms:Q", format=",.1f")],
        )
        .properties(height=high(_LOW, len(_QUANTILES)))
    )
    return chart


def _of_kind(minute: Mapping[str, Any], kind: str) -> int:
    if kind != "answered":
        return int(minute[kind])
    return int(minute["requests"] - minute["client_errors"] - minute["server_errors"])


def _last_hour(minutes: Sequence[Mapping[str, Any]]) -> alt.X:
    """Return an axis that ends with the last minute, so that a server's first minutes do not fill it."""
    last = max((datetime.fromisoformat(minute["at"]) for minute in minutes), default=datetime.fromtimestamp(0, UTC))
    end = last + timedelta(minutes=1)
    # As text: Streamlit has Vega interpret its expressions, and there a number of milliseconds is taken for a year.
    scale = alt.Scale(domain=[(end - timedelta(hours=1)).isoformat(), end.isoformat()])
    axis = alt.Axis(format="%H:%M", labelOverlap=True, tickCount=6)
    return alt.X("utcyearmonthdatehoursminutes(at):T", title="Time (UTC)", axis=axis, scale=scale)


def _when() -> alt.Tooltip:
    return alt.Tooltip("utcyearmonthdatehoursminutes(at):T", title="minute", format="%H:%M")


def _diagonal() -> Figure:
    line: alt.Chart = alt.Chart(rows_of([{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
    line = line.mark_line(color=GREY, strokeDash=[4, 4], strokeWidth=1).encode(alt.X("x:Q"), alt.Y("y:Q"))
    return line
