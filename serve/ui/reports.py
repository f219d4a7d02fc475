"""Pages that the server made, shown inside this one."""

from html import escape

import streamlit as st

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def show_report(page: str, name: str, height: int = 700) -> None:
    """Show a whole HTML page in a frame, where it can run nothing and load nothing.

    Args:
        page: The page.
        name: What it is, for those who do not see it.
        height: Pixels.
    """
    # The outer frame is Streamlit's and would let scripts run; the sandbox of the inner one does not.
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    style = "border:0;width:100%;height:100vh;background:white"
    inner = f'<iframe sandbox title="{escape(name)}" srcdoc="{escape(policy + page)}" style="{style}"></iframe>'
    st.iframe(f'<!doctype html><html><body style="margin:0">{inner}</body></html>', height=height, alt=name)
