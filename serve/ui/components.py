"""What several pages show or do alike: a chart with its sentence, a change with its outcome."""

from collections.abc import Callable

import streamlit as st

from serve.ui.charts.data_charts import Figure
from serve.ui.error_messages import attempted
from serve.ui.session import refresh
from serve.ui.text.sentences import plain

_DONE = "done"  # in the session until it was said
NO_DATA = "This server keeps no data, so there is nothing to show here."
START_IT = "Ask whoever runs it to start it with a storage (scripts/serve.py storage=local)."


def figure(chart: Figure, title: str, sentence: str, note: str = "") -> None:
    """Show a chart, the sentence that says what it means, the title for those who do not see it, and what it lacks."""
    st.subheader(title)
    st.markdown(plain(sentence))
    st.altair_chart(chart, width="stretch", alt=title)
    if note:
        st.caption(plain(note))


def act(change: Callable[[], object], done: str) -> None:
    """Change something and show everything anew; if it is refused, say why and leave all as it stands."""
    with attempted():
        change()
        refresh()
        st.session_state[_DONE] = done
        st.rerun()


def show_done() -> None:
    """Say what the last ``act`` did; a dialog that did it would take its own words with it."""
    if (done := st.session_state.pop(_DONE, None)) is not None:
        st.toast(plain(done))


def reason(action: str) -> str | None:
    """Ask for a reason in a dialog, and return it once it is given and the action was pressed."""
    # Neither a hint nor a counter, which Streamlit writes over the text; the server bounds it and says so.
    with st.form("reason", enter_to_submit=False):
        text = st.text_input("Reason")
        st.caption("It is kept with your name, for all who come after.")
        pressed = st.form_submit_button(action, type="primary")
    if pressed and not text.strip():
        st.warning("A reason is needed.")
    return text.strip() or None if pressed else None
