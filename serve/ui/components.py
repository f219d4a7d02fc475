"""What several screens share: charts with their sentence, changes with a confirmation, downloads and reports."""

import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd
import streamlit as st

from lesion.client import Client
from lesion.core.text import format_count
from serve.ui.charts.style import Figure
from serve.ui.error_messages import advice_for, report_failure, show_error
from serve.ui.sending import Pause, Sending
from serve.ui.session import clear_cache, read_bytes
from serve.ui.text import sentences
from serve.ui.text.model_findings import describe_outcome
from serve.ui.text.sentences import escape_markdown, to_csv

_REPORTED_STATES = ("promoted", "rejected", "budget_spent")  # states of jobs with a report of the gate
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_LOOK_S, _COUNTDOWN_S = 0.5, 1.0
_CONFIRMATION = "confirmation"  # in the session until it was shown
NO_DATA = "This server stores no data, so there is nothing to show here."
START_WITH_STORAGE = "Ask the person who runs it to start it with a storage (lesion serve storage=local)."


def show_figure(chart: Figure | None, title: str, sentence: str, note: str = "") -> None:
    """Show a chart, if any, the sentence about it and a note on what it leaves out; screen readers get the title."""
    st.subheader(title)
    st.markdown(escape_markdown(sentence))
    if chart is not None:
        st.altair_chart(chart, width="stretch", alt=title)
    if note:
        st.caption(escape_markdown(note))


def offer_download(label: str, content: bytes, file_name: str, mime: str | None = None) -> None:
    """Show a button that gives a file to the user and does not run the page again."""
    st.download_button(label, content, file_name, mime, on_click="ignore")


def offer_csv(label: str, rows: Sequence[Mapping[str, Any]], file_name: str) -> None:
    """Show a button that gives rows to the user as a CSV file."""
    offer_download(label, to_csv(rows), file_name, "text/csv")


def apply_change(change: Callable[[], object], confirmation: str) -> None:
    """Change something and run the page again; if it is refused, show why and leave the page as it is."""
    with report_failure():
        change()
        clear_cache()
        confirm(confirmation)
        st.rerun()


def confirm(confirmation: str) -> None:
    """Keep a sentence for ``show_confirmation`` of the next run."""
    st.session_state[_CONFIRMATION] = confirmation


def show_confirmation() -> None:
    """Show what was done last; a dialog cannot show it, since it closes."""
    if (confirmation := st.session_state.pop(_CONFIRMATION, None)) is not None:
        st.toast(escape_markdown(confirmation))


def show_sending(sending: Sending, noun: str, count: Callable[[], tuple[int, int]]) -> None:
    """Show how far a sending is until it ends or pauses, and then one line about what waits, with a button.

    ``noun`` is what is sent, such as ``image``; ``count`` returns how many were sent, and how many there are.
    """
    place = st.empty()
    if sending.active and sending.pause is None:
        with place.container():
            st.button("Stop sending", key=f"stop-{noun}", on_click=sending.stop)
            bar = st.progress(0.0)
            while sending.active and sending.pause is None:
                sent, total = count()
                bar.progress(sent / max(1, total), f"{sent:,} of {format_count(total, noun)} sent")
                sending.wait(_LOOK_S)
        place.empty()
    if sending.active:
        st.fragment(_count_down, run_every=_COUNTDOWN_S)(sending, sending.pause, noun, count)
    elif not sending.finished:
        sent, total = count()
        if sending.error is not None:
            show_error(sending.error)
        st.warning(sentences.sending_stopped(sent, total, noun))
        st.button("Send the rest", key=f"send-rest-{noun}", on_click=sending.start, type="primary")


def _count_down(sending: Sending, pause: Pause | None, noun: str, count: Callable[[], tuple[int, int]]) -> None:
    if pause is None or sending.pause is not pause:  # it sends again, or was stopped
        st.rerun()
    sent, total = count()
    sentence = sentences.sending_pauses(total - sent, total, noun, max(0.0, pause.until - time.monotonic()))
    st.warning(f"{sentence} {escape_markdown(pause.error.message)}", title=advice_for(pause.error).title)
    st.button("Stop sending", key=f"stop-pause-{noun}", on_click=sending.stop)


def warn_without_worker(worker: Mapping[str, Any] | None) -> None:
    """Warn that no retraining worker runs, from ``worker`` of a job or of the estimate; a job that is over has none."""
    if worker is not None and (warning := sentences.describe_worker(worker)):
        st.warning(warning)


def largest_file(limit: int) -> int:
    """Return how many MiB a dropped file may have, where the API takes ``limit`` bytes: what the page says and takes.

    The page's own limit (``lesion ui --max-upload``) may be lower.
    """
    return max(1, min(limit // 2**20, int(st.get_option("server.maxUploadSize"))))


def ask_reason(action: str) -> str | None:
    """Ask for a reason in a dialog, and return it once it was entered and the action's button was pressed."""
    # Neither a hint nor a counter, which Streamlit writes over the text; the server limits its length and says so.
    with st.form("reason", enter_to_submit=False):
        text = st.text_input("Reason")
        st.caption("It is stored with your name, so that others can read it later.")
        pressed = st.form_submit_button(action, type="primary")
    if pressed and not text.strip():
        st.warning("Enter a reason first.")
    return text.strip() or None if pressed else None


def show_report(html: str, title: str) -> None:
    """Show a whole HTML page in a frame in which it can neither run scripts nor load anything."""
    # The outer frame is Streamlit's and would allow scripts; the sandbox of the inner frame does not.
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    style = "border:0;width:100%;height:100vh;background:white"
    inner = f'<iframe sandbox title="{escape(title)}" srcdoc="{escape(policy + html)}" style="{style}"></iframe>'
    st.iframe(f'<!doctype html><html><body style="margin:0">{inner}</body></html>', height=700, alt=title)


def show_next_steps(steps: Sequence[str]) -> None:
    """Show what to do next, as a list."""
    st.markdown("**What to do next**\n\n" + "\n".join(f"- {escape_markdown(step)}" for step in steps))


def show_summary(summary: Mapping[str, Any]) -> None:
    """Show in plain words why the gate decided so, or could not, and what to do next."""
    st.markdown(escape_markdown(summary["why"]))
    show_next_steps(summary["next_steps"])


def show_verdict(client: Client, job: dict[str, Any]) -> None:
    """Show what to do after the gate's decision on a retraining, its conditions, and its report on demand."""
    verdict = job["verdict"] or {}
    if summary := verdict.get("summary"):  # verdicts of earlier versions have none
        show_next_steps(summary["next_steps"])
    if checks := verdict.get("checks"):
        rows = [{"Holds": describe_outcome(check), "Condition": escape_markdown(check["sentence"])} for check in checks]
        with st.expander("What was compared, in numbers"):
            st.table(pd.DataFrame(rows).set_index("Holds"), alt="What the gate compared")
            for rule in verdict.get("rules", ()):
                st.caption(escape_markdown(f"Generation {rule['generation']}: {rule['sentence']}"))
    # verdicts of earlier versions have neither
    labels = [verdict.get("label_check"), *(verdict.get("review") or {}).get("sentences", [])]
    for sentence in filter(None, labels):
        st.caption(escape_markdown(sentence))
    if job["state"] in _REPORTED_STATES and st.toggle("Show the whole report", key=f"gate-{job['job_id']}"):
        report = read_bytes(client, f"/retrain_jobs/{job['job_id']}/report")
        offer_download("Download the report", report, f"gate-{job['job_id']}.html", "text/html")
        show_report(report.decode(), "The report of the decision")
