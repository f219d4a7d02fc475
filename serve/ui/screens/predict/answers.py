"""One image's answer: the image with what the model looked at, the answer in words and bars, and what people think."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from lesion.client import Client
from lesion.imaging.heatmap import overlay  # NumPy and Pillow alone, like what draws the server's own
from serve.ui.error_messages import attempted, guarded
from serve.ui.session import keeps_data, may, read, refresh
from serve.ui.text.sentences import DISCLAIMER, evidence, feedback, milliseconds, percent, plain, prediction, state_of

_FEW, _BARS, _MOST = 3, 5, 30
_KEPT = 50  # explanations


@dataclass(frozen=True)
class Picture:
    """An image that somebody chose.

    Attributes:
        id: Tells it from every other one of this session.
        name: As people know it.
        content: Gives the file's bytes.
        example: Whether it came with the page: a drawing that no model may learn from.
    """

    id: str
    name: str
    content: Callable[[], bytes]
    example: bool = False


def show(client: Client, picture: Picture, answer: dict[str, Any]) -> None:
    """Show an image and its answer side by side, one below the other on a phone."""
    left, right = st.columns([3, 2], gap="large")
    with left:
        _show_answer(answer, calibrated=bool(read(client, "/info")["calibration"].get("images")))
        if not picture.example and keeps_data(client) and may(client, "contributor"):
            _ask_opinion(client, picture, answer)
    with right:
        _show_overlay(client, picture, answer)


@st.fragment
@guarded("overlay")
def _show_overlay(client: Client, picture: Picture, answer: dict[str, Any]) -> None:
    """Show where the model looked; the slider and the class run this part alone."""
    place = st.container()
    strength = st.slider("Heat map", 0, 100, 60, format="%d %%", help="How much of the image the heat map hides.")
    name = st.selectbox("What speaks for", list(answer["probabilities"]), key=f"explain-{picture.id}")
    explanation = _explanation(client, picture, answer, name)
    seen, heat = (_pixels(explanation[f"{layer}_png_base64"]) for layer in ("image", "heatmap"))
    mixed = overlay(seen, heat / 255.0, strength / 100)
    place.image(mixed, width="stretch", output_format="PNG", alt=f"{picture.name} with what speaks for {name}")
    words = evidence(name, explanation["method"], any_heat=bool(heat.any()))
    place.caption(plain(f"{picture.name} as the model sees it. {words}"))


def _explanation(client: Client, picture: Picture, answer: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what speaks for a class, from the answer itself if that holds it."""
    held = answer.get("explanation")
    if held is not None and held["class"] == name:
        return dict(held)
    known: dict[tuple[str, ...], dict[str, Any]] = st.session_state.setdefault("explanations", {})
    key = (picture.id, answer["model_version"], name)
    if key not in known:
        if len(known) >= _KEPT:
            known.clear()
        known[key] = client.predict(picture.content(), explain=True, class_name=name)["explanation"]
    return known[key]


def _pixels(png: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def _show_answer(answer: dict[str, Any], *, calibrated: bool) -> None:
    st.subheader(plain(answer["predicted_class"]))
    say = st.info if state_of(answer) == "sure" else st.warning
    say(plain(prediction(answer, calibrated=calibrated)))
    st.markdown(f"*{DISCLAIMER}*")
    probabilities = list(answer["probabilities"].items())
    bars, shown = st.container(), len(probabilities)
    if shown > _FEW:
        shown = st.slider("Classes to show", 1, min(shown, _MOST), min(shown, _BARS))
    for name, share in probabilities[:shown]:
        bars.progress(share, f"{plain(name)}: {percent(share)}")
    version = answer["model_version"]
    st.caption(f"Answered in {milliseconds(answer['inference_time_ms'])} by model version {version}.")


def _ask_opinion(client: Client, picture: Picture, answer: dict[str, Any]) -> None:
    """Let people agree or correct; the image then goes to the training data."""
    st.markdown("**What does it really show?**")
    given: dict[str, str] = st.session_state.setdefault("feedback", {})
    if picture.id in given:
        st.success(plain(given[picture.id]))
        return
    st.caption("The image goes to the server with your answer, and later models may learn from it.")
    label = answer["predicted_class"]
    right: str | None = None
    # Each of these is of this image alone, or a late click or the choice before would count for the next image.
    key = f"agree-{picture.id}-{label}"
    if st.button("Agree", key=key, help=f"It shows {plain(label)}.", icon=":material/thumb_up:"):
        right = label
    others = [name for name in answer["probabilities"] if name != label]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        key = f"right-{picture.id}"
        other = st.selectbox("Right class", others, index=None, key=key, placeholder="Choose the right class")
        if st.button("Correct", key=f"correct-{picture.id}", disabled=other is None, icon=":material/edit:"):
            right = other
    if right is not None:
        with attempted():
            given[picture.id] = feedback(client.feedback((picture.name, picture.content()), right), right)
            refresh()
            st.rerun()
