"""Uploads of labeled images: many files or a ZIP, with the outcome of each file."""

from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from lesion.core.text import format_count
from serve.ui.components import offer_csv
from serve.ui.error_messages import report_failure
from serve.ui.screens.upload_requests import OUTCOMES, Batch, Row, UploadProgress, is_zip, send
from serve.ui.session import clear_cache, read
from serve.ui.text.sentences import escape_markdown, upload_outcome, upload_unfinished

BY_FOLDER = "By the folders of the ZIP"
_MIB = 2**20
_FORM_BYTES = 2**16  # what a form adds to its files


def show(client: Client) -> None:
    """Show the form, and the outcome of each file."""
    st.header("Upload")
    info = read(client, "/info")
    max_bytes = info["limits"]["max_upload_bytes"] - _FORM_BYTES
    progress: UploadProgress = st.session_state.setdefault("upload", UploadProgress())
    batch, valid = _choose_files(info, max_bytes, progress)
    button = f"Upload {format_count(len(batch.files), 'file')}"
    if batch.files and st.button(button, key="send", type="primary", disabled=not valid):
        with report_failure(""):  # how far the upload came is shown below, now and later
            _send(client, progress, batch, max_bytes)
    if progress.unsent:
        dropped = any(batch.key(file) in progress.unsent for file in batch.files)
        st.warning(upload_unfinished(len(progress.sent), len(progress.requested), dropped=dropped))
    _show_outcomes(progress.rows, finished=not progress.unsent)


def _choose_files(info: dict[str, Any], max_bytes: int, progress: UploadProgress) -> tuple[Batch, bool]:
    """Let users choose files, their class and their group; return also whether these can be sent."""
    left, right = st.columns(2)
    number = st.session_state.setdefault("upload-number", 0)
    classes = [*info["classes"], BY_FOLDER]
    label = left.selectbox("Class of these images", classes, index=None, placeholder="Choose a class")
    # Empty after a finished upload, or the next patient's images would join this group. After a visit to another screen
    # it is the group of an unfinished upload, or the rest of its images would join no group.
    group = right.text_input(
        "Patient or group (optional)",
        next((group for _, _, group in progress.unsent), ""),
        key=f"upload-group-{number}",
        help="What these images have in common, such as one patient under a pseudonym. They then stay together: either "
        "all of them are learned from, or all are used to compare models.",
    )
    entries, image_mib = info["limits"]["max_archive_entries"], info["limits"]["max_image_bytes"] // _MIB
    files = st.file_uploader(
        f"Drop images of up to {image_mib} MiB each, or a ZIP with one folder for each class ({entries:,} files and "
        "folders at most)",
        accept_multiple_files=True,
        key=f"upload-files-{number}",
        max_upload_size=max(1, max_bytes // _MIB),
    )
    without_folders = label == BY_FOLDER and any(not is_zip(file) for file in files)
    if without_folders:
        st.warning("Only a ZIP has folders that name the classes. Choose a class, or drop only a ZIP.")
    elif files and label is None:
        st.info("Choose the class of these images.")
    batch = Batch(files, None if label == BY_FOLDER else label, group.strip())
    return batch, not (without_folders or label is None)


def _send(client: Client, progress: UploadProgress, batch: Batch, max_bytes: int) -> None:
    bar = st.progress(0.0, "Sending …")

    def show_progress() -> None:
        sent, total = len(progress.sent), len(progress.requested)
        bar.progress(sent / total, f"{sent:,} of {format_count(total, 'file')} sent")

    try:
        send(client, progress, batch, max_bytes, show_progress)
    finally:
        clear_cache()
    st.session_state["upload-number"] += 1  # empties the place for files and the group
    st.rerun()


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
