"""The Upload & Retrain page: labelled images in, a better model out, if it is proved better."""

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from serve.ui.charts.data_charts import SPLITS
from serve.ui.components import START_IT, act, show_done
from serve.ui.error_messages import guarded
from serve.ui.screens import job_progress, upload
from serve.ui.session import keeps_data, may, read
from serve.ui.text.sentences import estimate, next_retraining, plain

_OWN = "the model's own"


def show(client: Client) -> None:
    """Show the page."""
    st.title("Upload & Retrain")
    show_done()
    if not keeps_data(client):
        st.info(f"This server keeps no data, so there is nothing to upload to. {START_IT}")
        return
    with guarded("uploading", part=True):
        upload.show(client)
    if may(client, "admin"):
        with guarded("retraining", part=True):
            st.header("Retrain")
            running = job_progress.show(client)
            _show_new_data(client)
            _ask_for_retraining(client, running)


def _show_new_data(client: Client) -> None:
    """Say what the next retraining would add."""
    fresh = read(client, "/training_data")["next_retrain"]
    st.markdown(plain(next_retraining(fresh)))
    if splits := fresh["splits"]:
        uses = {words.capitalize(): splits[split] for split, words in SPLITS.items() if split in splits}
        table = pd.DataFrame(uses).fillna(0).astype(int)
        st.dataframe(table.rename_axis("Class"), alt="New images by class and by what they are for")


def _ask_for_retraining(client: Client, running: bool) -> None:
    """Let people choose what little there is to choose, say how long it takes, and start."""
    known = read(client, "/retrain_estimate")
    bounds, defaults = known["bounds"], known["defaults"]
    epochs = _number("Epochs", bounds["epochs"], defaults["epochs"], 1, "%d")
    st.caption("How often it goes through all images. More epochs take longer, and help up to a point.")
    with st.expander("More settings"):
        batch_size = _number("Batch size", bounds["batch_size"], defaults["batch_size"], 1, "%d")
        learning_rate = _number("Learning rate", bounds["learning_rate"], defaults["learning_rate"], 1e-5, "%.6f")
        st.caption("Leave these as they are unless you know why not. A smaller batch needs less memory.")
    st.markdown(plain(estimate(read(client, "/retrain_estimate", epochs=epochs))))
    if st.button("Start retraining", type="primary", disabled=running):
        chosen = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
        act(partial(client.retrain, **chosen), "The retraining has begun.")
    if running:
        st.caption("There is one retraining at a time.")


def _number(label: str, bounds: list[Any], default: Any, step: Any, form: str) -> Any:  # noqa: ANN401 - int or float
    kind: Any = type(step)  # JSON may write a whole number for either
    low, high = (kind(bound) for bound in bounds)
    # What the model was made with may lie outside; left empty, it is what the server takes.
    value = kind(default) if default is not None and low <= default <= high else None
    return st.number_input(label, low, high, value, step=step, format=form, placeholder=_OWN, width=300)
