"""What would become of an upload: the classes that were found and the files that would be refused."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import pandas as pd
import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from lesion.client import Client, ClientError
from lesion.core.text import clean_name
from serve.ui.charts.data_charts import OUTCOMES
from serve.ui.error_messages import is_file_error, report_failure
from serve.ui.session import class_names
from serve.ui.text.class_names import shown_name
from serve.ui.text.sentences import escape_markdown, preview_outcome

_PREVIEW = "upload-preview"  # in the session
_KINDS = ("accepted", "quarantined", "rejected")


@dataclass
class Preview:
    """What a server answered about files that it did not store."""

    of: Hashable  # what distinguishes the files from others, and from themselves under another class
    classes: dict[str, dict[str, int]] = field(default_factory=dict)  # files by label and outcome
    refused: list[dict[str, str]] = field(default_factory=list)  # a row for each file that would be refused
    layouts: list[str] = field(default_factory=list)  # why whole archives would be refused, and the layout expected


def show(
    client: Client,
    of: Hashable,
    chunks: Sequence[Sequence[UploadedFile]],
    label: str | None,
    group: str,
    *,
    valid: bool,
) -> None:
    """Show a button that checks the files of an upload, ``chunks`` of one request each, and what it found."""
    if st.button("Check without storing", key="check", disabled=not valid):
        with report_failure(""):
            st.session_state[_PREVIEW] = make_preview(client, of, chunks, label, group)
    preview: Preview | None = st.session_state.get(_PREVIEW)
    if preview is None or preview.of != of:
        return
    accepted, quarantined = (sum(counts[kind] for counts in preview.classes.values()) for kind in _KINDS[:2])
    st.info(escape_markdown(preview_outcome(accepted, quarantined, len(preview.refused), len(preview.layouts))))
    for layout in preview.layouts:
        reason, _, tree = layout.partition("\n")
        st.warning(escape_markdown(reason))
        st.code(tree, language=None)
    if preview.classes:
        names = class_names(client)
        rows = [
            {"Class": shown_name(name, names)} | {OUTCOMES[kind].capitalize(): counts[kind] for kind in _KINDS}
            for name, counts in preview.classes.items()
        ]
        st.dataframe(pd.DataFrame(rows), hide_index=True, alt="What was found for each class")
    if preview.refused:
        st.dataframe(pd.DataFrame(preview.refused), hide_index=True, alt="The files that would be refused")


def make_preview(
    client: Client, of: Hashable, chunks: Sequence[Sequence[UploadedFile]], label: str | None, group: str
) -> Preview:
    """Ask the server about files that it shall not store.

    Raises:
        ClientError: The server, not a file, is at fault.
    """
    preview = Preview(of)
    for chunk in chunks:
        try:
            answer = client.upload([(file.name, file.getvalue()) for file in chunk], label, group, dry_run=True)
        except ClientError as error:
            if not is_file_error(error):
                raise
            if "\n" in error.message:
                preview.layouts.append(error.message)
            else:
                preview.refused += [{"File": clean_name(file.name), "Reason": error.message} for file in chunk]
            continue
        for name, counts in answer["classes"].items():
            before = preview.classes.setdefault(name, dict.fromkeys(_KINDS, 0))
            preview.classes[name] = {kind: before[kind] + counts[kind] for kind in _KINDS}
        preview.refused += [{"File": entry["name"], "Reason": entry["reason"]} for entry in answer["rejected"]]
    return preview
