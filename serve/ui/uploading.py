"""Uploads of labelled images: many files or a ZIP, in chunks, with a line for each file."""

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

import pandas as pd
import streamlit as st

from lesion.client import Client
from lesion.errors import LesionError
from serve.ui.problems import of_the_file
from serve.ui.session import read, refresh
from serve.ui.words import count, plain, spreadsheet, upload_outcome

BY_FOLDER = "As the folders of the ZIP say"
_FILES, _BYTES = 50, 16 * 2**20
_MIB = 2**20
_ROOM = 2**16  # what a form adds to its files
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_OUTCOMES = {"rejected": "Refused", "quarantined": "Waits for an admin", "accepted": "Accepted"}

Row = dict[str, str]


class File(Protocol):
    """A file that somebody dropped."""

    file_id: str
    name: str
    size: int

    def getvalue(self) -> bytes:
        """Return its content."""

    def getbuffer(self) -> memoryview:
        """Return its content without a copy."""


AnyFile = TypeVar("AnyFile", bound=File)


def show(client: Client) -> None:
    """Show the form, and what became of the files."""
    st.header("Upload")
    info = read(client, "/info")
    most = info["limits"]["max_upload_bytes"] - _ROOM
    left, right = st.columns(2)
    label = left.selectbox("Class of these images", [*info["classes"], BY_FOLDER], index=None, placeholder="Choose one")
    group = right.text_input(
        "Patient or group (optional)",
        help="What these images have in common, such as one patient under a pseudonym. They are then kept together: "
        "either all of them are learned from, or all are used to judge models.",
    )
    turn: int = st.session_state.setdefault("upload-turn", 0)
    files = st.file_uploader(
        "Drop images, or a ZIP with a folder for each class",
        accept_multiple_files=True,
        key=f"upload-files-{turn}",
        max_upload_size=max(1, most // _MIB),
    )
    loose = label == BY_FOLDER and any(not _is_zip(file) for file in files)
    if loose:
        st.warning("Only a ZIP has folders that tell the classes. Choose a class, or drop a ZIP alone.")
    elif files and label is None:
        st.info("Choose the class of these images.")
    name = f"Upload {count(len(files), 'file')}"
    if files and st.button(name, key="upload", type="primary", disabled=label is None or loose):
        _send(client, files, None if label == BY_FOLDER else label, group.strip(), most)
        st.session_state["upload-turn"] = turn + 1  # a new, empty place to drop files on
        st.rerun()
    _show_rows(st.session_state.get("uploaded", []))


def chunks(files: Sequence[AnyFile], most: int) -> Iterator[list[AnyFile]]:
    """Divide files into what one request may carry: at most 50 files, 16 MiB or ``most`` bytes, a ZIP by itself."""
    chunk: list[AnyFile] = []
    room = size = min(_BYTES, most)
    for file in files:
        alone = _is_zip(file)
        if chunk and (alone or len(chunk) == _FILES or file.size > room):
            yield chunk
            chunk, room = [], size
        chunk.append(file)
        room -= file.size
        if alone:
            yield chunk
            chunk, room = [], size
    if chunk:
        yield chunk


def _send(client: Client, files: Sequence[File], label: str | None, group: str, most: int) -> None:
    """Send files chunk by chunk.

    What was sent stays known if the server fails in the middle: uploading again then sends the rest.
    """
    sent: set[tuple[str, str | None, str]] = st.session_state.setdefault("sent", set())
    if not sent:
        st.session_state["uploaded"] = []
    rows: list[Row] = st.session_state["uploaded"]
    bar = st.progress(0.0, "Sending …")
    for chunk in chunks([file for file in files if (file.file_id, label, group) not in sent], most):
        rows += _send_chunk(client, chunk, label, group)
        sent.update((file.file_id, label, group) for file in chunk)
        bar.progress(min(1.0, len(sent) / len(files)), f"{len(sent):,} of {count(len(files), 'file')} sent")
    refresh()
    del st.session_state["sent"]


def _send_chunk(client: Client, chunk: Sequence[File], label: str | None, group: str) -> list[Row]:
    try:
        answer = client.upload([(file.name, file.getvalue()) for file in chunk], label, group)
    except LesionError as error:
        if not of_the_file(error):
            raise
        return [_row(file.name, "rejected", error.message) for file in chunk]
    return [_row(entry["name"], kind, entry["reason"]) for kind in _OUTCOMES for entry in answer[kind]]


def _row(name: str, kind: str, reason: str) -> Row:
    return {"File": name, "Outcome": _OUTCOMES[kind], "Reason": reason}


def _show_rows(unsorted: list[Row]) -> None:
    """Show a line for each file, those that were refused first."""
    order = list(_OUTCOMES.values())
    rows = sorted(unsorted, key=lambda row: order.index(row["Outcome"]))
    if not rows:
        return
    found = [row["Outcome"] for row in rows]
    rejected, quarantined, accepted = (found.count(outcome) for outcome in order)
    say = st.success if accepted == len(rows) else st.warning
    say(plain(upload_outcome(accepted, quarantined, rejected)))
    columns = {"Reason": st.column_config.TextColumn(width="large")}
    st.dataframe(pd.DataFrame(rows), hide_index=True, column_config=columns, alt="What became of each file")
    st.download_button("Download the list as CSV", spreadsheet(rows), "uploads.csv", "text/csv", on_click="ignore")


def _is_zip(file: File) -> bool:
    return bytes(file.getbuffer()[:4]) in _ZIP
