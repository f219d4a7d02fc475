"""What the page's address remembers besides the screen, so that F5 keeps it and a link to it can be sent."""

from collections.abc import Sequence

import streamlit as st


def from_address(name: str, options: Sequence[str]) -> int | None:
    """Return the index of the option that the address names; None if it names none of them."""
    wanted = st.query_params.get(name)
    return options.index(wanted) if wanted in options else None


def into_address(name: str, option: str | None) -> None:
    """Let the address name an option, or none."""
    if option is None:
        st.query_params.pop(name, None)
    elif st.query_params.get(name) != option:
        st.query_params[name] = option
