"""What the page's address remembers in addition to the screen, so that a reload keeps it and a link can be shared."""

from collections.abc import Sequence
from typing import Any

import streamlit as st


def choose(
    title: str,
    options: Sequence[str],
    name: str,
    default: str | None = None,
    **selectbox: Any,  # noqa: ANN401 - further arguments of st.selectbox
) -> str | None:
    """Let users choose an option, which the address remembers under ``name`` unless it is the default."""
    wanted = st.query_params.get(name)
    first = wanted if wanted in options else default
    index = None if first is None else options.index(first)
    chosen: str | None = st.selectbox(title, options, index=index, key=f"{name}-shown", **selectbox)
    into_address(name, chosen if chosen != default else None)
    return chosen


def into_address(name: str, option: str | None) -> None:
    """Let the address name an option, or none."""
    if option is None:
        st.query_params.pop(name, None)
    elif st.query_params.get(name) != option:
        st.query_params[name] = option
