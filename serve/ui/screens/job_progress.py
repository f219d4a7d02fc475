"""The last retraining: how far it is while it runs, and how it ended."""

from functools import partial
from typing import Any

import altair as alt
import streamlit as st

from lesion.client import Client
from serve.ui.charts.data_charts import colours, high, rows_of
from serve.ui.components import act
from serve.ui.error_messages import guarded
from serve.ui.screens.model_reports import show_verdict
from serve.ui.session import in_use, refresh
from serve.ui.text.sentences import moment, outcome, plain, stage

_LOOK_S = 2.5
_PLOT = 160  # pixels
_CURVES = {
    "Loss": {"train/loss": "while learning", "val/loss": "on other images"},
    "Right answers": {"val/acc": "accuracy", "val/f1_macro": "macro-F1"},
}


def show(client: Client) -> bool:
    """Show the last retraining, if there is one, and say whether it still runs."""
    job = _last(client)
    if job is None:
        return False
    running = job["finished_at"] is None
    with st.container(border=True):
        # While it runs, this part alone is drawn again and again.
        st.fragment(_watch, run_every=_LOOK_S if running else None)(client, running)
        if running and not job["cancel_requested"]:
            _offer_to_cancel(client, job["job_id"])
    return running


def _offer_to_cancel(client: Client, job_id: str) -> None:
    with st.popover("Cancel"):
        st.markdown("What it has learned so far is lost. The model in use stays.")
        if st.button("Cancel the retraining"):
            act(partial(client.cancel, job_id), "The retraining is being cancelled.")


@guarded("watching")
def _watch(client: Client, running: bool) -> None:
    job = _last(client)
    if job is None:
        return
    if running != (job["finished_at"] is None):  # it has just ended: now all of the page looks different
        refresh()
        st.rerun()
    if running:
        _show_progress(client, job)
    else:
        _show_end(client, job)


def _last(client: Client) -> dict[str, Any] | None:
    jobs: list[dict[str, Any]] = client.call("GET", "/retrain_jobs", params={"limit": 1})
    return jobs[0] if jobs else None


def _show_progress(client: Client, job: dict[str, Any]) -> None:
    st.subheader("A retraining is running")
    st.progress(job["progress"], plain(stage(job)))
    _show_curves(job["metrics"])
    st.caption(f"Asked for by {plain(job['requested_by'])} on {moment(job['created_at'])}.")


def _show_curves(metrics: list[dict[str, Any]]) -> None:
    """Draw what each epoch that is done gave."""
    if not metrics:
        return
    for place, (title, names) in zip(st.columns(2), _CURVES.items(), strict=True):
        rows = [
            {"Epoch": row["epoch"], title: row[name], "Curve": words}
            for row in metrics
            for name, words in names.items()
            if row.get(name) is not None
        ]
        chart = alt.Chart(rows_of(rows)).mark_line(point=True)
        chart = chart.encode(
            alt.X("Epoch:Q", axis=alt.Axis(tickMinStep=1, format="d")),
            alt.Y(f"{title}:Q", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
            colours("Curve", names.values()),
        )
        place.altair_chart(chart.properties(height=high(_PLOT, len(names))), width="stretch", alt=f"{title} by epoch")


def _show_end(client: Client, job: dict[str, Any]) -> None:
    st.subheader("The last retraining")
    say = {"promoted": st.success, "failed": st.error}.get(job["state"], st.info)
    judged = job["state"] in ("promoted", "rejected")  # the reason is then a test's numbers, else words
    say(
        outcome(job, in_use(client)) if judged else f"{outcome(job, in_use(client))}\n\n{plain(job['reason'])}".rstrip()
    )
    if judged:
        st.caption(plain(job["reason"]))
    st.caption(
        f"Asked for by {plain(job['requested_by'])} on {moment(job['created_at'])}, ended on "
        f"{moment(job['finished_at'])}."
    )
    with st.expander("How it learned"):
        _show_curves(job["metrics"])
    show_verdict(client, job)
