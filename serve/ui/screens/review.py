"""Quarantine on the Admin screen: images that wait for a decision, to be released under the right class or dropped.

A card keeps its place and its size until the list is left, so that a click never hits another image than the one that
was under the mouse. What was decided can be undone on the same card.
"""

import io
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

import streamlit as st
from PIL import Image

from lesion.client import Client, ClientError
from lesion.core.text import clean_name, format_count
from serve.ui.components import ask_reason, confirm
from serve.ui.error_messages import (
    advice_for,
    describe_failed_click,
    error_boundary,
    is_session_error,
    report_failure,
    show_error,
)
from serve.ui.session import class_names, clear_cache, read, read_bytes
from serve.ui.text import admin_findings
from serve.ui.text.class_names import shown_name
from serve.ui.text.sentences import escape_markdown, format_time

_PAGE_SIZE = 8
_CARD_WIDTH = 320  # pixels
_STATUS_LETTERS = 38  # that fit in one line of a card
_LIST = "quarantine-list"  # in the session
_FAILED = "This was not done: see below."
_GRAY, _GRAYED = 128, 0.6  # how a decided image is shown: mixed with so much gray


@dataclass
class _List:
    """One page of waiting images as it was read; ``None`` until it is read."""

    images: list[dict[str, Any]] | None = None
    sentence: str = ""
    page_starts: list[int] = field(default_factory=lambda: [0])  # the id that each page begins after
    pictures: dict[str, bytes] = field(default_factory=dict)  # by hash
    decided: dict[str, dict[str, Any]] = field(default_factory=dict)  # what the server answered, by hash
    failed: tuple[str, ClientError] | None = None  # the hash of the last click's image, if it was refused


def leave_list() -> None:
    """Forget the list that was shown, so that the next visit reads what waits then."""
    st.session_state.pop(_LIST, None)


def show(client: Client) -> None:
    """Show one page of the waiting images."""
    st.header("Quarantine")
    shown = _shown_list()
    images = _read_images(client, shown)
    st.markdown(escape_markdown(shown.sentence))
    if images:
        st.caption("Images with the most doubtful labels come first.")
    names = read(client, "/info")["class_names"]
    with st.container(horizontal=True):
        for number, image in enumerate(images, 1):
            with st.container(border=True, width=_CARD_WIDTH):
                _show_card(client, shown, image, f"image {number}", names)
    if shown.failed is not None:  # below the cards, which must not move
        show_error(shown.failed[1], describe_failed_click(shown.failed[1]))
    if images:
        _show_pages(shown, images)
    if st.toggle("Show earlier decisions"):
        _show_earlier(client, names)


def _show_pages(shown: _List, images: list[dict[str, Any]]) -> None:
    """Show how many images of the list are decided, and buttons that read another list."""
    st.caption(f"{len(shown.decided)} of {format_count(len(images), 'image')} in this list decided.")
    starts, full = shown.page_starts, len(images) == _PAGE_SIZE
    with st.container(horizontal=True):
        if st.button("Previous images", disabled=len(starts) == 1):
            _turn_to(starts[:-1])
        if st.button("Next images", disabled=not full):
            _turn_to([*starts, images[-1]["id"]])
        if st.button("Read the list again"):
            clear_cache()
            _turn_to(starts)


def _show_earlier(client: Client, names: dict[str, str]) -> None:
    """Let users undo a decision whose list was left."""
    images = read(client, "/quarantine/decisions")["images"]
    if not images:
        st.markdown("Nothing was released or dropped yet.")
        return
    titles = {
        image["sha256"]: f"{format_time(image['decision']['at'])}: {admin_findings.decision(image, names)}"
        for image in images
    }
    sha256 = st.selectbox("Earlier decision", list(titles), None, titles.__getitem__, placeholder="Choose a decision")
    if sha256 is None:
        return
    image = next(image for image in images if image["sha256"] == sha256)
    st.image(
        read_bytes(client, f"/quarantine/{sha256}/thumbnail"), width=_CARD_WIDTH, alt="The image that was decided on"
    )
    if st.button("Undo the chosen decision"):
        with report_failure():
            _decide(client, sha256, "image", "undo", {"expected": image["decision"]["id"]})
            st.rerun()


def _turn_to(page_starts: list[int]) -> None:
    st.session_state[_LIST] = _List(page_starts=page_starts)
    st.rerun()


def _shown_list() -> _List:
    shown: _List = st.session_state.setdefault(_LIST, _List())
    return shown


def _read_images(client: Client, shown: _List) -> list[dict[str, Any]]:
    """Return the images of the list, which are read only once."""
    if shown.images is None:
        images = _read_page(client, shown.page_starts[-1])
        while not images and len(shown.page_starts) > 1:  # everything on this page was decided on
            shown.page_starts.pop()
            images = _read_page(client, shown.page_starts[-1])
        total = read(client, "/training_data")["status"]["quarantined"]
        shown.sentence, shown.images = admin_findings.quarantine(total, images), images
    return shown.images


def _read_page(client: Client, after: int) -> list[dict[str, Any]]:
    """Return the next waiting images after the one with this id, those with the most doubtful labels first."""
    images: list[dict[str, Any]] = read(client, "/quarantine", after=after, limit=_PAGE_SIZE, order="doubt")["images"]
    return images


