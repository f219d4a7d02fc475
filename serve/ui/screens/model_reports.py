"""Pages that the server made, shown inside this one, and how the gate decided."""

from html import escape
from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from serve.ui.session import read_bytes
from serve.ui.text.sentences import plain

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_JUDGED = ("promoted", "rejected")  # these have the gate's report


def show_report(page: str, name: str, height: int = 700) -> None:
    """Show a whole HTML page in a frame, where it can run nothing and load nothing.

    Args:
        page: The page.
        name: What it is, for those who do not see it.
        height: Pixels.
    """
    # The outer frame is Streamlit's and would let scripts run; the sandbox of the inner one does not.
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    style = "border:0;width:100%;height:100vh;background:white"
    inner = f'<iframe sandbox title="{escape(name)}" srcdoc="{escape(policy + page)}" style="{style}"></iframe>'
    st.iframe(f'<!doctype html><html><body style="margin:0">{inner}</body></html>', height=height, alt=name)


def show_verdict(client: Client, job: dict[str, Any]) -> None:
    """Show on what grounds the gate decided on a retraining, and its report on demand."""
    checks = (job["verdict"] or {}).get("checks", [])
    if checks:
        rows = [{"Holds": "yes" if one["passed"] else "no", "Condition": plain(one["sentence"])} for one in checks]
        with st.expander("What was compared"):
            st.table(pd.DataFrame(rows).set_index("Holds"), alt="What the gate compared")
    if job["state"] in _JUDGED and st.toggle("Show the whole report", key=f"gate-{job['job_id']}"):
        page = read_bytes(client, f"/retrain_jobs/{job['job_id']}/report")
        st.download_button("Download the report", page, f"gate-{job['job_id']}.html", "text/html", on_click="ignore")
        show_report(page.decode(), "The report of the decision")
