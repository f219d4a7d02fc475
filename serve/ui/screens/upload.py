"""Uploads of labelled images: many files or a ZIP, with a line for each file."""

from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from serve.ui.error_messages import attempted
from serve.ui.screens.predict.requests import OUTCOMES, Batch, Row, Upload, is_zip, send
from serve.ui.session import read, refresh
from serve.ui.text.sentences import count, plain, spreadsheet, upload_left, upload_outcome

BY_FOLDER = "As the folders of the ZIP say"
_MIB = 2**20
_ROOM = 2**16  # what a form adds to its files


def show(client: Client) -> None:
    """Show the form, and what became of the files."""
    st.header("Upload")
    info = read(client, "/info")
    most = info["limits"]["max_upload_bytes"] - _ROOM
    upload: Upload = st.session_state.setdefault("upload", Upload())
    batch, fits = _choose(info, most, upload)
    name = f"Upload {count(len(batch.files), 'file')}"
    if batch.files and st.button(name, key="send", type="primary", disabled=not fits):
        with attempted(""):  # how far it came is said below, now and later
            _send(client, upload, batch, most)
    if upload.left:
        here = any(batch.mark(file) in upload.wanted - upload.sent for file in batch.files)
        st.warning(upload_left(len(upload.sent), len(upload.wanted), here=here))
    _show_rows(upload.rows, whole=not upload.left)


def _choose(info: dict[str, Any], most: int, upload: Upload) -> tuple[Batch, bool]:
    """Let people choose files, their class and their group; say whether these go together."""
    left, right = st.columns(2)
    turn = st.session_state.setdefault("upload-turn", 0)
    label = left.selectbox("Class of these images", [*info["classes"], BY_FOLDER], index=None, placeholder="Choose one")
    # Empty after a whole upload, or the next patient's images would join this one's; after a look at another page it
    # is that of the upload which stopped halfway, or the rest of it would join none.
    group = right.text_input(
        "Patient or group (optional)",
        next((group for _, _, group in upload.wanted - upload.sent), ""),
        key=f"upload-group-{turn}",
        help="What these images have in common, such as one patient under a pseudonym. They are then kept together: "
        "either all of them are learned from, or all are used to judge models.",
    )
    entries, image = info["limits"]["max_archive_entries"], info["limits"]["max_image_bytes"] // _MIB
    files = st.file_uploader(
        f"Drop images, up to {image} MiB each, or a ZIP with a folder for each class ({entries:,} files and folders at "
        "most)",
        accept_multiple_files=True,
        key=f"upload-files-{turn}",
        max_upload_size=max(1, most // _MIB),
    )
    loose = label == BY_FOLDER and any(not is_zip(file) for file in files)
    if loose:
        st.warning("Only a ZIP has folders that tell the classes. Choose a class, or drop a ZIP alone.")
    elif files and label is None:
        st.info("Choose the class of these images.")
    return Batch(files, None if label == BY_FOLDER else label, group.strip()), not (loose or label is None)


def _send(client: Client, upload: Upload, batch: Batch, most: int) -> None:
    bar = st.progress(0.0, "Sending …")

    def tell() -> None:
        sent, total = len(upload.sent), len(upload.wanted)
        bar.progress(sent / total, f"{sent:,} of {count(total, 'file')} sent")

    try:
        send(client, upload, batch, most, tell)
    finally:
        refresh()
    st.session_state["upload-turn"] += 1  # a new, empty place to drop files on, and to name their patient
    st.rerun()


def _show_rows(unsorted: list[Row], *, whole: bool) -> None:
    """Show a line for each file, those that were refused first."""
    order = list(OUTCOMES.values())
    rows = sorted(unsorted, key=lambda row: order.index(row["Outcome"]))
    if not rows:
        return
    found = [row["Outcome"] for row in rows]
    rejected, quarantined, accepted = (found.count(outcome) for outcome in order)
    say = st.success if whole and accepted == len(rows) else st.warning
    say(plain(upload_outcome(accepted, quarantined, rejected)))
    columns = {"Reason": st.column_config.TextColumn(width="large")}
    st.dataframe(pd.DataFrame(rows), hide_index=True, column_config=columns, alt="What became of each file")
    st.download_button("Download the list as CSV", spreadsheet(rows), "uploads.csv", "text/csv", on_click="ignore")
