"""The Admin page: what serves, what waits, what ran, who may what, and how the server does."""

from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from serve.ui.charts import model_charts
from serve.ui.components import START_IT, figure, show_done
from serve.ui.error_messages import guarded
from serve.ui.screens import api_keys, deployments, review
from serve.ui.screens.model_reports import show_verdict
from serve.ui.session import in_use, keeps_data, read
from serve.ui.text import admin_findings
from serve.ui.text.sentences import moment, outcome, plain, span

_LOOK_S = 10.0
_JOBS = 50


def show(client: Client) -> None:
    """Show the page."""
    st.title("Admin")
    show_done()
    if keeps_data(client):
        parts = {"deploying": deployments.show, "quarantine": review.show, "jobs": _show_jobs, "keys": api_keys.show}
        for name, show_part in parts.items():
            with guarded(name, part=True):
                show_part(client)
    else:
        st.info(f"This server keeps no data: there are no jobs, deployments, uploads or keys. {START_IT}")
    st.header("Traffic")
    _show_traffic(client)


@st.fragment(run_every=_LOOK_S)
@guarded("traffic")
def _show_traffic(client: Client) -> None:
    """Show what the server was asked and how it did, anew every few seconds."""
    found = client.call("GET", "/statistics")
    totals = found["totals"]
    with st.container(horizontal=True):
        st.metric("Up for", span(found["uptime_s"]), width="content")
        for name, words in (("requests", "Requests"), ("predictions", "Predictions"), ("server_errors", "Failed")):
            st.metric(words, f"{totals[name]:,}", width=150)
    figure(model_charts.requests(found["minutes"]), "Requests and errors", admin_findings.traffic(found))
    figure(model_charts.latencies(found["minutes"]), "Latency", admin_findings.pace(found["minutes"]))
    st.caption(
        f"Since {moment(found['started_at'])}; the last {len(found['minutes'])} minutes are drawn. "
        "Of the server that answered: where there are several, each counts its own."
    )


def _show_jobs(client: Client) -> None:
    """Show the retrainings, and one of them closely."""
    st.header("Retrainings")
    jobs = read(client, "/retrain_jobs", limit=_JOBS)
    st.markdown(plain(admin_findings.jobs(jobs, _JOBS)))
    if not jobs:
        return
    st.dataframe(pd.DataFrame([_row(job) for job in jobs]), hide_index=True, alt="The last retrainings")
    chosen = st.selectbox(
        "Retraining to look at",
        jobs,
        index=None,
        format_func=lambda job: f"{moment(job['created_at'])}, {job['state']}, {job['job_id'][:8]}",
        placeholder="Choose one",
    )
    if chosen is not None:
        _show_job(client, chosen)


def _row(job: dict[str, Any]) -> dict[str, Any]:
    seconds = admin_findings.seconds_of(job)
    return {
        "Asked for": moment(job["created_at"]),
        "By": job["requested_by"],
        "State": job["state"],
        "Epochs": job["epoch"],
        "Minutes": None if seconds is None else round(seconds / 60, 1),
        "From": job["parent"],
        "Made": job["version"],
        "Why": job["reason"],
    }


def _show_job(client: Client, job: dict[str, Any]) -> None:
    """Show why a retraining ended as it did."""
    with st.container(border=True):
        st.markdown(f"{outcome(job, in_use(client))}\n\n{plain(job['reason'])}".rstrip())
        settings = ", ".join(f"{name} {value}" for name, value in job["request"].items() if value is not None)
        st.caption(plain(f"{job['job_id']}: {settings}").replace("_", " "))
        show_verdict(client, job)
