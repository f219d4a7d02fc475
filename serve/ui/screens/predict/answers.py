"""One image's prediction: the image with its heat map, the answer in words and bars, and the user's feedback."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from lesion.client import Client
from lesion.core.text import format_percent
from lesion.imaging.heatmap import overlay  # needs only NumPy and Pillow; the server draws with it too
from serve.ui.components import apply_change
from serve.ui.error_messages import error_boundary, report_failure
from serve.ui.session import class_names, clear_cache, has_role, has_storage
from serve.ui.text import sentences
from serve.ui.text.class_names import name_prediction, shown_name
from serve.ui.text.sentences import DISCLAIMER, escape_markdown, state_of

_ALWAYS_SHOWN, _DEFAULT_SHOWN, _MOST_SHOWN = 3, 5, 30  # classes with a bar
_MOST_EXPLANATIONS = 50  # kept in the session


@dataclass(frozen=True)
class ChosenImage:
    """An image that a user chose."""

    id: str  # distinguishes it from all others of this session
    name: str  # what users call it
    content: Callable[[], bytes]  # returns the file's bytes
    example: bool = False  # whether it came with the page: a drawing that no model may learn from


def show(client: Client, image: ChosenImage, prediction: dict[str, Any]) -> None:
    """Show an image and its prediction side by side, one below the other on a phone."""
    left, right = st.columns([3, 2], gap="large")
    with left:
        _show_prediction(name_prediction(prediction, class_names(client)))
        if not image.example and has_storage(client) and has_role(client, "contributor"):
            _ask_feedback(client, image, prediction)
    with right:
        _show_heat_map(client, image, prediction)


@st.fragment
@error_boundary("overlay")
def _show_heat_map(client: Client, image: ChosenImage, prediction: dict[str, Any]) -> None:
    """Show where the model looked; the slider and the choice of a class run only this part again."""
    place = st.container()
    strength = st.slider("Heat map", 0, 100, 60, format="%d %%", help="How much of the image the heat map covers.")
    names, key = class_names(client), f"explain-{image.id}"
    label = st.selectbox(
        "What speaks for", list(prediction["probabilities"]), format_func=partial(shown_name, names=names), key=key
    )
    name = shown_name(label, names)
    explanation = _explanation(client, image, prediction, label)
    files = (base64.b64decode(explanation[f"{layer}_png_base64"]) for layer in ("image", "heatmap"))
    pixels, heat = (np.asarray(Image.open(io.BytesIO(file))) for file in files)
    mixed = overlay(pixels, heat / 255.0, strength / 100)
    place.image(mixed, width="stretch", output_format="PNG", alt=f"{image.name} with what speaks for {name}")
    sentence = sentences.describe_heat_map(name, explanation, any_heat=bool(heat.any()))
    place.caption(escape_markdown(f"{image.name} as the model sees it. {sentence}"))


def _explanation(client: Client, image: ChosenImage, prediction: dict[str, Any], label: str) -> dict[str, Any]:
    """Return what speaks for a class, from the prediction itself if it contains that."""
    included = prediction.get("explanation")
    if included is not None and included["class"] == label:
        return dict(included)
    explanations: dict[tuple[str, ...], dict[str, Any]] = st.session_state.setdefault("explanations", {})
    key = (image.id, prediction["model_version"], label)
    if key not in explanations:
        if len(explanations) >= _MOST_EXPLANATIONS:
            explanations.clear()
        explanations[key] = client.predict(image.content(), explain=True, class_name=label)["explanation"]
    return explanations[key]


def _show_prediction(prediction: dict[str, Any]) -> None:
    st.subheader(escape_markdown(sentences.headline(prediction)))
    show_sentence = st.info if state_of(prediction) == "sure" else st.warning
    show_sentence(escape_markdown(sentences.describe_prediction(prediction)))
    st.markdown(f"*{DISCLAIMER}*")
    probabilities = list(prediction["probabilities"].items())
    bars, number = st.container(), len(probabilities)
    if number > _ALWAYS_SHOWN:
        number = st.slider("Classes to show", 1, min(number, _MOST_SHOWN), min(number, _DEFAULT_SHOWN))
    for name, share in probabilities[:number]:
        bars.progress(share, f"{escape_markdown(name)}: {format_percent(share)}")
    duration, version = sentences.format_milliseconds(prediction["inference_time_ms"]), prediction["model_version"]
    st.caption(f"Answered in {duration} by model version {version}.")


def _ask_feedback(client: Client, image: ChosenImage, prediction: dict[str, Any]) -> None:
    """Let users agree or correct; the image then goes to the training data."""
    st.markdown("**What does it really show?**")
    outcomes: dict[str, dict[str, Any]] = st.session_state.setdefault("feedback", {})
    if image.id in outcomes:
        _show_outcome(client, image, outcomes)
        return
    st.caption("The image is sent to the server with your answer, and later models may learn from it.")
    names, predicted = class_names(client), prediction["predicted_class"]
    label: str | None = None
    # Each key belongs to this image only, or a late click or an earlier choice would count for the next image.
    key = f"agree-{image.id}-{predicted}"
    if st.button(
        "Agree", key=key, help=f"It shows {escape_markdown(shown_name(predicted, names))}.", icon=":material/thumb_up:"
    ):
        label = predicted
    others = [name for name in prediction["probabilities"] if name != predicted]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        other = st.selectbox(
            "Right class",
            others,
            index=None,
            format_func=partial(shown_name, names=names),
            key=f"right-{image.id}",
            placeholder="Choose the right class",
        )
        if st.button("Correct", key=f"correct-{image.id}", disabled=other is None, icon=":material/edit:"):
            label = other
    if label is not None:
        with report_failure():
            answer = client.feedback((image.name, image.content()), label)
            outcomes[image.id] = {"answer": answer, "label": shown_name(label, names)}
            clear_cache()
            st.rerun()


def _show_outcome(client: Client, image: ChosenImage, outcomes: dict[str, dict[str, Any]]) -> None:
    """Show what became of the user's answer, and a button to take it back where it changed something."""
    answer = outcomes[image.id]["answer"]
    st.success(escape_markdown(sentences.describe_feedback(answer, outcomes[image.id]["label"])))
    kept = [*answer["accepted"], *answer["quarantined"]]
    changes = [change for each in kept for change in each.get("changes", ())]
    if changes and st.button("Undo", key=f"undo-feedback-{image.id}", icon=":material/undo:"):

        def undo() -> None:
            client.undo_feedback(changes)
            del outcomes[image.id]

        apply_change(undo, "Your answer was taken back. You can give another one.")
