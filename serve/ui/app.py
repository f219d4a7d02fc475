"""The page's frame: sign-in, navigation and the words at its foot. ``scripts/ui.py`` starts it."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from lesion.client import Client
from lesion.core.errors import LesionError
from serve.ui.error_messages import guarded, tell
from serve.ui.screens import admin, data, model, retrain
from serve.ui.screens.predict import page
from serve.ui.session import ROLES, connect, me, sign_in, sign_out
from serve.ui.text.sentences import DISCLAIMER, plain

ICON = Path(__file__).parent / "icon.png"  # Streamlit would fetch one of its own from the net
# Title, address, least role, icon, and what shows it; the first is the one that opens.
PAGES: tuple[tuple[str, str, str, str, Callable[[Client], None]], ...] = (
    ("Predict", "predict", "viewer", ":material/search:", page.show),
    ("Visualizations", "visualizations", "viewer", ":material/bar_chart:", data.show),
    ("Upload & Retrain", "training", "contributor", ":material/upload:", retrain.show),
    ("Model Info", "model", "viewer", ":material/info:", model.show),
    ("Admin", "admin", "admin", ":material/settings:", admin.show),
)


def main() -> None:
    """Show the page that was chosen to who signed in, or the sign-in."""
    st.set_page_config("Lesion", ICON, layout="wide")
    with guarded("frame"):
        client = connect()
        try:
            who = me(client)
        except LesionError as error:
            # So that the page that was asked for is the one that opens when the server is back, or who asked signed in.
            st.navigation(_pages(client, ROLES), position="hidden")
            if error.status != 401:
                raise
            _sign_in(error)
        else:
            _signed_in(client, who)
    st.divider()
    st.caption(DISCLAIMER)


def _signed_in(client: Client, who: dict[str, Any]) -> None:
    elsewhere = isinstance(st.context.ip_address, str)  # None for this machine, and a stand-in in a test
    if elsewhere and not who["keys"] and who["name"] == "local":
        st.error(
            "The server behind it has no API keys, and then only this page's own machine may use it. Make keys with "
            "'python scripts/keys.py create NAME --role admin'.",
            title="This page is not open to other machines",
        )
        return
    roles = ROLES[: ROLES.index(who["role"]) + 1]
    pages = _pages(client, roles)
    chosen = st.navigation(pages, position="hidden")
    with st.container(horizontal=True):  # on a phone Streamlit's own unfolds over the page and stays there
        for page in pages:
            st.page_link(page)
    chosen.run()
    if who["keys"]:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"Signed in as {plain(who['name'])}, {who['role']}.")
            st.button("Sign out", on_click=sign_out, type="tertiary")


def _pages(client: Client, roles: Sequence[str]) -> list[st.Page]:
    """Return the pages for who has these roles."""
    return [
        st.Page(partial(_page, show, client), title=title, url_path=path, icon=icon)
        for title, path, role, icon, show in PAGES
        if role in roles
    ]


def _page(show: Callable[[Client], None], client: Client) -> None:
    with guarded():  # what follows the page is shown whatever becomes of it
        show(client)


def _sign_in(refusal: LesionError) -> None:
    """Ask for a key, and say why the last one was not taken."""
    st.title("Lesion")
    if refusal.code != "key_missing":
        tell(refusal)
    with st.form("sign-in"):
        key = st.text_input(
            "API key",
            type="password",
            autocomplete="current-password",
            help="Whoever runs the server makes keys. It is kept for this browser window alone.",
        )
        sent = st.form_submit_button("Sign in", type="primary")
    if sent and key.strip():
        try:
            sign_in(key.strip())
        except LesionError as error:
            tell(error)
        else:
            st.rerun()


main()
