"""The Predict page: one image or many, what they show, how sure that is, and where the model looked."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from lesion.core.errors import LesionError
from serve.ui.error_messages import of_the_file, tell
from serve.ui.screens.predict import answers
from serve.ui.screens.predict.answers import Picture
from serve.ui.session import health, read
from serve.ui.text.sentences import UNSURE, count, percent, plain, spreadsheet, state_of, summary

EXAMPLES = Path(__file__).parent / "examples"
_AT_ONCE = 4
_NOTES = {
    "sure": "",
    "unsure": f"Not sure (below {percent(UNSURE)})",
    "foreign": "Unlike what the model was trained on",
}

_TABLE = "predict-table"  # the last one, in the session

Answer = dict[str, Any] | LesionError
Table = tuple[str, pd.DataFrame, bytes]


def show(client: Client) -> None:
    """Show the page."""
    st.title("Predict")
    pictures = _choose()
    # Asked for only now: if the server is away, what was dropped above stays there until it is back.
    info = read(client, "/info")
    most = info["limits"]["max_image_bytes"] // 2**20
    st.caption(
        f"{', '.join(info['formats'])}, and DICOM where the server reads it, up to {most} MiB each. Images are not "
        "kept unless you send feedback."
    )
    if not pictures:
        _show_kept()
        return
    found = _ask_all(client, pictures)
    picture = pictures[0]
    if len(pictures) > 1:
        names = labels([each.name for each in pictures])
        table = _table(names, [found[each.id] for each in pictures])
        st.session_state[_TABLE] = table
        _show_table(*table)
        picture = pictures[st.selectbox("Image to look at", range(len(names)), format_func=names.__getitem__)]
    answer = found[picture.id]
    if isinstance(answer, LesionError):
        st.subheader(plain(picture.name))
        tell(answer)
    else:
        answers.show(client, picture, answer)


def _choose() -> list[Picture]:
    """Let people choose images in one of three ways."""
    ways = {"Files": _files, "Camera": _camera, "Examples": _example}
    way = st.segmented_control("Where the image comes from", list(ways), default="Files", required=True)
    return ways[way]()


def _files() -> list[Picture]:
    files = st.file_uploader("Drop one image or many here", accept_multiple_files=True, key="predict-files")
    return [Picture(file.file_id, file.name, file.getvalue) for file in files]


def _camera() -> list[Picture]:
    photo = st.camera_input("Take a picture", key="predict-camera")
    return [Picture(photo.file_id, "camera", photo.getvalue)] if photo else []


def _example() -> list[Picture]:
    st.caption(
        "Drawings of brain scans, made by a program: no patient is in them. A model for other images should say that "
        "they are unlike what it was trained on."
    )
    with st.container(horizontal=True):
        for path in sorted(EXAMPLES.glob("*.png")):
            with st.container(width=130):
                st.image(path, width=128, alt=f"Drawn brain scan: {path.stem}")
                if st.button(path.stem, key=f"example-{path.stem}", width="stretch"):
                    st.session_state["example"] = path
    chosen: Path | None = st.session_state.get("example")
    return [Picture(chosen.name, chosen.name, chosen.read_bytes, example=True)] if chosen else []


def _ask_all(client: Client, pictures: list[Picture]) -> dict[str, Answer]:
    """Return the answers by picture, asking for those that are not known yet, several at once.

    What was answered stays known if the server fails in the middle, so that the next run goes on from there.
    """
    version = health(client)["model_version"]
    known: dict[tuple[str, str], Answer] = st.session_state.setdefault("answers", {})
    wanted = {(picture.id, version): picture for picture in pictures}
    for gone in known.keys() - wanted.keys():
        del known[gone]
    missing = {key: picture for key, picture in wanted.items() if key not in known}
    if missing:
        bar = st.progress(0.0, f"Looking at {count(len(missing), 'image')} …")
        pool = ThreadPoolExecutor(_AT_ONCE)
        try:
            # One image alone is explained in the same breath; of many, the one that is looked at.
            futures = {pool.submit(_ask, client, one, len(pictures) == 1): key for key, one in missing.items()}
            for done, future in enumerate(as_completed(futures), 1):
                known[futures[future]] = future.result()
                bar.progress(done / len(missing), f"{done:,} of {count(len(missing), 'image')} answered")
        finally:
            pool.shutdown(cancel_futures=True)
        bar.empty()
    return {picture.id: known[key] for key, picture in wanted.items()}


def _ask(client: Client, picture: Picture, explain: bool) -> Answer:
    try:
        return client.predict(picture.content(), explain=explain)
    except LesionError as error:
        if of_the_file(error):
            return error
        raise


def labels(names: Sequence[str]) -> list[str]:
    """Return what to call images so that no two are called alike: by their names, and by numbers too if they must."""
    if len(set(names)) == len(names):
        return list(names)
    return [f"{number}. {name}" for number, name in enumerate(names, 1)]


def _show_kept() -> None:
    """Show the last table while nothing is chosen: a look at another page takes the images away, but not that."""
    if (kept := st.session_state.get(_TABLE)) is None:
        return
    st.subheader("The last answers")
    st.caption("The images themselves are not kept here. Drop them again to see their heat maps.")
    _show_table(*kept)
    st.button("Clear", on_click=st.session_state.pop, args=(_TABLE, None))


def _table(names: list[str], found: list[Answer]) -> Table:
    """Return how sure the answers for many images are: in a sentence, as a table, and as a file with all classes."""
    answered = [answer for answer in found if not isinstance(answer, LesionError)]
    refused = len(found) - len(answered)
    sentence = summary(answered) + (f" {count(refused, 'file')} refused." if refused else "")
    rows = [_row(name, answer) for name, answer in zip(names, found, strict=True)]
    file = spreadsheet([row | _probabilities(answer) for row, answer in zip(rows, found, strict=True)])
    return sentence, pd.DataFrame(rows), file


def _show_table(sentence: str, table: pd.DataFrame, file: bytes) -> None:
    """Show all answers at once, and give them away."""
    st.markdown(sentence)
    st.dataframe(
        table,
        hide_index=True,
        column_config={
            "Confidence": st.column_config.ProgressColumn(format="percent", min_value=0.0, max_value=1.0),
            "Time in ms": st.column_config.NumberColumn(format="%.1f"),
        },
        placeholder="–",
        alt="The answers for all images",
    )
    st.download_button("Download as CSV", file, "predictions.csv", "text/csv", on_click="ignore")


def _row(name: str, answer: Answer) -> dict[str, Any]:
    if isinstance(answer, LesionError):
        return {"Image": name, "Class": None, "Confidence": None, "Note": answer.message, "Time in ms": None}
    return {
        "Image": name,
        "Class": answer["predicted_class"],
        "Confidence": answer["confidence"],
        "Note": _NOTES[state_of(answer)],
        "Time in ms": answer["inference_time_ms"],
    }


def _probabilities(answer: Answer) -> dict[str, float]:
    """Return columns of probabilities, whose names are those of no other column, whatever the classes are called."""
    if isinstance(answer, LesionError):
        return {}
    return {f"P({name})": share for name, share in answer["probabilities"].items()}
