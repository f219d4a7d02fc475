"""Which model serves: the history of champions, going back, and promoting by hand."""

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from serve.ui import admin_findings
from serve.ui.blocks import act, reason
from serve.ui.problems import guarded
from serve.ui.session import read
from serve.ui.words import moment, plain, spreadsheet


def show(client: Client) -> None:
    """Show what serves, and let people change it."""
    st.header("Model in use")
    ledger = read(client, "/deployments")
    st.markdown(plain(admin_findings.deployments(ledger)))
    if not ledger:
        return
    serving = ledger[-1]["version"]
    others = [row["version"] for row in reversed(read(client, "/models")) if row["version"] != serving]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if st.button("Roll back", disabled=len(ledger) < 2):
            roll_back(client, ledger[-1]["id"])
        chosen = st.selectbox("Version to promote", others, index=None, placeholder="Choose one", width=240)
        if st.button("Promote", disabled=chosen is None) and chosen is not None:
            promote(client, chosen, ledger[-1]["id"])
    _show_history(ledger)


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
def roll_back(client: Client, expected: int) -> None:
    """Ask why, and make the version before the champion the champion again, unless another deployment has followed."""
    st.markdown(
        "The model that this one replaced serves again within seconds, on every server. To return, promote this one."
    )
    if (why := reason("Roll back now")) is not None:
        act(partial(client.rollback, why, expected), "The model that this one replaced serves again.")


@st.dialog("Promote a model by hand")
@guarded("promote")
def promote(client: Client, version: str, expected: int) -> None:
    """Ask why, and make a version the champion, unless another deployment has followed the expected one."""
    st.markdown(f"{version} serves from now on, whether or not the gate found it better.")
    if (why := reason("Promote now")) is not None:
        body = {"reason": why, "expected": expected}
        act(partial(client.call, "POST", f"/models/{version}/promote", json=body), f"{version} serves now.")
