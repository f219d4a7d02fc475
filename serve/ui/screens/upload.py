"""Uploads of labeled images: many files or a ZIP, sent in several requests, with the outcome of each file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

import pandas as pd
import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from lesion.client import Client, ClientError
from lesion.core.text import clean_name, format_count
from serve.ui.charts import data_charts
from serve.ui.components import largest_file, offer_csv, show_sending
from serve.ui.error_messages import is_file_error
from serve.ui.held_files import HELD
from serve.ui.screens import upload_preview
from serve.ui.sending import Sending
from serve.ui.session import clear_cache, keep_files, last_known
from serve.ui.text.class_names import shown_name
from serve.ui.text.sentences import accepted_images, escape_markdown, upload_outcome

BY_FOLDER = "By the folders of the ZIP"
_FORM_BYTES = 2**16  # what a form adds to its files
# Refused files first, as the screen lists them.
OUTCOMES = {name: data_charts.OUTCOMES[name].capitalize() for name in ("rejected", "quarantined", "accepted")}
_MAX_FILES, _MAX_BYTES = 50, 16 * 2**20  # per request
_SENDING = "upload-sending"  # in the session
_ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")

Row = dict[str, str]
FileKey = tuple[str, str | None, str]  # a file's id, class and group


@dataclass(frozen=True)
class Batch:
    """Files that are sent under one class and perhaps one group; without a class, each is a ZIP with class folders."""

    files: Sequence[UploadedFile]
    label: str | None
    group: str

    def key(self, file: UploadedFile) -> FileKey:
        """Return what distinguishes a file from all others, and from itself under another class or group."""
        return file.file_id, self.label, self.group


@dataclass
class UploadProgress:
    """How far an upload came; it survives a click elsewhere and a server that fails in the middle."""

    requested: set[FileKey] = field(default_factory=set)  # the keys of all files that are to be sent
    sent: set[FileKey] = field(default_factory=set)  # those of the files that were sent
    # The outcome of each file that was sent; of a ZIP, that of each file in it.
    rows: list[Row] = field(default_factory=list)

    @property
    def unsent(self) -> set[FileKey]:
        """The keys of files that were not sent yet."""
        return self.requested - self.sent

    def discard(self) -> None:
        """Forget the files that were not sent."""
        self.requested = set(self.sent)

    def begin(self, batch: Batch) -> list[UploadedFile]:
        """Return which files of a batch to send: the rest of an unfinished upload, or all files of a new one."""
        keys = {batch.key(file) for file in batch.files}
        if not keys & self.sent:
            self.sent, self.rows = set(), []
        self.requested = keys | self.sent
        return [file for file in batch.files if batch.key(file) not in self.sent]


def show(client: Client) -> None:
    """Show the form, and the outcome of each file."""
    st.header("Upload")
    info = last_known(client, "/info")  # what was dropped below stays there while the server is away
    max_bytes = info["limits"]["max_upload_bytes"] - _FORM_BYTES
    progress: UploadProgress = st.session_state.setdefault("upload", UploadProgress())
    batch, valid = _choose_files(info, max_bytes)
    button = f"Upload {format_count(len(batch.files), 'file')}"
    if batch.files:
        keys = tuple(batch.key(file) for file in batch.files)
        upload_preview.show(client, keys, list(chunks(batch.files, max_bytes)), batch.label, batch.group, valid=valid)
    if progress.unsent and batch.files:
        st.caption("The files before these are sent first: wait, or discard them.")
    open_for = valid and not progress.unsent
    pressed = bool(batch.files) and st.button(button, key="send", type="primary", disabled=not open_for)
    if pressed and open_for:  # a second click may come before the first one has emptied the form
        progress.begin(batch)
        st.session_state[_SENDING] = Sending(partial(send, client, progress, batch, max_bytes))
        st.session_state[_SENDING].start()
        st.session_state["upload-number"] += 1  # empties the place for files and the group: the sending has them
        st.rerun()
    _show_sending(progress)
    _show_outcomes(progress.rows, finished=not progress.unsent)


def _show_sending(progress: UploadProgress) -> None:
    sending: Sending | None = st.session_state.get(_SENDING)
    if sending is None:
        return
    if sending.active or progress.unsent:
        show_sending(sending, "file", lambda: (len(progress.sent), len(progress.requested)))
    if sending.active:
        return
    if progress.unsent:
        st.button("Discard the rest", on_click=progress.discard)
    else:
        del st.session_state[_SENDING]
        clear_cache()  # there are new images


def _choose_files(info: dict[str, Any], max_bytes: int) -> tuple[Batch, bool]:
    """Let users choose files, their class and their group; return also whether these can be sent."""
    left, right = st.columns(2)
    number = st.session_state.setdefault("upload-number", 0)
    names = {**info["class_names"], BY_FOLDER: BY_FOLDER}
    label = left.selectbox(
        "Class of these images",
        list(names),
        index=None,
        format_func=partial(shown_name, names=names),
        placeholder="Choose a class",
    )
    # Empty after each upload, or the next patient's images would join this group.
    group = right.text_input(
        "Patient or group (optional)",
        key=f"upload-group-{number}",
        help="What these images have in common, such as one patient under a pseudonym. They then stay together: either "
        "all of them are learned from, or all are used to compare models. The name itself is not kept; of DICOM files "
        "their own Patient ID counts.",
    )
    entries, zip_mib = info["limits"]["max_archive_entries"], largest_file(max_bytes)
    # Images have another limit than a ZIP, so Streamlit's own "… per file" is hidden here (style.css).
    files = st.container(key="upload-place").file_uploader(
        f"Drop images, or a ZIP of up to {zip_mib} MiB with one folder for each class ({entries:,} files and folders "
        f"at most). Images: {accepted_images(info)}.",
        accept_multiple_files=True,
        key=f"upload-files-{number}",
        max_upload_size=zip_mib,
        help=HELD.room,
    )
    keep_files(files)
    without_folders = label == BY_FOLDER and any(not is_zip(file) for file in files)
    if without_folders:
        st.warning("Only a ZIP has folders that name the classes. Choose a class, or drop only a ZIP.")
    elif files and label is None:
        st.info("Choose the class of these images.")
    batch = Batch(files, None if label == BY_FOLDER else label, group.strip())
    return batch, not (without_folders or label is None)


def _show_outcomes(rows: list[Row], *, finished: bool) -> None:
    """Show a line for each file, refused files first."""
    if not rows:
        return
    order = list(OUTCOMES.values())
    rows = sorted(rows, key=lambda row: order.index(row["Outcome"]))
    outcomes = [row["Outcome"] for row in rows]
    rejected, quarantined, accepted = (outcomes.count(outcome) for outcome in order)
    show_summary = st.success if finished and accepted == len(rows) else st.warning
    show_summary(escape_markdown(upload_outcome(accepted, quarantined, rejected)))
    columns = {"Reason": st.column_config.TextColumn(width="large")}
    st.dataframe(pd.DataFrame(rows), hide_index=True, column_config=columns, alt="The outcome of each file")
    offer_csv("Download the list as CSV", rows, "uploads.csv")


def send(
    client: Client, progress: UploadProgress, batch: Batch, max_bytes: int, report_progress: Callable[[], None]
) -> None:
    """Send what was not sent yet of a batch, at most ``max_bytes`` per request, and report progress after each.

    What was sent before an error of the server stays recorded.
    """
    waiting = [*chunks(progress.begin(batch), max_bytes)][::-1]
    while waiting:
        chunk = waiting.pop()
        rows = _send_chunk(client, chunk, batch)
        if rows is None:
            middle = len(chunk) // 2
            waiting += [chunk[middle:], chunk[:middle]]
            continue
        progress.rows += rows
        progress.sent.update(batch.key(file) for file in chunk)
        report_progress()


def chunks(files: Sequence[UploadedFile], max_bytes: int) -> Iterator[list[UploadedFile]]:
    """Divide files among requests: at most 50 files, 16 MiB or ``max_bytes`` in each, every ZIP in its own request."""
    chunk: list[UploadedFile] = []
    size, limit = 0, min(_MAX_BYTES, max_bytes)
    for file in files:
        full = len(chunk) == _MAX_FILES or size + file.size > limit
        if chunk and (full or is_zip(file) or is_zip(chunk[-1])):
            yield chunk
            chunk, size = [], 0
        chunk.append(file)
        size += file.size
    if chunk:
        yield chunk


def is_zip(file: UploadedFile) -> bool:
    """Return whether a file begins as ZIP archives do."""
    # A BytesIO that was never written to shares its value, while a view of it would copy it.
    return file.getvalue()[:4] in _ZIP_SIGNATURES


def _send_chunk(client: Client, chunk: Sequence[UploadedFile], batch: Batch) -> list[Row] | None:
    """Return the outcome of each file; None if the files are too large together, while each may be small enough."""
    try:
        outcome = client.upload([(file.name, file.getvalue()) for file in chunk], batch.label, batch.group)
    except ClientError as error:
        if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and len(chunk) > 1:
            return None
        if not is_file_error(error):
            raise
        return [_row(clean_name(file.name), "rejected", error.message) for file in chunk]
    return [_row(entry["name"], kind, entry["reason"]) for kind in OUTCOMES for entry in outcome[kind]]


def _row(name: str, kind: str, reason: str) -> Row:
    return {"File": name, "Outcome": OUTCOMES[kind], "Reason": reason}
