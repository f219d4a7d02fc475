"""The Visualizations screen: charts and images of the data, each with a sentence written from its numbers."""

from functools import partial
from statistics import median
from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from lesion.core.text import format_percent
from serve.ui import address
from serve.ui.charts import data_charts
from serve.ui.components import NO_DATA, START_WITH_STORAGE, show_figure
from serve.ui.error_messages import error_boundary
from serve.ui.session import class_names, has_storage, read, read_bytes
from serve.ui.text import data_findings
from serve.ui.text.class_names import name_rows, name_statistics, shown_name
from serve.ui.text.sentences import escape_markdown, select_lowest

_MONTAGE_SIZES = (12, 24, 48)


def show(client: Client) -> None:
    """Show the screen."""
    st.title("Visualizations")
    if not has_storage(client):
        st.info(f"{NO_DATA} {START_WITH_STORAGE}")
        return
    stats = read(client, "/dataset/stats")
    _show_totals(stats)
    if not stats["images"]:
        st.info("There are no accepted images yet. Upload some, or import the first model with its data.")
        return
    names = class_names(client)
    named = name_statistics(stats, names)
    _show_classes(named["classes"])
    _show_montage(client, stats, names)
    left, right = st.columns(2, gap="large")
    with left:
        _show_brightness(named["brightness"])
    with right, error_boundary("resolutions", part=True):
        chart = data_charts.resolution_bars(stats["resolutions"], stats["other_resolutions"])
        show_figure(chart, "Resolutions", data_findings.resolutions(stats, read(client, "/info")["preprocessing"]))
    left, right = st.columns(2, gap="large")
    with left:
        _show_duplicates(named)
    with right:
        _show_leakage(named["leakage"], known=stats["leakage_known"])
    days = stats["uploads"]
    show_figure(data_charts.upload_bars(days) if days else None, "Uploads", data_findings.uploads(days))


def _show_totals(stats: dict[str, Any]) -> None:
    statuses = {"accepted": stats["images"]} | stats["statuses"]
    with st.container(horizontal=True):
        for status, title in (("accepted", "Accepted"), ("quarantined", "In quarantine"), ("deleted", "Deleted")):
            st.metric(title, f"{statuses.get(status, 0):,}", width=150)
    formats = ", ".join(f"{name} {images:,}" for name, images in stats["formats"].items())
    st.caption(escape_markdown(f"File formats: {formats or 'none'}"))


def _show_classes(classes: list[dict[str, Any]]) -> None:
    st.header("Classes")
    st.markdown(escape_markdown(data_findings.class_distribution(classes)))
    selected, note = select_lowest(classes, lambda row: row["images"], "with the fewest images")
    if note:
        st.caption(note)
    left, right = st.columns(2, gap="large")
    left.altair_chart(data_charts.class_counts(selected), width="stretch", alt="Images of each class by use")
    right.altair_chart(data_charts.class_shares(selected, len(classes)), width="stretch", alt="Share of each class")
    rows = [
        {
            "Class": escape_markdown(row["label"]),
            "Images": f"{row['images']:,}",
            "Share": format_percent(row["share"], 1),
        }
        | {use.capitalize(): f"{row['splits'].get(split, 0):,}" for split, use in data_charts.SPLITS.items()}
        for row in selected
    ]
    st.table(pd.DataFrame(rows).set_index("Class"), alt="Images of each class")


@st.fragment
@error_boundary("montage")
def _show_montage(client: Client, stats: dict[str, Any], names: dict[str, str]) -> None:
    st.header("Images")
    images = {row["label"]: row["images"] for row in stats["classes"]}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        classes = list(images)
        called = partial(shown_name, names=names)
        chosen = address.choose("Class to look at", classes, "class", classes[0], format_func=called, width=240)
        label = str(chosen)
        number = st.selectbox("How many", _MONTAGE_SIZES, index=1, width=120)
        seed: int = st.session_state.setdefault("montage-seed", 0)
        if st.button("Show others"):
            st.session_state["montage-seed"] = seed = seed + 1
    name = shown_name(label, names)
    st.markdown(escape_markdown(data_findings.montage(name, number, name_rows(stats["brightness"], names))))
    if images[label]:
        montage = read_bytes(client, "/dataset/montage", label=label, images=number, seed=seed)
        st.image(montage, width="stretch", alt=f"Images of {name}")


def _show_brightness(rows: list[dict[str, Any]]) -> None:
    middle = median([row["median"] for row in rows if row["images"]] or [0.0])
    distances = {row["label"]: abs(row["median"] - middle) if row["images"] else 0.0 for row in rows}
    selected, note = select_lowest(rows, lambda row: -distances[row["label"]], "that are brightest or darkest")
    show_figure(data_charts.brightness_boxes(selected), "Brightness", data_findings.brightness(rows), note)


def _show_duplicates(stats: dict[str, Any]) -> None:
    classes, groups = stats["classes"], stats["duplicates"]
    grouped = groups["classes"]
    shares = {row["label"]: grouped.get(row["label"], 0) / max(1, row["images"]) for row in classes}
    selected, note = select_lowest(classes, lambda row: -shares[row["label"]], "with the largest share in groups")
    chart = data_charts.duplicate_bars(selected, grouped)
    show_figure(chart, "Near-duplicates", data_findings.duplicates(groups, stats["images"]), note)


def _show_leakage(leakage: dict[str, Any] | None, *, known: bool) -> None:
    sentence = data_findings.leakage(leakage, known=known)
    if leakage is None or not leakage["test_images"]:
        show_figure(None, "Leakage", sentence)
        return
    classes = leakage["per_class"]
    shares = {name: row["leaked"] / max(1, row["test"]) for name, row in classes.items()}
    selected, note = select_lowest(list(classes), lambda name: -shares[name], "that leak most")
    show_figure(data_charts.leakage_bars({name: classes[name] for name in selected}), "Leakage", sentence, note)
