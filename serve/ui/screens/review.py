"""Images that wait for an admin: looked at in pages, released under the right class, or dropped."""

from functools import partial
from typing import Any

import streamlit as st

from lesion.client import Client
from lesion.core.errors import LesionError
from serve.ui.components import act, reason
from serve.ui.error_messages import advice, guarded, of_the_session
from serve.ui.session import read, read_bytes
from serve.ui.text import admin_findings
from serve.ui.text.sentences import moment, plain

_A_PAGE = 8
_CARD = 260  # pixels


def show(client: Client) -> None:
    """Show one page of what waits."""
    st.header("Quarantine")
    turned: list[int] = st.session_state.setdefault("quarantine-pages", [0])  # the last id of each page before
    images = read(client, "/quarantine", after=turned[-1], limit=_A_PAGE)["images"]
    if not images and len(turned) > 1:  # the last one here was decided
        turned.pop()
        images = read(client, "/quarantine", after=turned[-1], limit=_A_PAGE)["images"]
    waiting = read(client, "/training_data")["status"]["quarantined"]
    st.markdown(plain(admin_findings.quarantine(waiting, images)))
    classes = read(client, "/info")["classes"]
    with st.container(horizontal=True):
        for image in images:
            with st.container(border=True, width=_CARD):
                _show_image(client, image, classes)
    if len(turned) > 1 or len(images) == _A_PAGE:
        with st.container(horizontal=True):
            if st.button("Earlier", disabled=len(turned) == 1):
                turned.pop()
                st.rerun()
            if st.button("Later", disabled=len(images) < _A_PAGE):
                turned.append(images[-1]["id"])
                st.rerun()


def _show_image(client: Client, image: dict[str, Any], classes: list[str]) -> None:
    """Show an image, why it waits, and what can be done."""
    sha256, given = image["sha256"], image["label"]
    try:
        picture = read_bytes(client, f"/quarantine/{sha256}/thumbnail")
    except LesionError as error:
        if of_the_session(error):
            raise
        st.warning(plain(error.message), title=advice(error).title)  # it can be decided on all the same
    else:
        st.image(picture, width="stretch", alt=f"Image that was uploaded as {given}")
    st.markdown(f"Uploaded as **{plain(given)}**")
    st.caption(plain(f"{image['reason']} By {image['uploader']}, {moment(image['created_at'])}."))
    index = classes.index(given) if given in classes else None
    label = st.selectbox("Release as", classes, index=index, key=f"label-{sha256}")
    with st.container(horizontal=True):
        if st.button("Release", key=f"release-{sha256}", type="primary", disabled=label is None):
            change = partial(client.call, "POST", f"/quarantine/{sha256}/release", json={"label": label})
            act(change, f"The image is accepted as {label}.")
        if st.button("Drop", key=f"drop-{sha256}"):
            drop(client, sha256)


@st.dialog("Drop an image")
@guarded("drop")
def drop(client: Client, sha256: str) -> None:
    """Ask why, and refuse an image for good."""
    st.markdown("Its pixels are removed for good, and it is not taken again.")
    if (why := reason("Drop now")) is not None:
        act(partial(client.call, "POST", f"/quarantine/{sha256}/drop", json={"reason": why}), "The image is dropped.")
