"""The Predict screen: one image or many, what they show, how sure that is, and where the model looked."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client, ClientError
from lesion.core.text import clean_name, format_count
from serve.ui.address import into_address
from serve.ui.components import largest_file, offer_csv, show_confirmation, show_sending
from serve.ui.error_messages import is_file_error, show_error
from serve.ui.held_files import HELD
from serve.ui.screens.predict import answers
from serve.ui.screens.predict.answers import ChosenImage
from serve.ui.sending import Sending
from serve.ui.session import class_names, keep_files, last_known, model_version
from serve.ui.text.class_names import name_prediction
from serve.ui.text.sentences import accepted_images, escape_markdown, headline, summarize_predictions

EXAMPLES = Path(__file__).parents[2] / "examples"
_PARALLEL_REQUESTS = 4
_COLUMNS = ("Image", "Answer", "Most probable class", "Confidence", "Time in ms")
_LAST_ANSWERS, _SENDING = "last-answers", "predict-sending"  # in the session

Answer = dict[str, Any] | ClientError
Key = tuple[str, str]  # an image's id and a version


def show(client: Client) -> None:
    """Show the screen."""
    show_confirmation()
    st.title("Predict")
    info = last_known(client, "/info")  # what was dropped below stays there while the server is away
    choose_files = partial(_choose_files, largest_file(info["limits"]["max_image_bytes"]))
    sources: dict[str, Callable[[], list[ChosenImage]]]
    sources = {"Files": choose_files, "Camera": _take_photo, "Examples": _choose_example}
    title = "Where the image comes from"
    source = st.segmented_control(
        title, list(sources), default="Files", required=True, key="source", bind="query-params"
    )
    images = sources[source]()
    st.caption(escape_markdown(f"{accepted_images(info)}. Images are not stored unless you send feedback."))
    if not images:
        _show_last_table(client)
        return
    answers_by_id = _predict_all(client, images)
    total, images = len(images), [image for image in images if image.id in answers_by_id]
    if not images:
        return
    image = images[0]
    if total > 1:
        names = unique_names([image.name for image in images])
        st.session_state[_LAST_ANSWERS] = table = names, [answers_by_id[image.id] for image in images]
        _show_table(client, *table)
        if len(images) < total:  # the rest waits, and so would the heat map
            return
        image = images[st.selectbox("Image to look at", range(len(names)), format_func=names.__getitem__)]
    answer = answers_by_id[image.id]
    if isinstance(answer, ClientError):
        st.subheader(escape_markdown(image.name))
        show_error(answer)
    else:
        answers.show(client, image, answer)


def _choose_files(max_mib: int) -> list[ChosenImage]:
    title = "Drop one or more images here"
    files = st.file_uploader(
        title, accept_multiple_files=True, key="predict-files", help=HELD.room, max_upload_size=max_mib
    )
    keep_files(files)
    return [ChosenImage(file.file_id, clean_name(file.name), file.getvalue) for file in files]


def _take_photo() -> list[ChosenImage]:
    photo = st.camera_input("Take a picture", key="predict-camera")
    keep_files([photo] if photo else [])
    return [ChosenImage(photo.file_id, "camera", photo.getvalue)] if photo else []


def _choose_example() -> list[ChosenImage]:
    st.caption(
        "Brain scans drawn by a program: they show no patient. A model for other images should call them unlike what "
        "it was trained on."
    )
    with st.container(horizontal=True):
        paths = {path.stem: path for path in sorted(EXAMPLES.glob("*.png"))}
        for path in paths.values():
            with st.container(width=130):
                st.image(path, width=128, alt=f"Drawn brain scan: {path.stem}")
                if st.button(path.stem, key=f"example-{path.stem}", width="stretch"):
                    into_address("image", path.stem)
    chosen = paths.get(st.query_params.get("image", ""))
    return [ChosenImage(chosen.name, chosen.name, chosen.read_bytes, example=True)] if chosen else []


@dataclass
class _Predictions:
    """What the session asks the server about, and its answers; the keys are those of images for a version."""

    wanted: dict[Key, ChosenImage] = field(default_factory=dict)
    asked: set[Key] = field(default_factory=set)  # for which a sending was started
    answers: dict[Key, Answer] = field(default_factory=dict)
    sending: Sending | None = None

    @property
    def missing(self) -> dict[Key, ChosenImage]:
        """The images without an answer."""
        return {key: image for key, image in self.wanted.items() if key not in self.answers}


def _predict_all(client: Client, images: list[ChosenImage]) -> dict[str, Answer]:
    """Return the answers that there are, by image id, after requesting those that the session does not have yet.

    If the server fails in the middle, the answers so far stay, and the rest is requested again.
    """
    version = model_version(client)
    state: _Predictions = st.session_state.setdefault("predictions", _Predictions())
    state.wanted = {(image.id, version): image for image in images}
    state.asked &= state.wanted.keys()
    for outdated in [*state.answers.keys() - state.wanted.keys()]:
        state.answers.pop(outdated, None)
    if new := state.missing.keys() - state.asked:
        state.asked |= new
        if state.sending is None or not state.sending.active:
            state.sending = st.session_state[_SENDING] = Sending(partial(_predict_missing, client, state))
            state.sending.start()
    while state.sending is not None and state.missing:
        show_sending(state.sending, "image", lambda: (len(state.wanted) - len(state.missing), len(state.wanted)))
        if not (state.sending.finished and state.missing):
            break
        state.sending.start()  # it ended just before more was wanted
    return {image_id: answer for (image_id, _), answer in [*state.answers.items()]}


def _predict_missing(client: Client, state: _Predictions, report: Callable[[], None]) -> None:
    """Request what is missing in parallel, also what is added meanwhile; an answer counts as soon as it is there."""

    def predict(key: Key, image: ChosenImage, explain: bool) -> None:
        if key in state.wanted:
            state.answers[key] = _predict(client, image, explain)

    while missing := state.missing:
        # A single image is explained in the same request; of many images, only the one that is looked at.
        explain = len(state.wanted) == 1
        pool = ThreadPoolExecutor(_PARALLEL_REQUESTS)
        try:
            futures = [pool.submit(predict, key, image, explain) for key, image in missing.items()]
            for future in as_completed(futures):
                future.result()
                report()
        finally:
            pool.shutdown(cancel_futures=True)


def _predict(client: Client, image: ChosenImage, explain: bool) -> Answer:
    try:
        return client.predict(image.content(), explain=explain)
    except ClientError as error:
        if is_file_error(error):
            return error
        raise


def unique_names(names: Sequence[str]) -> list[str]:
    """Return the names, with numbers in front if two of them are alike."""
    if len(set(names)) == len(names):
        return list(names)
    return [f"{number}. {name}" for number, name in enumerate(names, 1)]


def _show_last_table(client: Client) -> None:
    """Show the last table while no image is chosen: visiting another screen removes the images, but not the table."""
    if (table := st.session_state.get(_LAST_ANSWERS)) is None:
        return
    st.subheader("The last answers")
    st.caption("The images themselves are not kept here. Drop them again to see their heat maps.")
    _show_table(client, *table)
    st.button("Clear", on_click=st.session_state.pop, args=(_LAST_ANSWERS, None))


def _show_table(client: Client, names: list[str], answers: list[Answer]) -> None:
    """Show the answers for many images as a sentence and a table, and offer them with all probabilities as a file."""
    predictions = [answer for answer in answers if not isinstance(answer, ClientError)]
    refused = len(answers) - len(predictions)
    st.markdown(summarize_predictions(predictions) + (f" {format_count(refused, 'file')} refused." if refused else ""))
    labels = class_names(client)
    rows = [
        _row(name, answer if isinstance(answer, ClientError) else name_prediction(answer, labels))
        for name, answer in zip(names, answers, strict=True)
    ]
    formats = {
        "Confidence": st.column_config.ProgressColumn(format="percent", min_value=0.0, max_value=1.0),
        "Time in ms": st.column_config.NumberColumn(format="%.1f"),
    }
    table, alt = pd.DataFrame(rows)[[*_COLUMNS]], "The answers for all images"
    st.dataframe(table, hide_index=True, column_config=formats, placeholder="–", alt=alt)
    offer_csv("Download as CSV", rows, "predictions.csv")


def _row(name: str, answer: Answer) -> dict[str, Any]:
    """Return a row of the table, followed by the probabilities, whose names differ from those of all other columns."""
    if isinstance(answer, ClientError):
        return dict(zip(_COLUMNS, (name, answer.message, None, None, None), strict=True))
    values = (name, headline(answer), answer["predicted_class"], answer["confidence"], answer["inference_time_ms"])
    probabilities = {f"P({label})": share for label, share in answer["probabilities"].items()}
    return dict(zip(_COLUMNS, values, strict=True)) | probabilities
