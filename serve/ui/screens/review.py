"""Quarantine on the Admin screen: images that wait for a decision, to be released under the right class or dropped."""

from functools import partial
from typing import Any

import streamlit as st

from lesion.client import Client, ClientError
from serve.ui.components import apply_change, ask_reason
from serve.ui.error_messages import advice_for, error_boundary, is_session_error
from serve.ui.session import read, read_bytes
from serve.ui.text import admin_findings
from serve.ui.text.class_names import shown_name
from serve.ui.text.sentences import escape_markdown, format_time

_PAGE_SIZE = 8
_CARD_WIDTH = 260  # pixels


def show(client: Client) -> None:
    """Show one page of the waiting images."""
    st.header("Quarantine")
    page_starts: list[int] = st.session_state.setdefault("quarantine-pages", [0])  # the id that each page begins after
    images = read(client, "/quarantine", after=page_starts[-1], limit=_PAGE_SIZE)["images"]
    if not images and len(page_starts) > 1:  # the last image of this page was decided on
        page_starts.pop()
        images = read(client, "/quarantine", after=page_starts[-1], limit=_PAGE_SIZE)["images"]
    total = read(client, "/training_data")["status"]["quarantined"]
    st.markdown(escape_markdown(admin_findings.quarantine(total, images)))
    names = read(client, "/info")["class_names"]
    with st.container(horizontal=True):
        for image in images:
            with st.container(border=True, width=_CARD_WIDTH):
                _show_image(client, image, names)
    if len(page_starts) > 1 or len(images) == _PAGE_SIZE:
        with st.container(horizontal=True):
            if st.button("Earlier", disabled=len(page_starts) == 1):
                page_starts.pop()
                st.rerun()
            if st.button("Later", disabled=len(images) < _PAGE_SIZE):
                page_starts.append(images[-1]["id"])
                st.rerun()


def _show_image(client: Client, image: dict[str, Any], names: dict[str, str]) -> None:
    sha256, label = image["sha256"], image["label"]
    uploaded_as = shown_name(label, names)
    try:
        thumbnail = read_bytes(client, f"/quarantine/{sha256}/thumbnail")
    except ClientError as error:
        if is_session_error(error):
            raise
        st.warning(escape_markdown(error.message), title=advice_for(error).title)  # a decision is still possible
    else:
        st.image(thumbnail, width="stretch", alt=f"Image that was uploaded as {uploaded_as}")
    st.markdown(f"Uploaded as **{escape_markdown(uploaded_as)}**")
    st.caption(
        escape_markdown(f"{image['reason']} Uploaded by {image['uploader']} on {format_time(image['created_at'])}.")
    )
    classes = list(names)
    index = classes.index(label) if label in names else None
    chosen = st.selectbox(
        "Release as", classes, index=index, format_func=partial(shown_name, names=names), key=f"label-{sha256}"
    )
    with st.container(horizontal=True):
        if st.button("Release", key=f"release-{sha256}", type="primary", disabled=chosen is None) and chosen:
            request = partial(client.call, "POST", f"/quarantine/{sha256}/release", json={"label": chosen})
            apply_change(request, f"The image is accepted as {shown_name(chosen, names)}.")
        if st.button("Drop", key=f"drop-{sha256}"):
            drop(client, sha256)


@st.dialog("Drop an image")
@error_boundary("drop")
def drop(client: Client, sha256: str) -> None:
    """Ask for a reason, and refuse an image permanently."""
    st.markdown("Its pixels are deleted permanently, and the same image is not accepted again.")
    if (reason := ask_reason("Drop now")) is not None:
        request = partial(client.call, "POST", f"/quarantine/{sha256}/drop", json={"reason": reason})
        apply_change(request, "The image is dropped.")
