"""The Visualizations page: what the data looks like, each picture with a sentence that its numbers make."""

from statistics import median
from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from serve.ui.charts import data_charts
from serve.ui.components import NO_DATA, START_IT, figure
from serve.ui.error_messages import guarded
from serve.ui.screens.predict import table
from serve.ui.session import keeps_data, read, read_bytes
from serve.ui.text import data_findings
from serve.ui.text.sentences import plain

_SAMPLES = (12, 24, 48)


def show(client: Client) -> None:
    """Show the page."""
    st.title("Visualizations")
    if not keeps_data(client):
        st.info(f"{NO_DATA} {START_IT}")
        return
    stats = read(client, "/dataset/stats")
    _show_counts(stats)
    if not stats["images"]:
        st.info("There is no accepted image yet. Upload some, or import the first model with its data.")
        return
    _show_classes(stats)
    _show_montage(client, stats)
    left, right = st.columns(2, gap="large")
    with left:
        _show_brightness(stats["brightness"])
    with right, guarded("resolutions", part=True):
        _show_resolutions(client, stats)
    _show_sameness(stats)
    _show_uploads(stats)


def _show_counts(stats: dict[str, Any]) -> None:
    """Show how many images there are, by status."""
    statuses = {"accepted": stats["images"]} | stats["statuses"]
    with st.container(horizontal=True):
        for status, words in (("accepted", "Accepted"), ("quarantined", "In quarantine"), ("deleted", "Deleted")):
            st.metric(words, f"{statuses.get(status, 0):,}", width=150)
    formats = ", ".join(f"{name} {images:,}" for name, images in stats["formats"].items())
    st.caption(plain(f"Formats: {formats or 'none'}"))


def _show_classes(stats: dict[str, Any]) -> None:
    total = len(stats["classes"])
    st.header("Classes")
    st.markdown(plain(data_findings.class_distribution(stats["classes"])))
    classes = table.first(stats["classes"], lambda row: row["images"])
    if len(classes) < total:
        st.caption(table.cut(len(classes), total, "with the fewest images"))
    left, right = st.columns(2, gap="large")
    left.altair_chart(data_charts.class_counts(classes), width="stretch", alt="Images of each class by use")
    right.altair_chart(data_charts.class_shares(classes, total), width="stretch", alt="Share of each class")
    rows = [
        {"Class": plain(row["label"]), "Images": f"{row['images']:,}", "Share": f"{row['share']:.1%}"}
        | {words.capitalize(): f"{row['splits'].get(split, 0):,}" for split, words in data_charts.SPLITS.items()}
        for row in classes
    ]
    st.table(pd.DataFrame(rows).set_index("Class"), alt="Images of each class")


@st.fragment
@guarded("montage")
def _show_montage(client: Client, stats: dict[str, Any]) -> None:
    """Show some images of one class, chosen at random."""
    st.header("Images")
    labels = [row["label"] for row in stats["classes"]]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        label = st.selectbox("Class to look at", labels, width=240)
        most = st.selectbox("How many", _SAMPLES, index=1, width=120)
        seed: int = st.session_state.setdefault("montage-seed", 0)
        if st.button("Draw others"):
            st.session_state["montage-seed"] = seed = seed + 1
    st.markdown(plain(data_findings.montage(label, most, stats["brightness"])))
    if any(row["label"] == label and row["images"] for row in stats["classes"]):
        picture = read_bytes(client, "/dataset/montage", label=label, images=most, seed=seed)
        st.image(picture, width="stretch", alt=f"Images of {label}")


def _show_brightness(rows: list[dict[str, Any]]) -> None:
    middle = median([row["median"] for row in rows if row["images"]] or [0.0])
    shown = table.first(rows, lambda row: -abs(row["median"] - middle) if row["images"] else 0.0)
    note = table.cut(len(shown), len(rows), "that are brightest or darkest")
    figure(data_charts.brightness_boxes(shown), "Brightness", data_findings.brightness(rows), note)


def _show_resolutions(client: Client, stats: dict[str, Any]) -> None:
    sizes, others = stats["resolutions"], stats["other_resolutions"]
    sentence = data_findings.resolutions(stats, read(client, "/info")["preprocessing"])
    figure(data_charts.resolution_bars(sizes, others), "Resolutions", sentence)


def _show_sameness(stats: dict[str, Any]) -> None:
    """Show near-duplicates, and what they did to the split that came with the data."""
    classes, same = stats["classes"], stats["duplicates"]
    left, right = st.columns(2, gap="large")
    with left:
        shown = table.first(classes, lambda row: -same["classes"].get(row["label"], 0) / max(1, row["images"]))
        note = table.cut(len(shown), len(classes), "with the largest share in groups")
        chart = data_charts.duplicate_bars(shown, same["classes"])
        figure(chart, "Near-duplicates", data_findings.duplicates(same, stats["images"]), note)
    with right:
        _show_leakage(stats["leakage"], known=stats["leakage_known"])


def _show_leakage(leak: dict[str, Any] | None, *, known: bool) -> None:
    sentence = data_findings.leakage(leak, known=known)
    if leak is None or not leak["test_images"]:
        st.subheader("Leakage")
        st.markdown(plain(sentence))
        return
    classes = leak["per_class"]
    shown = table.first(list(classes), lambda label: -classes[label]["leaked"] / max(1, classes[label]["test"]))
    note = table.cut(len(shown), len(classes), "that leak most")
    figure(data_charts.leakage_bars({label: classes[label] for label in shown}), "Leakage", sentence, note)


def _show_uploads(stats: dict[str, Any]) -> None:
    sentence = data_findings.uploads(stats["uploads"])
    if stats["uploads"]:
        figure(data_charts.upload_bars(stats["uploads"]), "Uploads", sentence)
    else:
        st.subheader("Uploads")
        st.markdown(plain(sentence))
