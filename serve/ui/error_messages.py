"""Errors of the server as users see them: what is wrong, what happened to their click, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

import httpx
import streamlit as st

from lesion.client import (
    ClientError,
    NoStorageError,
    NoWorkerReadyError,
    ServerTimeoutError,
    ServerUnavailableError,
    UnexpectedResponseError,
)
from serve.ui.session import clear_cache, is_reachable, sign_out
from serve.ui.text.sentences import escape_markdown

_WHOLE = ("frame", "page")  # boundaries of which a page has one at a time
_CHECK_S, _SLOW_CHECK_S = 2.0, 10.0
_FILE_STATUSES = frozenset({400, 413, 415, 422})
_RETRY = "This page tries again by itself"
_OPERATOR = "the person who runs the server"


@dataclass(frozen=True)
class Advice:
    """What to tell a user about an error, next to the server's own sentence."""

    title: str  # what is wrong, in a few words
    remedy: str = ""  # what to do; empty where the server's sentence says it
    retry: str = ""  # what the page does if it was only reading; the click of a user is never repeated
    # After how many seconds the page checks the server again; None if that would change nothing.
    check_s: float | None = None


_BY_CLASS: dict[type[ClientError], Advice] = {
    ServerUnavailableError: Advice(
        "The server cannot be reached",
        f"If this lasts, tell {_OPERATOR}.",
        "This page checks for the server and continues by itself when it is back.",
        _CHECK_S,
    ),
    NoStorageError: Advice("This server stores no data", f"Ask {_OPERATOR} to start it with a storage."),
    NoWorkerReadyError: Advice(
        "The server cannot predict now",
        "Everything else can be done meanwhile.",
        f"{_RETRY} and continues when the server can.",
        _CHECK_S,
    ),
    ServerTimeoutError: Advice("The server took too long", retry=f"{_RETRY}.", check_s=_CHECK_S),
    UnexpectedResponseError: Advice("This answer is not from a Lesion server", f"Tell {_OPERATOR}."),
}
_BY_STATUS: dict[int, Advice] = {
    401: Advice("You are not signed in", f"Sign in with an API key; {_OPERATOR} creates them."),
    403: Advice("You may not do this", f"Sign in with a key that has a higher role, or ask {_OPERATOR}."),
    404: Advice("This was not found on the server"),
    409: Advice("This cannot be done now"),
    413: Advice("This is too large for the server", "Send a smaller file, or fewer files at a time."),
    429: Advice("Too many requests", retry=f"Wait a little. {_RETRY} every ten seconds.", check_s=_SLOW_CHECK_S),
    507: Advice("A disk of the server is full", f"Tell {_OPERATOR}, who must free space.", "Then try again."),
    503: Advice("The server is not ready", retry=f"{_RETRY} and continues when it is.", check_s=_CHECK_S),
}
_REFUSED = Advice("The server refused this")
_FAILED = Advice("The server failed", f"If it happens again, tell {_OPERATOR} when it happened.", "Try again.")


def advice_for(error: ClientError) -> Advice:
    """Return what to tell a user about an error."""
    by_status = _BY_STATUS.get(error.status, _FAILED if error.status >= 500 else _REFUSED)
    return next((advice for kind, advice in _BY_CLASS.items() if isinstance(error, kind)), by_status)


def describe_failed_click(error: ClientError) -> str:
    """Write whether a click that was answered with an error had an effect."""
    never_connected = isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout)
    connection_lost = isinstance(error, ServerUnavailableError) and not never_connected
    retriable = error.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    if connection_lost or (error.status >= 500 and not retriable):
        return "It is not known whether this was done: check before you try again."
    return "This was not done. Try again." if retriable else "This was not done."


def is_file_error(error: ClientError) -> bool:
    """Return whether the file that was sent is at fault, so that other files may still be accepted."""
    return error.status in _FILE_STATUSES


def is_session_error(error: ClientError) -> bool:
    """Return whether all further requests of this session would meet the same error."""
    return error.status in (401, 429) or isinstance(error, ServerUnavailableError)


def show_error(error: ClientError, outcome: str = "") -> None:
    """Show what is wrong and why, what happened to the request (``outcome``), and what to do."""
    advice = advice_for(error)
    instructions = " ".join(filter(None, (outcome, advice.remedy)))
    st.error(f"{escape_markdown(error.message)}\n\n{instructions}".rstrip(), title=advice.title)


@contextmanager
def error_boundary(name: str = "page", *, part: bool = False) -> Iterator[None]:
    """Show an error of the server in words, and run the page again by itself when the server is well again.

    Every fragment needs its own boundary, since it also runs by itself; it works as a decorator too. What a click
    requests belongs in ``report_failure``. ``name`` distinguishes it from the other boundaries of a page. With
    ``part`` it encloses only a part of a page, and an error that all parts would meet ends the page.
    """
    try:
        yield
    except ClientError as error:
        if part and is_session_error(error):
            raise
        clear_cache()
        advice, suffix = advice_for(error), "" if name in _WHOLE else f" ({name})"  # no two buttons have one name
        show_error(error, advice.retry)
        if error.status == HTTPStatus.UNAUTHORIZED:
            st.button(f"Sign in{suffix}", key=f"sign-in-{name}", on_click=sign_out, type="primary")
            return
        st.button(f"Try again{suffix}", key=f"try-again-{name}")
        if advice.check_s is not None:
            _keep_checking(advice.check_s, predicting=isinstance(error, NoWorkerReadyError))


@contextmanager
def report_failure(outcome: str | None = None) -> Iterator[None]:
    """Do what a click requests, once: if it is refused, show that and leave it to the user to click again.

    ``outcome`` is what happened if it is refused, where ``describe_failed_click`` does not tell.
    """
    try:
        yield
    except ClientError as error:
        if error.status == HTTPStatus.UNAUTHORIZED:  # the page offers to sign in
            raise
        show_error(error, describe_failed_click(error) if outcome is None else outcome)


def _keep_checking(seconds: float, *, predicting: bool) -> None:
    """Check the server at intervals and run the whole page again once it answers."""
    checks: list[None] = []

    def check() -> None:
        st.caption(f"Checking again every {seconds:.0f} seconds …")
        if checks and is_reachable(predicting=predicting):  # the first check comes at once and would loop forever
            st.rerun()
        checks.append(None)

    st.fragment(check, run_every=seconds)()
