"""Which model serves: the history of champions, going back, and promoting by hand."""

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from serve.ui.components import act, reason
from serve.ui.error_messages import guarded
from serve.ui.session import read
from serve.ui.text import admin_findings
from serve.ui.text.sentences import moment, plain, spreadsheet


def show(client: Client) -> None:
    """Show what serves, and let people change it."""
    st.header("Model in use")
    ledger = read(client, "/deployments")
    st.markdown(plain(admin_findings.deployments(ledger)))
    if not ledger:
        return
    serving, back = ledger[-1]["version"], _before(ledger)
    others = [row["version"] for row in reversed(read(client, "/models")) if row["version"] != serving]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if st.button("Roll back", disabled=back is None) and back is not None:
            roll_back(client, ledger[-1], back)
        chosen = st.selectbox("Version to promote", others, index=None, placeholder="Choose one", width=240)
        if st.button("Promote", disabled=chosen is None) and chosen is not None:
            promote(client, chosen, ledger[-1]["id"])
    if back is None:
        st.caption("There is no version before this one to roll back to.")
    _show_history(ledger)


def _before(ledger: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the last deployment of the version that a rollback would bring back; None if there is none."""
    target = ledger[-1]["rollback_to"]
    return next((row for row in reversed(ledger) if row["version"] == target), None)


def _show_history(ledger: list[dict[str, Any]]) -> None:
    st.subheader("History")
    rows = [
        {
            "When": moment(row["created_at"]),
            "Version": row["version"],
            "What": row["action"],
            "By": row["actor"],
            "Why": row["reason"],
        }
        for row in reversed(ledger)
    ]
    # No table that wraps: on a phone a gate's reason would be a column of single words.
    st.dataframe(pd.DataFrame(rows), hide_index=True, alt="The changes of champion, the last one first")
    st.download_button(
        "Download the history as CSV", spreadsheet(rows), "deployments.csv", "text/csv", on_click="ignore"
    )


@st.dialog("Bring back the model before")
@guarded("roll-back")
def roll_back(client: Client, serving: dict[str, Any], back: dict[str, Any]) -> None:
    """Ask why, and go back from one deployment to the version of another, unless a third has followed."""
    st.markdown(
        f"{back['version']}, which was last put to use on {moment(back['created_at'])}, serves again within seconds, "
        f"on every server. To return, promote {serving['version']}."
    )
    if (why := reason("Roll back now")) is not None:
        act(partial(client.rollback, why, serving["id"]), f"{back['version']} serves again.")


@st.dialog("Promote a model by hand")
@guarded("promote")
def promote(client: Client, version: str, expected: int) -> None:
    """Ask why, and make a version the champion, unless another deployment has followed the expected one."""
    st.markdown(f"{version} serves from now on, whether or not the gate found it better.")
    if (why := reason("Promote now")) is not None:
        body = {"reason": why, "expected": expected}
        act(partial(client.call, "POST", f"/models/{version}/promote", json=body), f"{version} serves now.")
