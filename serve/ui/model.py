"""The Model Info page: what a model is, what it was made from, how good it is, and how that is known."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from lesion.errors import LesionError
from serve.ui import evaluation, model_charts, model_findings
from serve.ui.blocks import NO_DATA, START_IT, figure
from serve.ui.reports import show_report
from serve.ui.session import keeps_data, may, read, read_bytes
from serve.ui.words import moment, plain

_LINEAGE = {
    "parent": "Retrained from", "snapshot_id": "Snapshot of the data", "job_id": "Retraining", "seed": "Seed",
    "lesion": "Lesion", "git": "Commit", "python": "Python", "torch": "PyTorch", "timm": "timm",
}  # fmt: skip
_DATA = {"name": "Dataset", "policy": "Split", "groups": "Groups that no split divides", "patients": "Patients named"}
_DATA |= {"fingerprint": "Fingerprint"}
_LAST = 10  # retrainings, of which one may have come as far as the gate


def show(client: Client) -> None:
    """Show the page."""
    st.title("Model Info")
    info = read(client, "/info")
    if not keeps_data(client):
        _show_identity(info, info["created"], served=True)
        evaluation.show_headline(info["metrics"])
        evaluation.show_classes(info["metrics"], info["classes"])
        st.info(f"{NO_DATA} {START_IT} Then it also keeps evaluations, earlier models and what they were made from.")
        return
    version = _choose(client, info["model_version"])
    facts = read(client, f"/models/{version}")
    _show_identity(info | facts, facts.get("created", facts["created_at"]), served=version == info["model_version"])
    _show_origin(facts)
    measured = _optional(client, f"/models/{version}/evaluation")
    if measured is None:
        st.info("This model came without the details of its evaluation.")
        evaluation.show_headline(facts.get("metrics", {}))
        evaluation.show_classes(facts.get("metrics", {}), facts["classes"])
    else:
        evaluation.show(measured)
    if may(client, "admin"):
        _show_challenge(client)
    _show_papers(client, facts["name"], version)


def _choose(client: Client, served: str) -> str:
    """Let people look at earlier models too."""
    versions = [row["version"] for row in reversed(read(client, "/models"))]
    if served not in versions:  # a change of champion is under way
        versions.insert(0, served)
    if len(versions) == 1:
        return served
    chosen: str = st.selectbox(
        "Model",
        versions,
        index=versions.index(served),
        format_func=lambda one: f"{one} (in use)" if one == served else one,
    )
    return chosen


def _show_identity(facts: dict[str, Any], created: str | None, *, served: bool) -> None:
    """Show which model this is, how old and of which kind."""
    model, prepared, calibrated = facts.get("model", {}), facts["preprocessing"], facts["calibration"]
    version = facts.get("version") or facts["model_version"]
    tiles = {"Version": version, "Classes": f"{len(facts['classes'])}"}
    if created:
        tiles["Age"] = model_findings.age(created, datetime.now(UTC))
    if "backbone" in model:
        tiles["Architecture"] = model["backbone"]
    if "parameters" in model:
        tiles["Parameters"] = f"{model['parameters'] / 1e6:.1f} million"
    tiles["Input"] = f"{prepared['size']} × {prepared['size']} pixels"
    with st.container(horizontal=True, gap="large"):
        for name, value in tiles.items():
            st.metric(name, plain(value), width="content")
    made = f"Made on {moment(created)}. " if created else ""
    state = f"In use, by {facts['engine']}. " if served and facts.get("engine") else "In use. " if served else ""
    images = calibrated.get("images")
    fitted = f", fitted on {images:,} images" if images else ""
    kind = f"Calibrated with temperature {calibrated['temperature']:.2f}{fitted}."
    st.caption(plain(f"{state}{made}{kind}"))


def _show_origin(facts: dict[str, Any]) -> None:
    """Show what the model was made from."""
    data = facts.get("data", {})
    lineage = facts.get("lineage", {}) | {name: facts[name] for name in ("parent", "snapshot_id", "job_id")}
    weights = facts.get("model", {}).get("weights", {})
    rows = {words: data.get(name) for name, words in _DATA.items()}
    rows["First weights"] = ", ".join(str(weights[name]) for name in ("source", "name") if weights.get(name))
    rows |= {words: lineage.get(name) for name, words in _LINEAGE.items()}
    with st.expander("Data and lineage"):
        if images := data.get("images"):
            st.table(pd.DataFrame(images).fillna(0).astype(int).rename_axis("Class"), alt="Images by class and split")
        known = [
            {"What": words, "Value": plain(str(value))} for words, value in rows.items() if value not in (None, "")
        ]
        st.table(pd.DataFrame(known, columns=["What", "Value"]).set_index("What"), alt="Where the model comes from")


def _show_challenge(client: Client) -> None:
    """Show the last challenger beside the champion of then."""
    st.header("Champion against challenger")
    judged = [job for job in read(client, "/retrain_jobs", limit=_LAST) if (job["verdict"] or {}).get("comparisons")]
    if not judged:
        st.markdown("No challenger was compared with a champion yet.")
        return
    job, found = judged[0], judged[0]["verdict"]["comparisons"][-1]
    outcome = "took its place" if job["state"] == "promoted" else "did not take its place"
    title = f"{job['version'] or 'The challenger'} against {job['parent']}"
    figure(model_charts.recalls(found["recalls"]), title, model_findings.comparison(found))
    scores = {"accuracy": "Accuracy", "f1_macro": "Macro-F1", "ece": "Calibration error"}
    rows = [
        {"Score": words, "Champion": f"{found['champion'][name]:.3f}", "Challenger": f"{found['challenger'][name]:.3f}"}
        for name, words in scores.items()
    ]
    st.table(pd.DataFrame(rows).set_index("Score"), alt="Scores of both models")
    st.caption(f"The challenger {outcome} on {moment(job['finished_at'] or job['updated_at'])}.")


def _show_papers(client: Client, name: str, version: str) -> None:
    """Show the model card and the report, and give the files away."""
    st.header("Papers and files")
    card = _optional_bytes(client, f"/models/{version}/card")
    if card is not None:
        with st.expander("Model card"):
            st.markdown(card.decode().replace("![", "!\\["))  # a picture in it could be anywhere on the net
    with st.container(horizontal=True):
        if card is not None:
            st.download_button("Download the model card", card, f"{name}-{version}.md", on_click="ignore")
        if may(client, "contributor"):
            bundle = partial(client.download, f"/models/{version}/bundle")  # fetched when somebody wants it
            st.download_button("Download the bundle", bundle, f"{name}-{version}.zip", "application/zip")
    if st.toggle("Show the report", key=f"report-{version}"):
        page = _optional_bytes(client, f"/models/{version}/report")
        if page is None:
            st.info("This model came without a report.")
            return
        st.download_button("Download the report", page, f"{name}-{version}.html", "text/html", on_click="ignore")
        show_report(page.decode(), "The report of the training run")


def _optional(client: Client, path: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = read(client, path)
    except LesionError as error:
        if error.status != 404:
            raise
        return None
    return found


def _optional_bytes(client: Client, path: str) -> bytes | None:
    try:
        return read_bytes(client, path)
    except LesionError as error:
        if error.status != 404:
            raise
        return None
