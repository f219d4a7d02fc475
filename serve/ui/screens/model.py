"""The Model Info screen: what a model is, what it was made from, how good it is, and how that was measured."""

from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import pandas as pd
import streamlit as st

from lesion.client import Client
from lesion.domain.trial import DomainTrial
from lesion.evaluation.findings import EvaluationRecord
from serve.ui import address
from serve.ui.charts import model_charts
from serve.ui.components import NO_DATA, START_WITH_STORAGE, offer_download, show_figure, show_report
from serve.ui.error_messages import error_boundary, report_failure
from serve.ui.screens import model_evaluation
from serve.ui.session import class_names, has_role, has_storage, none_if_missing, read, read_bytes
from serve.ui.text import model_findings
from serve.ui.text.class_names import name_evaluation, name_keys, name_rows
from serve.ui.text.sentences import escape_markdown, format_time, select_lowest

_DATA = {
    "name": "Dataset", "policy": "Split", "groups": "Groups that no split divides",
    "patients": "Named patients, plants or the like", "fingerprint": "Fingerprint",
}  # fmt: skip
_LINEAGE = {
    "parent": "Retrained from", "snapshot_id": "Snapshot of the data", "job_id": "Retraining", "seed": "Seed",
    "lesion": "Lesion", "git": "Commit", "python": "Python", "torch": "PyTorch", "timm": "timm",
}  # fmt: skip
# Retrainings to search: a few, since one of them has usually reached the gate; then as many as the server returns.
_FEW, _ALL = 10, 200


def show(client: Client) -> None:
    """Show the screen."""
    st.title("Model Info")
    info = read(client, "/info")
    if not has_storage(client):
        _show_identity(info, info["created"], in_use=True)
        named = name_evaluation(info, info["class_names"])
        model_evaluation.show_headline(named)
        model_evaluation.show_classes(named)
        _show_domain_trial(info)
        more = "It then also stores evaluations, earlier models and what they were made from."
        st.info(f"{NO_DATA} {START_WITH_STORAGE} {more}")
        return
    version = _choose_version(client, info["model_version"])
    facts = read(client, f"/models/{version}")
    in_use = version == info["model_version"]
    _show_identity(info | facts, facts.get("created", facts["created_at"]), in_use=in_use)
    _show_origin(facts, class_names(client))
    _show_domain_trial(facts)
    with error_boundary("evaluation", part=True):
        _show_evaluation(client, version, facts)
    if has_role(client, "admin"):
        with error_boundary("challenge", part=True):
            _show_last_challenger(client)
    with error_boundary("papers", part=True):
        _show_files(client, facts["name"], version)


def _show_domain_trial(facts: dict[str, Any]) -> None:
    """Show which kinds of foreign images the model recognized in its trial; models of older versions had none."""
    if (trial := facts.get("domain_trial")) is not None:
        st.header("Which images it does not take for its own")
        for sentence in DomainTrial.from_json(trial).sentences():
            st.markdown(escape_markdown(sentence))


def _show_evaluation(client: Client, version: str, facts: dict[str, Any]) -> None:
    """Show everything that was measured, or what the model itself contains of it."""
    evaluation = none_if_missing(partial(read, client, f"/models/{version}/evaluation"))
    if evaluation is not None:
        model_evaluation.show(cast(EvaluationRecord, name_evaluation(evaluation, class_names(client))))
        return
    st.info("This model came without the details of its evaluation.")
    scores = name_evaluation({"metrics": {}} | facts, class_names(client))
    model_evaluation.show_headline(scores)
    model_evaluation.show_classes(scores)


def _choose_version(client: Client, current: str) -> str:
    versions = [row["version"] for row in reversed(read(client, "/models"))]
    if current not in versions:  # the model in use is being replaced right now
        versions.insert(0, current)
    if len(versions) == 1:
        return current
    titles = {version: f"{version} (in use)" if version == current else version for version in versions}
    return str(address.choose("Model", versions, "version", current, format_func=titles.__getitem__))


def _show_identity(facts: dict[str, Any], created: str | None, *, in_use: bool) -> None:
    model, preprocessing, calibration = facts.get("model", {}), facts["preprocessing"], facts["calibration"]
    tiles = {"Version": facts.get("version") or facts["model_version"], "Classes": f"{len(facts['classes'])}"}
    if created:
        tiles["Age"] = model_findings.age(created, datetime.now(UTC))
    if "backbone" in model:
        tiles["Architecture"] = model["backbone"]
    if "parameters" in model:
        tiles["Parameters"] = f"{model['parameters'] / 1e6:.1f} million"
    tiles["Input"] = f"{preprocessing['size']} × {preprocessing['size']} pixels"
    with st.container(horizontal=True, gap="large"):
        for title, value in tiles.items():
            st.metric(title, escape_markdown(value), width="content")
    use = "" if not in_use else f"In use, with {facts['engine']}. " if facts.get("engine") else "In use. "
    creation = f"Created on {format_time(created)}. " if created else ""
    fit = "Not calibrated."  # such a model has a temperature too, of 1
    if images := calibration.get("images"):
        bias = " and a bias of each class" if calibration.get("bias") else ""
        fit = f"Calibrated with temperature {calibration['temperature']:.2f}{bias}, fitted on {images:,} images."
    st.caption(escape_markdown(f"{use}{creation}{fit}"))


