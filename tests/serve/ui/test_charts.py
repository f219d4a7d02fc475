"""Charts hold the numbers that they were given, and nothing else."""

from collections.abc import Sequence
from typing import Any

import pytest

from lesion.core.palette import PALETTE
from serve.ui.charts import data_charts, model_charts, style
from serve.ui.charts.style import Figure
from tests.support.servers.contrast import contrast


def data(chart: Figure, layer: int | None = None) -> list[dict[str, Any]]:
    """The rows that a chart, or one of its layers, draws."""
    spec = chart.to_dict(format="vega-lite")
    part = spec if layer is None else spec["layer"][layer]
    rows: list[dict[str, Any]] = spec["datasets"][(part.get("data") or spec["data"])["name"]]
    return rows


def columns(rows: Sequence[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


CLASSES = [
    {"label": "a", "images": 30, "share": 0.75, "splits": {"train": 20, "val": 10, "gate": 0}},
    {"label": "b", "images": 10, "share": 0.25, "splits": {"train": 8, "gate": 2, "excluded": 0}},
    {"label": "never.seen[0]", "images": 0, "share": 0.0, "splits": {}},
]


def test_classes_are_counted_by_use() -> None:
    chart = data_charts.class_counts(CLASSES)
    assert columns(data(chart), "label", "use", "images") == [
        ("a", "training", 20), ("a", "model selection", 10), ("b", "training", 8), ("b", "model comparison", 2),
    ]  # fmt: skip
    assert chart.to_dict()["encoding"]["y"]["sort"] == ["a", "b", "never.seen[0]"]


def test_shares_stand_beside_an_even_share() -> None:
    chart = data_charts.class_shares(CLASSES)
    assert columns(data(chart, 0), "label", "share") == [("a", 0.75), ("b", 0.25), ("never.seen[0]", 0.0)]
    assert data(chart, 3) == [{"share": pytest.approx(1 / 3)}]
    assert data(data_charts.class_shares(CLASSES, 1000), 3) == [{"share": 0.001}]  # these are some of a thousand


def test_boxes_are_drawn_from_quantiles() -> None:
    row = {"label": "a", "images": 9, "low": 1.0, "q1": 2.0, "median": 3.0, "q3": 4.0, "high": 5.0, "mean": 3.5}
    chart = data_charts.brightness_boxes([row, row | {"label": "empty", "images": 0}])
    assert columns(data(chart, 0), "label", "low", "q1", "median", "q3", "high") == [("a", 1, 2, 3, 4, 5)]
    ends = [(layer["encoding"]["x"]["field"], layer["encoding"].get("x2", {}).get("field")) for layer in layers(chart)]
    assert ends == [("low", "high"), ("q1", "q3"), ("median", None)]


def layers(chart: Figure) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = chart.to_dict()["layer"]
    return found


def test_rare_sizes_are_drawn_together() -> None:
    rows = [{"width": 100 + number, "height": 50, "images": 20 - number} for number in range(12)]
    found = columns(data(data_charts.resolution_bars(rows, 7)), "size", "images")
    assert found[0] == ("100 × 50", 20)
    assert found[9:] == [("109 × 50", 11), ("any other", 7 + 10 + 9)]
    assert columns(data(data_charts.resolution_bars(rows[:1], 0)), "size", "images") == [("100 × 50", 20)]


def test_duplicates_are_shares_of_their_class() -> None:
    chart = data_charts.duplicate_bars(CLASSES, {"a": 15})
    assert columns(data(chart), "label", "images", "share") == [("a", 15, 0.5), ("b", 0, 0.0)]


def test_leaked_images_stand_beside_the_others() -> None:
    chart = data_charts.leakage_bars({"a": {"test": 10, "leaked": 7}})
    assert columns(data(chart), "label", "kind", "images") == [("a", "with a near-duplicate", 7), ("a", "without", 3)]


def test_uploads_are_drawn_by_day_and_by_month_where_there_are_many() -> None:
    day = {"day": "2026-11-03", "accepted": 4, "quarantined": 0, "rejected": 2}
    chart = data_charts.upload_bars([day])
    assert columns(data(chart), "outcome", "files") == [("accepted", 4), ("refused", 2)]
    assert data(chart)[0]["day"].startswith("2026-11-03")
    assert chart.to_dict()["encoding"]["x"]["timeUnit"] == "utcyearmonthdate"
    many = [day | {"day": f"2026-{month:02}-{number:02}"} for month in range(1, 5) for number in range(1, 29)]
    assert data_charts.upload_bars(many).to_dict()["encoding"]["x"]["timeUnit"] == "utcyearmonth"


def test_a_confusion_matrix_holds_counts_and_shares_of_the_row() -> None:
    chart = model_charts.confusion([[3, 1], [0, 0]], ["a", "b"])
    assert columns(data(chart, 0), "labeled", "predicted", "images", "share") == [
        ("a", "a", 3, 0.75), ("a", "b", 1, 0.25), ("b", "a", 0, 0.0), ("b", "b", 0, 0.0),
    ]  # fmt: skip
    assert [layer["encoding"].get("text", {}).get("field") for layer in layers(chart)] == [None, "images", "share"]
    names = [str(number) for number in range(20)]
    assert len(layers(model_charts.confusion([[1] * 20] * 20, names))) == 1  # no room for words


def test_a_part_of_a_matrix_has_a_column_more() -> None:
    chart = model_charts.confusion([[3, 1, 4], [0, 2, 2]], ["a", "b"], ["a", "b", "any other class"])
    assert columns(data(chart, 0), "labeled", "predicted", "images", "share")[2::3] == [
        ("a", "any other class", 4, 0.5), ("b", "any other class", 2, 0.5),
    ]  # fmt: skip
    assert layers(chart)[0]["encoding"]["x"]["sort"] == ["a", "b", "any other class"]


def test_curves_are_drawn_of_the_chosen_classes_in_their_points_order() -> None:
    found: dict[str, Any] = {"a": {"x": [0, 0.5, 1], "y": [0, 0.9, 1]}, "b": {"x": [0, 1], "y": [0, 1]}}
    chart = model_charts.curves(found, "roc", ["a", "gone"])
    assert columns(data(chart, 1), "label", "x", "y", "order") == [("a", 0, 0, 0), ("a", 0.5, 0.9, 1), ("a", 1, 1, 2)]
    assert columns(data(chart, 0), "x", "y") == [(0, 0), (1, 1)]  # what guessing gives
    steps = model_charts.curves(found, "pr", ["b"])
    assert layers(steps)[0]["mark"]["interpolate"] == "step-after"
    assert layers(steps)[0]["encoding"]["x"]["title"] == "Recall"


def test_reliability_is_drawn_before_and_after_without_empty_bins() -> None:
    filled = {"confidence": 0.9, "accuracy": 0.7, "images": 8, "low": 0.6, "high": 1.0}
    before = [filled, {"confidence": 0.1, "accuracy": 0.0, "images": 0}]
    chart = model_charts.reliability({"before": before, "after": before[:1]})
    rows = columns(data(chart, 1), "calibration", "confidence", "accuracy", "images")
    assert rows == [("before calibration", 0.9, 0.7, 8), ("after calibration", 0.9, 0.7, 8)]
    assert columns(data(chart, 1), "low", "high") == [(0.6, 1.0)] * 2
    older = [{"confidence": 0.9, "accuracy": 0.7, "images": 8}]
    assert columns(data(model_charts.reliability({"before": older, "after": []}), 1), "low", "high") == [(None, None)]


def test_recalls_of_classes_without_images_are_left_out() -> None:
    rows = [
        {"label": "a", "images": 10, "champion": 0.8, "challenger": 0.9},
        {"label": "b", "images": 0, "champion": None, "challenger": None},
    ]
    assert columns(data(model_charts.recalls(rows)), "label", "model", "recall") == [
        ("a", "champion", 0.8), ("a", "challenger", 0.9),
    ]  # fmt: skip


MINUTE = {
    "at": "2026-11-24T10:31:00+00:00", "requests": 10, "client_errors": 2, "server_errors": 1, "predictions": 3,
    "p50_ms": 1.5, "p95_ms": 8.0, "p99_ms": 9.0,
}  # fmt: skip


def test_requests_are_divided_into_answered_refused_and_failed() -> None:
    chart = model_charts.requests([MINUTE])
    assert columns(data(chart), "kind", "requests") == [("answered", 7), ("refused", 2), ("failed", 1)]
    hour = ["2026-11-24T09:32:00+00:00", "2026-11-24T10:32:00+00:00"]  # numbers would be taken for years
    assert chart.to_dict()["encoding"]["x"]["scale"]["domain"] == hour


def test_latencies_of_minutes_without_requests_are_left_out() -> None:
    silent = MINUTE | {"at": "2026-11-24T10:32:00+00:00", "p50_ms": None, "p95_ms": None, "p99_ms": None}
    rows = data(model_charts.latencies([MINUTE, silent]))
    assert columns(rows, "share", "ms") == [("half within", 1.5), ("95 of 100 within", 8.0), ("99 of 100 within", 9.0)]


def test_charts_of_nothing_can_be_drawn() -> None:
    empty: list[Figure] = [
        data_charts.class_counts([]), data_charts.class_shares([]), data_charts.brightness_boxes([]),
        data_charts.resolution_bars([], 0),
        data_charts.upload_bars([]), model_charts.requests([]), model_charts.latencies([]),
        model_charts.reliability({"before": [], "after": []}),
    ]  # fmt: skip
    assert all(chart.to_dict()["height"] > 0 for chart in empty)


# Colors


def test_numbers_in_a_chart_stand_out_from_what_is_drawn_behind_them() -> None:
    first, last = ([int(color[at : at + 2], 16) for at in (1, 3, 5)] for color in model_charts.SHADES)
    for step in range(1001):
        share = step / 1000
        mixed = [round(low + (high - low) * share) for low, high in zip(first, last, strict=True)]
        shade = "#" + "".join(f"{value:02x}" for value in mixed)
        ink = "#ffffff" if share > model_charts.WHITE_FROM else "#000000"
        assert contrast(ink, shade) >= 4.5, share
    matrix = model_charts.confusion([[9, 1], [1, 9]], ["a", "b"]).to_dict()
    assert matrix["layer"][0]["encoding"]["color"]["scale"]["interpolate"] == "rgb"
    inside, outside = data_charts.class_shares(CLASSES).to_dict()["layer"][1:3]
    assert (inside["mark"]["color"], outside["mark"]["color"]) == ("white", "currentColor")
    assert contrast("#ffffff", PALETTE[0]) >= 4.5


def test_lines_stand_out_from_light_and_dark_pages() -> None:
    for background in ("#ffffff", "#171614"):
        assert contrast(style.GRAY, background) >= 3
