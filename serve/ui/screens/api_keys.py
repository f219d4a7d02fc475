"""API keys on the Admin screen: the list, creating a key whose text is shown once, and revoking."""

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from lesion.core.roles import ROLES
from serve.ui.components import apply_change
from serve.ui.error_messages import error_boundary, report_failure
from serve.ui.session import clear_cache, current_user, read, sign_in
from serve.ui.text import admin_findings
from serve.ui.text.sentences import escape_markdown, format_time

_RIGHTS = {"viewer": "may look and predict", "contributor": "may also upload", "admin": "may do everything"}
_NEW_KEY = "new-key"  # in the session until the user has copied it


def show(client: Client) -> None:
    """Show the keys, and let users create and revoke them."""
    st.header("API keys")
    keys = read(client, "/keys")
    st.markdown(escape_markdown(admin_findings.keys(keys, current_user(client)["name"])))
    _show_new_key()
    if keys:
        st.dataframe(pd.DataFrame([_row(key) for key in keys]), hide_index=True, alt="API keys")
    _offer_to_create(client)
    _offer_to_revoke(client, [key for key in keys if key["revoked_at"] is None])


def _row(key: dict[str, Any]) -> dict[str, Any]:
    return {
        "Name": key["name"],
        "Role": key["role"],
        "Requests today": key["requests_today"],
        "Limit per minute": key["per_minute"],
        "Limit per day": key["per_day"],
        "Created": format_time(key["created_at"]),
        "Revoked": format_time(key["revoked_at"]) if key["revoked_at"] else "",
        "Id": key["id"],
    }


def _show_new_key() -> None:
    if (key := st.session_state.get(_NEW_KEY)) is None:
        return
    with st.container(border=True):
        st.success(f"This is the key of {escape_markdown(key['name'])}. Copy it now: it is never shown again.")
        st.code(key["key"], language=None, wrap_lines=True)
        if st.button("I have copied it"):
            del st.session_state[_NEW_KEY]
            st.rerun()


def _offer_to_create(client: Client) -> None:
    """Ask for a new key's name, role and limits; the first key must be an admin's, and signs its creator in."""
    first = not current_user(client)["keys"]
    with st.expander("Create a key"):
        if first:
            st.warning(
                "Once there is a key, the server asks everyone for one. The first key is an admin's, and you are "
                "signed in with it."
            )
        with st.form("create-key", clear_on_submit=True, border=False):
            name = st.text_input("Name", max_chars=100, help="Who uses the key: a person, a ward, a program.")
            roles = ["admin"] if first else ROLES
            role = st.selectbox("Role", roles, format_func=lambda role: f"{role}: {_RIGHTS[role]}")
            per_minute = st.number_input("Requests per minute", 1, value=None, placeholder="the server's default")
            per_day = st.number_input("Requests per day", 1, value=None, placeholder="the server's default")
            pressed = st.form_submit_button("Create the key", type="primary")
    if pressed and not name.strip():
        st.warning("Enter a name first.")
    elif pressed:
        request = {"name": name.strip(), "role": role, "per_minute": per_minute, "per_day": per_day}
        with report_failure():
            key = client.call("POST", "/keys", json=request)
            if first:
                sign_in(key["key"])
            st.session_state[_NEW_KEY] = key
            clear_cache()
            st.rerun()


def _offer_to_revoke(client: Client, keys: list[dict[str, Any]]) -> None:
    if not keys:
        return

    def title(key: dict[str, Any]) -> str:
        return f"{key['name']} ({key['role']}, {key['id']})"

    hint = "Choose a key"
    with st.container(horizontal=True, vertical_alignment="bottom"):
        key = st.selectbox("Key to revoke", keys, index=None, format_func=title, placeholder=hint, width=320)
        if st.button("Revoke", disabled=key is None) and key is not None:
            revoke(client, key)


@st.dialog("Revoke a key")
@error_boundary("revoke")
def revoke(client: Client, key: dict[str, Any]) -> None:
    """Ask for confirmation, and revoke a key permanently."""
    st.markdown(
        f"From now on the server refuses every request with the key of **{escape_markdown(key['name'])}**. This cannot "
        "be undone."
    )
    if st.button("Revoke now", type="primary"):
        apply_change(partial(client.call, "DELETE", f"/keys/{key['id']}"), f"The key of {key['name']} is revoked.")