def _show_card(client: Client, shown: _List, image: dict[str, Any], name: str, names: dict[str, str]) -> None:
    """Show an image with its buttons; whatever was decided, the card has the same parts."""
    sha256, label, decided = image["sha256"], image["label"], shown.decided.get(image["sha256"])
    uploaded_as = shown_name(label, names)
    st.markdown(f"**{name.capitalize()}**")
    _show_picture(client, shown, sha256, f"{name.capitalize()}, which was uploaded as {uploaded_as}")
    st.markdown(f"Uploaded as **{escape_markdown(uploaded_as)}**")
    st.caption(
        escape_markdown(f"{image['reason']} Uploaded by {image['uploader']} on {format_time(image['created_at'])}.")
    )
    key = f"label-{sha256}"
    if decided is not None and decided["label"] in names:
        st.session_state[key] = decided["label"]  # perhaps somebody else's choice
    elif key not in st.session_state and label in names:
        st.session_state[key] = label
    called = partial(shown_name, names=names)
    over = decided is not None
    chosen = st.selectbox(f"Release {name} as", list(names), None, format_func=called, key=key, disabled=over)
    failed = shown.failed is not None and shown.failed[0] == sha256
    status = _FAILED if failed else admin_findings.decision(decided, names)
    st.markdown(escape_markdown(clean_name(status, _STATUS_LETTERS)))
    _show_buttons(client, shown, sha256, name, chosen)


def _show_buttons(client: Client, shown: _List, sha256: str, name: str, chosen: str | None) -> None:
    # Callbacks run before the page is drawn again, so that a click is not lost when another one follows at once.
    decided, clicked = shown.decided.get(sha256), (client, sha256, name)
    over = decided is not None
    with st.container(horizontal=True):
        st.button(
            f"Release {name}",
            key=f"release-{sha256}",
            type="primary",
            disabled=over or not chosen,
            on_click=_click,
            args=(*clicked, "release"),
        )
        if st.button(f"Drop {name}", key=f"drop-{sha256}", disabled=over):
            drop(client, sha256, name)
    fixed = decided is None or not decided["undoable"]
    st.button(f"Undo {name}", key=f"undo-{sha256}", disabled=fixed, on_click=_click, args=(*clicked, "undo"))


def _click(client: Client, sha256: str, name: str, what: str) -> None:
    """Release an image, or undo what was decided; a second click on a button that is over by then does nothing."""
    shown = _shown_list()
    decided, label = shown.decided.get(sha256), st.session_state.get(f"label-{sha256}")
    try:
        if what == "release" and decided is None and label is not None:
            _decide(client, sha256, name, what, {"label": label})
        elif what == "undo" and decided is not None:
            _decide(client, sha256, name, what, {"expected": decided["decision"]["id"]})
    except ClientError as error:
        shown.failed = sha256, error
        if error.status == HTTPStatus.UNAUTHORIZED:  # the page asks who this is, and offers to sign in
            clear_cache()


def _decide(client: Client, sha256: str, name: str, what: str, body: dict[str, Any]) -> None:
    """Decide about an image and remember the answer; if somebody else decided meanwhile, remember that."""
    shown, refusal = _shown_list(), None
    try:
        answer = client.call("POST", f"/quarantine/{sha256}/{what}", json=body)
    except ClientError as error:
        if error.status != HTTPStatus.CONFLICT:
            raise
        answer, refusal = client.call("GET", f"/images/{sha256}"), error
    if answer["status"] == "quarantined":
        shown.decided.pop(sha256, None)
    else:
        shown.decided[sha256] = answer
    shown.failed = (sha256, refusal) if refusal is not None else None
    clear_cache()
    if refusal is None:
        versions = answer.get("versions", [])
        confirm(admin_findings.decided(name, answer, class_names(client), [row["version"] for row in versions]))


@st.dialog("Drop an image")
@error_boundary("drop")
def drop(client: Client, sha256: str, name: str = "image") -> None:
    """Show an image, ask for a reason, and refuse the image."""
    _show_picture(client, _shown_list(), sha256, f"The {name} that would be dropped")
    st.markdown("It is not accepted again. The picture is kept for a week, so that this can be undone, then deleted.")
    if (reason := ask_reason("Drop now")) is not None:
        with report_failure():
            _decide(client, sha256, name, "drop", {"reason": reason})
            st.rerun()


def _show_picture(client: Client, shown: _List, sha256: str, alt: str) -> None:
    if sha256 not in shown.pictures:
        try:
            shown.pictures[sha256] = read_bytes(client, f"/quarantine/{sha256}/thumbnail")
        except ClientError as error:
            if is_session_error(error):
                raise
            st.warning(escape_markdown(error.message), title=advice_for(error).title)  # a decision is still possible
            return
    picture: Any = shown.pictures[sha256]
    if sha256 in shown.decided:  # grayed
        gray = Image.open(io.BytesIO(picture)).convert("L").convert("RGB")
        picture = Image.blend(gray, Image.new("RGB", gray.size, (_GRAY,) * 3), _GRAYED)
    st.image(picture, width="stretch", alt=alt)
