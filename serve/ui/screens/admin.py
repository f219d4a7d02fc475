"""The Admin screen: the model in use, quarantine, retrainings, API keys and requests."""

from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from serve.ui import address
from serve.ui.charts import model_charts
from serve.ui.components import START_WITH_STORAGE, show_confirmation, show_figure, show_verdict, warn_without_worker
from serve.ui.error_messages import error_boundary
from serve.ui.screens import api_keys, deployments, review, stored_image
from serve.ui.session import has_storage, read, version_in_use
from serve.ui.text import admin_findings
from serve.ui.text.sentences import describe_outcome, escape_markdown, format_age, format_time

_REFRESH_S = 10.0
_JOBS = 50


def show(client: Client) -> None:
    """Show the screen."""
    st.title("Admin")
    show_confirmation()
    if has_storage(client):
        parts = {
            "deploying": deployments.show,
            "quarantine": review.show,
            "image": stored_image.show,
            "jobs": _show_jobs,
            "keys": api_keys.show,
        }
        for name, show_part in parts.items():
            with error_boundary(name, part=True):
                show_part(client)
    else:
        st.info(
            "This server stores no data: there are no retrainings, deployments, uploads or keys. " + START_WITH_STORAGE
        )
    st.header("Traffic")
    _show_traffic(client)


@st.fragment(run_every=_REFRESH_S)
@error_boundary("traffic")
def _show_traffic(client: Client) -> None:
    statistics = client.call("GET", "/statistics")
    totals, minutes = statistics["totals"], statistics["minutes"]
    with st.container(horizontal=True):
        st.metric("Running for", format_age(statistics["uptime_s"]), width="content")
        for name, title in (("requests", "Requests"), ("predictions", "Predictions"), ("server_errors", "Failed")):
            st.metric(title, f"{totals[name]:,}", width=150)
    show_figure(model_charts.requests(minutes), "Requests and errors", admin_findings.traffic(statistics))
    show_figure(model_charts.latencies(minutes), "Latency", admin_findings.latency(minutes))
    st.caption(
        f"The numbers count from {format_time(statistics['started_at'])}; the charts show the last {len(minutes)} "
        "minutes. They are those of the server that answered: where there are several, each counts its own requests."
    )


def _show_jobs(client: Client) -> None:
    st.header("Retrainings")
    jobs = read(client, "/retrain_jobs", limit=_JOBS)
    st.markdown(escape_markdown(admin_findings.jobs(jobs, _JOBS)))
    if not jobs:
        return
    warn_without_worker(jobs[0]["worker"])
    st.dataframe(pd.DataFrame([_row(job) for job in jobs]), hide_index=True, alt="The last retrainings")
    by_id = {job["job_id"]: job for job in jobs}
    job_id = address.choose(
        "Retraining to look at",
        list(by_id),
        "job",
        format_func=lambda job_id: _title(by_id[job_id]),
        placeholder="Choose a retraining",
    )
    if job_id is None:
        return
    job = by_id[job_id]
    with st.container(border=True):
        st.markdown(f"{describe_outcome(job, version_in_use(client))}\n\n{escape_markdown(job['reason'])}".rstrip())
        settings = ", ".join(f"{name} {value}" for name, value in job["request"].items() if value is not None)
        st.caption(escape_markdown(f"{job['job_id']}: {settings}").replace("_", " "))
        show_verdict(client, job)


def _title(job: dict[str, Any]) -> str:
    return f"{format_time(job['created_at'])}, {admin_findings.state_name(job)}, {job['job_id'][:8]}"


def _row(job: dict[str, Any]) -> dict[str, Any]:
    seconds = admin_findings.job_seconds(job)
    return {
        "Requested": format_time(job["created_at"]),
        "By": job["requested_by"],
        "State": admin_findings.state_name(job),
        "Epochs": job["epoch"],
        "Minutes": None if seconds is None else round(seconds / 60, 1),
        "Started from": job["parent"],
        "New version": job["version"],
        "Reason": job["reason"],
    }
