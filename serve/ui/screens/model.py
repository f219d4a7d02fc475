"""The Model Info page: what a model is, what it was made from, how good it is, and how that is known."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from serve.ui.charts import model_charts
from serve.ui.components import NO_DATA, START_IT, figure
from serve.ui.error_messages import attempted, guarded
from serve.ui.screens import model_evaluation
from serve.ui.screens.model_reports import show_report
from serve.ui.screens.predict import table
from serve.ui.session import keeps_data, may, read, read_bytes, unless_missing
from serve.ui.text import model_findings
from serve.ui.text.sentences import moment, plain

_LINEAGE = {
    "parent": "Retrained from", "snapshot_id": "Snapshot of the data", "job_id": "Retraining", "seed": "Seed",
    "lesion": "Lesion", "git": "Commit", "python": "Python", "torch": "PyTorch", "timm": "timm",
}  # fmt: skip
_DATA = {"name": "Dataset", "policy": "Split", "groups": "Groups that no split divides"}
_DATA |= {"patients": "Patients, plants or the like that are named", "fingerprint": "Fingerprint"}
# Retrainings to look at: a few, since one of them will have come as far as the gate; then all that the server gives.
_FEW, _ALL = 10, 200


def show(client: Client) -> None:
    """Show the page."""
    st.title("Model Info")
    info = read(client, "/info")
    if not keeps_data(client):
        _show_identity(info, info["created"], served=True)
        model_evaluation.show_headline(info)
        model_evaluation.show_classes(info)
        st.info(f"{NO_DATA} {START_IT} Then it also keeps evaluations, earlier models and what they were made from.")
        return
    version = _choose(client, info["model_version"])
    facts = read(client, f"/models/{version}")
    _show_identity(info | facts, facts.get("created", facts["created_at"]), served=version == info["model_version"])
    _show_origin(facts)
    with guarded("evaluation", part=True):
        _show_evaluation(client, version, facts)
    if may(client, "admin"):
        with guarded("challenge", part=True):
            _show_challenge(client)
    with guarded("papers", part=True):
        _show_papers(client, facts["name"], version)


def _show_evaluation(client: Client, version: str, facts: dict[str, Any]) -> None:
    """Show all that was measured, or what the model itself says of it."""
    measured = unless_missing(partial(read, client, f"/models/{version}/evaluation"))
    if measured is not None:
        model_evaluation.show(measured)
        return
    st.info("This model came without the details of its evaluation.")
    known = {"metrics": {}} | facts
    model_evaluation.show_headline(known)
    model_evaluation.show_classes(known)


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
    kind = "Not calibrated."  # such a model has a temperature too, of 1
    if images := calibrated.get("images"):
        kind = f"Calibrated with temperature {calibrated['temperature']:.2f}, fitted on {images:,} images."
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
            _show_images(pd.DataFrame(images).fillna(0).astype(int))
        known = [
            {"What": words, "Value": plain(str(value))} for words, value in rows.items() if value not in (None, "")
        ]
        st.table(pd.DataFrame(known, columns=["What", "Value"]).set_index("What"), alt="Where the model comes from")


def _show_images(images: pd.DataFrame) -> None:
    """Show how many images of each class the model learned from, chose by and was tested on."""
    sums = images.sum(axis="columns").to_dict()
    shown = table.first(list(sums), lambda name: sums[name])
    counts = images.loc[shown].rename(index=plain, columns=plain).rename_axis("Class")
    st.table(counts, alt="Images by class and split")
    if note := table.cut(len(shown), len(images), "with the fewest images"):
        st.caption(note)


def _last_judged(client: Client) -> tuple[dict[str, Any] | None, bool]:
    """Return the last retraining that came as far as a comparison, and whether all there ever were were looked at."""
    for most in (_FEW, _ALL):
        jobs = read(client, "/retrain_jobs", limit=most)
        judged = [job for job in jobs if (job["verdict"] or {}).get("comparisons")]
        if judged or len(jobs) < most:
            return (judged[0] if judged else None), True
    return None, False


def _show_challenge(client: Client) -> None:
    """Show the last challenger beside the champion of then."""
    st.header("Champion against challenger")
    job, all_seen = _last_judged(client)
    if job is None:
        none = "No challenger was" if all_seen else f"Of the last {_ALL} retrainings no challenger was"
        st.markdown(f"{none} compared with a champion yet.")
        return
    found = job["verdict"]["comparisons"][-1]
    outcome = "took its place" if job["state"] == "promoted" else "did not take its place"
    title = f"{job['version'] or 'The challenger'} against {job['parent']}"
    shown = table.first(found["recalls"], _gain)
    note = table.cut(len(shown), len(found["recalls"]), "where the challenger gains least")
    figure(model_charts.recalls(shown), title, model_findings.comparison(found), note)
    scores = {"accuracy": "Accuracy", "f1_macro": "Macro-F1", "ece": "Calibration error"}
    rows = [
        {"Score": words, "Champion": f"{found['champion'][name]:.3f}", "Challenger": f"{found['challenger'][name]:.3f}"}
        for name, words in scores.items()
    ]
    st.table(pd.DataFrame(rows).set_index("Score"), alt="Scores of both models")
    st.caption(f"The challenger {outcome} on {moment(job['finished_at'] or job['updated_at'])}.")


def _gain(row: dict[str, Any]) -> float:
    known = row["champion"] is not None and row["challenger"] is not None
    return float(row["challenger"] - row["champion"]) if known else model_findings.lowest(None)


def _show_papers(client: Client, name: str, version: str) -> None:
    """Show the model card and the report, and give the files away."""
    st.header("Papers and files")
    card = unless_missing(partial(read_bytes, client, f"/models/{version}/card"))
    if card is not None:
        with st.expander("Model card"):
            st.markdown(card.decode().replace("![", "!\\["))  # a picture in it could be anywhere on the net
        st.download_button("Download the model card", card, f"{name}-{version}.md", on_click="ignore")
    if may(client, "contributor"):
        _offer_bundle(client, name, version)
    if st.toggle("Show the report", key=f"report-{version}"):
        page = unless_missing(partial(read_bytes, client, f"/models/{version}/report"))
        if page is None:
            st.info("This model came without a report.")
            return
        st.download_button("Download the report", page, f"{name}-{version}.html", "text/html", on_click="ignore")
        show_report(page.decode(), "The report of the training run")


@st.fragment
@guarded("bundle")
def _offer_bundle(client: Client, name: str, version: str) -> None:
    """Fetch the bundle when somebody wants it, since it is large, and then give it away."""
    if st.button("Fetch the bundle"):
        # Not by the download button itself, which fetches out of reach of the page and has no words for a refusal.
        with attempted(), st.spinner("Fetching …"):
            content = client.download(f"/models/{version}/bundle")
            st.download_button(
                "Download the bundle", content, f"{name}-{version}.zip", "application/zip", on_click="ignore"
            )
