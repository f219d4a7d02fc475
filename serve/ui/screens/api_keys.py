"""API keys: who has one, a new one whose secret shows once, and revoking."""

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from serve.ui.components import act
from serve.ui.error_messages import attempted, guarded
from serve.ui.session import me, read, refresh, sign_in
from serve.ui.text import admin_findings
from serve.ui.text.sentences import moment, plain

_ROLES = {
    "viewer": "sees and predicts",
    "contributor": "uploads as well",
    "admin": "may do everything",
}
_MADE = "made-key"  # in the session until its owner has copied it


def show(client: Client) -> None:
    """Show the keys, and let people make and revoke them."""
    st.header("API keys")
    found = read(client, "/keys")
    st.markdown(plain(admin_findings.keys(found, me(client)["name"])))
    _show_new()
    if found:
        st.dataframe(pd.DataFrame([_row(key) for key in found]), hide_index=True, alt="API keys")
    _make(client)
    _choose_to_revoke(client, [key for key in found if key["revoked_at"] is None])


def _row(key: dict[str, Any]) -> dict[str, Any]:
    return {
        "Name": key["name"],
        "Role": key["role"],
        "Requests today": key["requests_today"],
        "A minute at most": key["per_minute"],
        "A day at most": key["per_day"],
        "Made": moment(key["created_at"]),
        "Revoked": moment(key["revoked_at"]) if key["revoked_at"] else "",
        "Id": key["id"],
    }


def _show_new() -> None:
    made = st.session_state.get(_MADE)
    if made is None:
        return
    with st.container(border=True):
        st.success(f"The key of {plain(made['name'])}. Copy it now: nobody can ever see it again.")
        st.code(made["key"], language=None, wrap_lines=True)
        if st.button("I have copied it"):
            del st.session_state[_MADE]
            st.rerun()


def _make(client: Client) -> None:
    """Make a key; the first one must be an admin's, and signs its maker in."""
    first = not me(client)["keys"]
    with st.expander("Make a key"):
        if first:
            st.warning(
                "With the first key the server asks everybody for one. It is an admin's, and you are signed in with it."
            )
        with st.form("new-key", clear_on_submit=True, border=False):
            name = st.text_input("Name", max_chars=100, help="Whose key it is: a person, a ward, a program.")
            roles = ["admin"] if first else list(_ROLES)
            role = st.selectbox("Role", roles, format_func=lambda one: f"{one}: {_ROLES[one]}")
            a_minute = st.number_input("Requests a minute", 1, value=None, placeholder="as the server has it")
            a_day = st.number_input("Requests a day", 1, value=None, placeholder="as the server has it")
            wanted = st.form_submit_button("Make the key", type="primary")
        if wanted:
            _create(client, {"name": name.strip(), "role": role, "per_minute": a_minute, "per_day": a_day}, first)


def _create(client: Client, wanted: dict[str, Any], first: bool) -> None:
    if not wanted["name"]:
        st.warning("A name is needed.")
        return
    with attempted():
        made = client.call("POST", "/keys", json=wanted)
        if first:
            sign_in(made["key"])
        st.session_state[_MADE] = made
        refresh()
        st.rerun()


def _choose_to_revoke(client: Client, keys: list[dict[str, Any]]) -> None:
    if not keys:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        key = st.selectbox(
            "Key to revoke",
            keys,
            index=None,
            format_func=lambda one: f"{one['name']} ({one['role']}, {one['id']})",
            placeholder="Choose one",
            width=320,
        )
        if st.button("Revoke", disabled=key is None) and key is not None:
            revoke(client, key)


@st.dialog("Revoke a key")
@guarded("revoke")
def revoke(client: Client, key: dict[str, Any]) -> None:
    """Make sure, and revoke a key for good."""
    st.markdown(f"Whoever uses the key of **{plain(key['name'])}** is refused from now on. This cannot be undone.")
    if st.button("Revoke now", type="primary"):
        act(partial(client.call, "DELETE", f"/keys/{key['id']}"), f"The key of {key['name']} is revoked.")