def _show_origin(facts: dict[str, Any], names: dict[str, str]) -> None:
    data = facts.get("data", {})
    lineage = facts.get("lineage", {}) | {name: facts[name] for name in ("parent", "snapshot_id", "job_id")}
    weights = facts.get("model", {}).get("weights", {})
    values = {title: data.get(name) for name, title in _DATA.items()}
    values["Initial weights"] = ", ".join(str(weights[name]) for name in ("source", "name") if weights.get(name))
    values |= {title: lineage.get(name) for name, title in _LINEAGE.items()}
    rows = [
        {"What": title, "Value": escape_markdown(str(value))}
        for title, value in values.items()
        if value not in (None, "")
    ]
    with st.expander("Data and lineage"):
        if images := data.get("images"):
            named = {split: name_keys(counts, names) for split, counts in images.items()}
            _show_images(pd.DataFrame(named).fillna(0).astype(int))
        st.table(pd.DataFrame(rows, columns=["What", "Value"]).set_index("What"), alt="Where the model comes from")


def _show_images(images: pd.DataFrame) -> None:
    totals = images.sum(axis="columns").to_dict()
    selected, note = select_lowest(list(totals), totals.__getitem__, "with the fewest images")
    counts = images.loc[selected].rename(index=escape_markdown, columns=escape_markdown).rename_axis("Class")
    st.table(counts, alt="Images by class and split")
    if note:
        st.caption(note)


def _last_compared_job(client: Client) -> tuple[dict[str, Any] | None, bool]:
    """Return the last retraining that reached a comparison, and whether the search covered all retrainings."""
    for limit in (_FEW, _ALL):
        jobs = read(client, "/retrain_jobs", limit=limit)
        compared = [job for job in jobs if (job["verdict"] or {}).get("comparisons")]
        if compared or len(jobs) < limit:
            return (compared[0] if compared else None), True
    return None, False


def _show_last_challenger(client: Client) -> None:
    st.header("Champion against challenger")
    st.caption("The champion is the model in use at the time, the challenger the model from a retraining.")
    job, searched_all = _last_compared_job(client)
    if job is None:
        subject = "No challenger was" if searched_all else f"Of the last {_ALL} retrainings, no challenger was"
        st.markdown(f"{subject} compared with a champion yet.")
        return
    comparison = job["verdict"]["comparisons"][-1]
    title = f"{job['version'] or 'The challenger'} against {job['parent']}"
    selected, note = select_lowest(
        name_rows(comparison["recalls"], class_names(client)), _gain, "where the challenger gains least"
    )
    show_figure(model_charts.recalls(selected), title, model_findings.comparison(comparison), note)
    rows = [
        {"Score": score}
        | {model.capitalize(): f"{comparison[model][name]:.3f}" for model in ("champion", "challenger")}
        for name, score in (("accuracy", "Accuracy"), ("f1_macro", "Macro-F1"), ("ece", "Calibration error"))
    ]
    st.table(pd.DataFrame(rows).set_index("Score"), alt="Scores of both models")
    outcome = "took the champion's place" if job["state"] == "promoted" else "did not take the champion's place"
    st.caption(f"The challenger {outcome} on {format_time(job['finished_at'] or job['updated_at'])}.")


def _gain(row: dict[str, Any]) -> float:
    comparable = row["champion"] is not None and row["challenger"] is not None
    return model_findings.low_first(row["challenger"] - row["champion"] if comparable else None)


def _show_files(client: Client, name: str, version: str) -> None:
    st.header("Documents and files")
    card = none_if_missing(partial(read_bytes, client, f"/models/{version}/card"))
    if card is not None:
        with st.expander("Model card"):
            st.markdown(card.decode().replace("![", "!\\["))  # an image in it could be loaded from anywhere
        offer_download("Download the model card", card, f"{name}-{version}.md")
    if has_role(client, "contributor"):
        _offer_bundle(client, name, version)
    if st.toggle("Show the report", key=f"report-{version}"):
        report = none_if_missing(partial(read_bytes, client, f"/models/{version}/report"))
        if report is None:
            st.info("This model came without a report.")
            return
        offer_download("Download the report", report, f"{name}-{version}.html", "text/html")
        show_report(report.decode(), "The report of the training run")


@st.fragment
@error_boundary("bundle")
def _offer_bundle(client: Client, name: str, version: str) -> None:
    """Fetch the bundle only on demand, since it is large, and then offer it for download."""
    if st.button("Fetch the bundle"):
        # Not by the download button itself, whose fetch could not show a refusal on the page.
        with report_failure(), st.spinner("Fetching …"):
            content = client.download(f"/models/{version}/bundle")
            offer_download("Download the bundle", content, f"{name}-{version}.zip", "application/zip")
