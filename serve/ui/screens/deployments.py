"""The model in use on the Admin screen: rolling back, promoting by hand, and the history."""

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from serve.ui.components import apply_change, ask_reason, offer_csv
from serve.ui.error_messages import error_boundary
from serve.ui.session import read
from serve.ui.text import admin_findings
from serve.ui.text.sentences import escape_markdown, format_time


def show(client: Client) -> None:
    """Show which model is in use, and let users change it."""
    st.header("Model in use")
    deployments = read(client, "/deployments")
    st.markdown(escape_markdown(admin_findings.deployments(deployments)))
    if not deployments:
        return
    current = deployments[-1]
    # The last deployment of the version that a rollback would bring back.
    previous = next((row for row in reversed(deployments) if row["version"] == current["rollback_to"]), None)
    others = [row["version"] for row in reversed(read(client, "/models")) if row["version"] != current["version"]]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if st.button("Roll back", disabled=previous is None) and previous is not None:
            roll_back(client, current, previous)
        version = st.selectbox("Version to promote", others, index=None, placeholder="Choose a version", width=240)
        if st.button("Promote", disabled=version is None) and version is not None:
            promote(client, version, current["id"])
    if previous is None:
        st.caption("There is no earlier version to roll back to.")
    _show_history(deployments)


def _show_history(deployments: list[dict[str, Any]]) -> None:
    st.subheader("History")
    columns = {"Version": "version", "Action": "action", "By": "actor", "Reason": "reason"}
    rows = [
        {"When": format_time(row["created_at"])} | {title: row[name] for title, name in columns.items()}
        for row in reversed(deployments)
    ]
    # Not st.table, which wraps: on a phone a gate's reason would become a column of single words.
    st.dataframe(pd.DataFrame(rows), hide_index=True, alt="The changes of the model in use, the last one first")
    offer_csv("Download the history as CSV", rows, "deployments.csv")


@st.dialog("Bring back the previous model")
@error_boundary("roll-back")
def roll_back(client: Client, current: dict[str, Any], previous: dict[str, Any]) -> None:
    """Ask for a reason, and roll back to the version of ``previous``, unless another deployment followed."""
    st.markdown(
        f"{previous['version']}, which was last put into use on {format_time(previous['created_at'])}, is in use again "
        f"within seconds, on every server. To undo this, promote {current['version']}."
    )
    if (reason := ask_reason("Roll back now")) is not None:
        apply_change(partial(client.rollback, reason, current["id"]), f"{previous['version']} is in use again.")


@st.dialog("Promote a model by hand")
@error_boundary("promote")
def promote(client: Client, version: str, expected: int) -> None:
    """Ask for a reason, and put a version into use, unless another deployment has followed the expected one."""
    st.markdown(f"{version} is in use from now on, whether or not the gate found it better.")
    if (reason := ask_reason("Promote now")) is not None:
        body = {"reason": reason, "expected": expected}
        request = partial(client.call, "POST", f"/models/{version}/promote", json=body)
        apply_change(request, f"{version} is in use now.")
