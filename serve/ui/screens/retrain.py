"""The Upload & Retrain screen: uploads, the last retraining and its progress, and starting the next one."""

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from serve.ui.charts import model_charts
from serve.ui.charts.data_charts import SPLITS
from serve.ui.components import (
    START_WITH_STORAGE,
    apply_change,
    show_confirmation,
    show_summary,
    show_verdict,
    warn_without_worker,
)
from serve.ui.error_messages import error_boundary
from serve.ui.screens import upload
from serve.ui.session import clear_cache, has_role, has_storage, read, version_in_use
from serve.ui.text import sentences
from serve.ui.text.sentences import escape_markdown, format_time

_DEFAULT = "the model's own"
_REFRESH_S = 2.5
_CURVES = {
    "Loss": {"train/loss": "on training images", "val/loss": "on other images"},
    "Right answers": {"val/acc": "accuracy", "val/f1_macro": "macro-F1"},
}


def show(client: Client) -> None:
    """Show the screen."""
    st.title("Upload & Retrain")
    show_confirmation()
    if not has_storage(client):
        st.info(f"This server stores no data, so images cannot be uploaded. {START_WITH_STORAGE}")
        return
    with error_boundary("uploading", part=True):
        upload.show(client)
    if has_role(client, "admin"):
        with error_boundary("retraining", part=True):
            st.header("Retrain")
            running = _show_last_job(client)
            _show_new_data(client)
            _offer_retraining(client, running)


def _show_last_job(client: Client) -> bool:
    """Show the last retraining, if there is one, and return whether it still runs."""
    job = _last_job(client)
    if job is None:
        return False
    running = job["finished_at"] is None
    with st.container(border=True):
        # While it runs, only this part is drawn again and again.
        st.fragment(_watch, run_every=_REFRESH_S if running else None)(client, running)
        if running and not job["cancel_requested"]:
            with st.popover("Cancel"):
                st.markdown("What it has learned so far is lost. The model in use stays.")
                if st.button("Cancel the retraining"):
                    apply_change(partial(client.cancel, job["job_id"]), "The retraining is being canceled.")
    return running


@error_boundary("watching")
def _watch(client: Client, running: bool) -> None:
    job = _last_job(client)
    if job is None:
        return
    if running != (job["finished_at"] is None):  # it has just ended, which changes the whole page
        clear_cache()
        st.rerun()
    if not running:
        _show_end(client, job)
        return
    st.subheader("A retraining is running")
    warn_without_worker(job["worker"])
    st.progress(job["progress"], escape_markdown(sentences.describe_stage(job)))
    _show_curves(job["metrics"])
    st.caption(f"{_request(job)}.")


def _last_job(client: Client) -> dict[str, Any] | None:
    jobs: list[dict[str, Any]] = client.call("GET", "/retrain_jobs", params={"limit": 1})
    return jobs[0] if jobs else None


def _request(job: dict[str, Any]) -> str:
    return f"Requested by {escape_markdown(job['requested_by'])} on {format_time(job['created_at'])}"


def _show_curves(metrics: list[dict[str, Any]]) -> None:
    if not metrics:
        return
    for column, (title, names) in zip(st.columns(2), _CURVES.items(), strict=True):
        rows = [
            {"Epoch": row["epoch"], title: row[name], "Curve": curve}
            for row in metrics
            for name, curve in names.items()
            if row.get(name) is not None
        ]
        chart = model_charts.epochs(rows, title, list(names.values()))
        column.altair_chart(chart, width="stretch", alt=f"{title} by epoch")


def _show_end(client: Client, job: dict[str, Any]) -> None:
    st.subheader("The last retraining")
    by_state = {"promoted": st.success, "failed": st.error, "budget_spent": st.warning}
    show_outcome = by_state.get(job["state"], st.info)
    outcome, reason = sentences.describe_outcome(job, version_in_use(client)), escape_markdown(job["reason"])
    show_outcome(f"{outcome}\n\n{reason}".rstrip())
    st.caption(f"{_request(job)}, ended on {format_time(job['finished_at'])}.")
    show_verdict(client, job)
    with st.expander("Training curves"):
        _show_curves(job["metrics"])


def _show_new_data(client: Client) -> None:
    new = read(client, "/training_data")["next_retrain"]
    st.markdown(escape_markdown(sentences.next_retraining(new)))
    if splits := new["splits"]:
        columns = {use.capitalize(): splits[split] for split, use in SPLITS.items() if split in splits}
        counts = pd.DataFrame(columns).fillna(0).astype(int)
        st.dataframe(counts.rename_axis("Class"), alt="New images by class and by use")


def _offer_retraining(client: Client, running: bool) -> None:
    options = read(client, "/retrain_estimate")
    epochs = _ask_number("Epochs", "epochs", options, 1, "%d")
    st.caption("How many times the training goes through all images. More epochs take longer, and help up to a point.")
    with st.expander("More settings"):
        batch_size = _ask_number("Batch size", "batch_size", options, 1, "%d")
        learning_rate = _ask_number("Learning rate", "learning_rate", options, 1e-5, "%.6f")
        st.caption("Leave these unchanged unless you have a reason. A smaller batch needs less memory.")
    estimate = read(client, "/retrain_estimate", epochs=epochs)
    st.markdown(escape_markdown(sentences.describe_estimate(estimate)))
    _show_feasibility(estimate)
    if not running:  # or the retraining itself tells it
        warn_without_worker(options["worker"])
    if st.button("Start retraining", type="primary", disabled=running):
        settings = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
        apply_change(partial(client.retrain, **settings), "The retraining has begun.")
    if running:
        st.caption("Only one retraining can run at a time.")


def _show_feasibility(estimate: dict[str, Any]) -> None:
    """Show what the gate could prove after a retraining, before anybody starts it."""
    with st.container(border=True):
        st.markdown("**What it could prove**")
        if not estimate["would_train"]:
            st.warning("No new model could be promoted now, so a retraining would end without training one.")
        show_summary(estimate["summary"])
        if note := sentences.describe_gate_settings(estimate):
            st.caption(note)


def _ask_number(label: str, name: str, options: dict[str, Any], step: Any, number_format: str) -> Any:  # noqa: ANN401 - int or float
    number_type: Any = type(step)  # JSON may write a whole number for either
    low, high = (number_type(bound) for bound in options["bounds"][name])
    default = options["defaults"][name]
    # What the model was trained with may be out of bounds; an empty field leaves the value to the server.
    value = number_type(default) if default is not None and low <= default <= high else None
    return st.number_input(label, low, high, value, step=step, format=number_format, placeholder=_DEFAULT, width=300)
