"""What goes wrong, in words: what it is and what to do about it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import streamlit as st

from lesion.core.errors import LesionError
from serve.ui.session import reachable, refresh, sign_out
from serve.ui.text.sentences import plain

_LOOK_S, _PATIENT_LOOK_S = 2.0, 10.0
_TOO_MANY, _NOT_READY = 429, 503
_OF_THE_FILE = frozenset({400, 413, 415, 422})
_SELF = "This page tries again by itself"


@dataclass(frozen=True)
class Advice:
    """What to tell a person about an error, beside the server's own sentence.

    Attributes:
        title: What is wrong, in a few words.
        remedy: What to do; empty where the sentence says it.
        waits: What becomes of a page that was only reading; nobody's click is done again for them.
        look_s: After how many seconds such a page looks again; None if that would change nothing.
    """

    title: str
    remedy: str = ""
    waits: str = ""
    look_s: float | None = None


_BY_CODE = {
    "server_away": Advice(
        "The server is away",
        "If it stays away, tell whoever runs it.",
        "This page looks for it and goes on by itself when it is back.",
        _LOOK_S,
    ),
    "no_storage": Advice("This server keeps no data", "Ask whoever runs it to start it with a storage."),
    "no_worker_ready": Advice(
        "The server cannot predict now", "All else can be done meanwhile.", f"{_SELF} and goes on when it can.", _LOOK_S
    ),
    "timed_out": Advice("The server took too long", waits=f"{_SELF}.", look_s=_LOOK_S),
    "answer_not_understood": Advice("This is no answer of Lesion's server", "Tell whoever runs it."),
}
_BY_STATUS = {
    401: Advice("You are not signed in", "Sign in with an API key; whoever runs the server makes them."),
    403: Advice("You may not do this", "Sign in with a key of a higher role, or ask whoever runs the server."),
    404: Advice("There is no such thing here"),
    409: Advice("This cannot be done now"),
    413: Advice("This is too large for the server", "Send a smaller file, or fewer files at a time."),
    _TOO_MANY: Advice("Too many requests", waits=f"Wait a little. {_SELF} every ten seconds.", look_s=_PATIENT_LOOK_S),
    _NOT_READY: Advice("The server is not ready", waits=f"{_SELF} and goes on when it is.", look_s=_LOOK_S),
}
_REFUSED = Advice("The server refused this")
_FAILED = Advice("The server failed", "If it happens again, tell whoever runs the server when it was.", "Try again.")


def advice(error: LesionError) -> Advice:
    """Return what to tell a person about an error."""
    otherwise = _FAILED if error.status >= 500 else _REFUSED
    return _BY_CODE.get(error.code) or _BY_STATUS.get(error.status, otherwise)


def undone(error: LesionError) -> str:
    """Say what became of a click that was answered with an error."""
    reached = not isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout)
    lost = error.code == "server_away" and reached
    if lost or (error.status >= 500 and error.status != _NOT_READY):
        return "Whether this was done is not known: look before you try again."
    again = " Try again." if error.status in (_TOO_MANY, _NOT_READY) else ""
    return f"This was not done.{again}"


def of_the_file(error: LesionError) -> bool:
    """Say whether it is the file that was sent that is at fault, so that others may fare better."""
    return error.status in _OF_THE_FILE


def of_the_session(error: LesionError) -> bool:
    """Say whether whatever is asked next would be answered in the same way."""
    return error.status in (401, _TOO_MANY) or error.code == "server_away"


def tell(error: LesionError, outcome: str = "") -> None:
    """Show what is wrong and why, what becomes of what was asked for, and what to do."""
    about = advice(error)
    then = " ".join(filter(None, (outcome, about.remedy)))
    st.error(f"{plain(error.message)}\n\n{then}".rstrip(), title=about.title)


@contextmanager
def guarded(name: str = "page", *, part: bool = False) -> Iterator[None]:
    """Show an error of the server as words instead of a traceback, and go on by itself when the server is well again.

    Every fragment needs one of its own, since it also runs by itself; it works as a decorator too. What a click asks
    for stands in ``attempted``.

    Args:
        name: Tells it from the others on a page, of which several may have something to show.
        part: Whether only a part of a page stands in it, so that an error that all parts would meet ends the page.
    """
    try:
        yield
    except LesionError as error:
        if part and of_the_session(error):
            raise
        refresh()
        about = advice(error)
        tell(error, about.waits)
        if error.status == 401:
            st.button("Sign in", key=f"sign-in-{name}", on_click=sign_out, type="primary")
            return
        st.button("Try again", key=f"try-again-{name}")
        if about.look_s is not None:
            _look_again(about.look_s, predicting=error.code == "no_worker_ready")


@contextmanager
def attempted(outcome: str | None = None) -> Iterator[None]:
    """Do what a click asks for, once: if it is refused, say so and leave it to the person to click again.

    Args:
        outcome: What became of it if it is refused, where ``undone`` does not say it.
    """
    try:
        yield
    except LesionError as error:
        if error.status == 401:  # the page offers to sign in
            raise
        tell(error, undone(error) if outcome is None else outcome)


def _look_again(seconds: float, *, predicting: bool) -> None:
    """Run the whole page anew once the server answers, looking now and then."""
    looks: list[None] = []

    def look() -> None:
        st.caption(f"Looking again every {seconds:.0f} seconds …")
        if looks and reachable(predicting=predicting):  # the first look would come at once, and go round and round
            st.rerun()
        looks.append(None)

    st.fragment(look, run_every=seconds)()
