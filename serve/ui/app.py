"""The frame of the page: sign-in, navigation and the disclaimer below. ``lesion ui`` starts it."""

from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import streamlit as st

from lesion.client import Client, ClientError, KeyMissingError
from lesion.core.roles import ROLES
from serve.ui.error_messages import error_boundary, show_error
from serve.ui.screens import admin, data, model, retrain, review
from serve.ui.screens.predict import page
from serve.ui.session import admit, connect, current_user, dismiss, free_files, remember_sign_in, sign_in, sign_out
from serve.ui.text.sentences import DISCLAIMER, escape_markdown

ICON = Path(__file__).parent / "icon.png"  # Streamlit would fetch its own from the internet
STYLE = Path(__file__).parent / "style.css"
# Title, address, lowest role that sees it, icon and function of each screen; the first screen opens by default.
SCREENS: tuple[tuple[str, str, str, str, Callable[[Client], None]], ...] = (
    ("Predict", "predict", "viewer", ":material/search:", page.show),
    ("Visualizations", "visualizations", "viewer", ":material/bar_chart:", data.show),
    ("Upload & Retrain", "training", "contributor", ":material/upload:", retrain.show),
    ("Model Info", "model", "viewer", ":material/info:", model.show),
    ("Admin", "admin", "admin", ":material/settings:", admin.show),
)


def main() -> None:
    """Show the chosen screen, or the sign-in."""
    st.set_page_config("Lesion", ICON, layout="wide")
    st.html(STYLE)
    with error_boundary("frame"):
        client = connect()
        try:
            user = current_user(client)
        except ClientError as error:
            # So that the requested screen opens as soon as the server is back or the user has signed in.
            st.navigation(_screens(client, ROLES), position="hidden")
            if error.status != HTTPStatus.UNAUTHORIZED:
                raise
            dismiss()
            _show_sign_in(error)
        else:
            _show_screen(client, user)
    st.divider()
    st.caption(DISCLAIMER)


def _show_screen(client: Client, user: dict[str, Any]) -> None:
    remote = isinstance(st.context.ip_address, str)  # None for this machine, and a stand-in in a test
    if remote and not user["keys"] and user["name"] == "local":
        st.error(
            "The server behind this page has no API keys, so only the machine that runs the page may use it. Create a "
            "key with 'lesion keys create NAME --role admin'.",
            title="This page is not open to other machines",
        )
        return
    admit()
    screens = _screens(client, ROLES[: ROLES.index(user["role"]) + 1])
    chosen = st.navigation(screens, position="hidden")
    with st.container(horizontal=True):  # Streamlit's own navigation covers the page on a phone
        for screen in screens:
            st.page_link(screen)
    if st.session_state.get("screen") != chosen.url_path:
        st.session_state["screen"] = chosen.url_path
        review.leave_list()
    chosen.run()
    if user["keys"]:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"Signed in as {escape_markdown(user['name'])}, {user['role']}.")
            st.button("Sign out", on_click=sign_out, type="tertiary")
        remember_sign_in()
    free_files()


def _screens(client: Client, roles: Sequence[str]) -> list[st.Page]:
    return [
        # In its own boundary, so that what follows the screen is shown even if the screen fails.
        st.Page(partial(error_boundary()(show), client), title=title, url_path=path, icon=icon)
        for title, path, role, icon, show in SCREENS
        if role in roles
    ]


def _show_sign_in(refusal: ClientError) -> None:
    st.title("Lesion")
    if not isinstance(refusal, KeyMissingError):
        show_error(refusal)
    with st.form("sign-in"):
        key = st.text_input(
            "API key",
            type="password",
            autocomplete="current-password",
            help="The person who runs the server creates keys. You stay signed in, in all windows of this browser, "
            "until you sign out or the time is over.",
        )
        pressed = st.form_submit_button("Sign in", type="primary")
    if pressed and key.strip():
        try:
            sign_in(key.strip())
        except ClientError as error:
            show_error(error)
        else:
            st.rerun()


main()
