"""One stored image on the Admin screen: its label, who changed it, and the versions that learned from it."""

from functools import partial

import pandas as pd
import streamlit as st

from lesion.client import Client
from serve.ui.session import class_names, none_if_missing, read, read_bytes
from serve.ui.text.admin_findings import describe_image
from serve.ui.text.class_names import shown_name
from serve.ui.text.sentences import escape_markdown, format_time


def show(client: Client) -> None:
    """Ask for an image's hash, which the page's address remembers, and show what is known of the image."""
    st.header("One image")
    sha256 = st.text_input(
        "SHA-256 of the image",
        key="image",
        bind="query-params",
        help="Of the file as it was sent or as it is stored: sha256sum FILE prints it.",
    ).strip()
    if not sha256:
        return
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        st.warning("A SHA-256 has 64 characters: digits and the small letters a to f.")
        return
    image = none_if_missing(partial(read, client, f"/images/{sha256}"))
    if image is None:
        st.info("There is no image with this hash.")
        return
    names = class_names(client)
    if image["status"] != "deleted":
        picture = read_bytes(client, f"/images/{sha256}/thumbnail")
        st.image(picture, width=256, alt=f"Image that is known as {shown_name(image['label'], names)}")
    st.markdown(escape_markdown(describe_image(image, shown_name(image["label"], names))))
    rows = [
        {
            "When": format_time(change["at"]),
            "By": escape_markdown(change["actor"]),
            "From": escape_markdown(shown_name(change["was"], names)),
            "To": escape_markdown(shown_name(change["label"], names)),
        }
        for change in image["label_history"]
    ]
    if rows:
        st.table(pd.DataFrame(rows).set_index("When"), alt="The changes of the image's label")
