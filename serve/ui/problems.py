"""What goes wrong, in words: what it is and what to do about it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import streamlit as st

from lesion.errors import LesionError
from serve.ui.session import reachable, refresh, sign_out
from serve.ui.words import plain

_LOOK_S, _PATIENT_LOOK_S = 2.0, 10.0
_TOO_MANY = 429
_OF_THE_FILE = frozenset({400, 413, 415, 422})


@dataclass(frozen=True)
class Advice:
    """What to tell a person about an error, beside the server's own sentence.

    Attributes:
        title: What is wrong, in a few words.
        remedy: What to do; empty where the sentence says it.
        look_s: After how many seconds to look again; None if that would change nothing.
    """

    title: str
    remedy: str = ""
    look_s: float | None = None


_BY_CODE = {
    "server_away": Advice(
        "The server is away",
        "This page looks for it and goes on by itself when it is back. If it stays away, tell whoever runs it.",
        _LOOK_S,
    ),
    "no_storage": Advice("This server keeps no data", "Ask whoever runs it to start it with a storage."),
    "timed_out": Advice("The server took too long", "Try again.", _LOOK_S),
}
_BY_STATUS = {
    401: Advice("You are not signed in", "Sign in with an API key; whoever runs the server makes them."),
    403: Advice("You may not do this", "Sign in with a key of a higher role, or ask whoever runs the server."),
    404: Advice("There is no such thing here"),
    409: Advice("This cannot be done now"),
    413: Advice("This is too large for the server", "Send a smaller file, or fewer files at a time."),
    _TOO_MANY: Advice(
        "Too many requests", "Wait a little. This page tries again by itself every ten seconds.", _PATIENT_LOOK_S
    ),
    503: Advice("The server is not ready", "This page tries again by itself and goes on when it is.", _LOOK_S),
}
_REFUSED = Advice("The server refused this")
_FAILED = Advice("The server failed", "Try again. If it happens again, tell whoever runs the server when it was.")


def advice(error: LesionError) -> Advice:
    """Return what to tell a person about an error."""
    otherwise = _FAILED if error.status >= 500 else _REFUSED
    return _BY_CODE.get(error.code) or _BY_STATUS.get(error.status, otherwise)


def of_the_file(error: LesionError) -> bool:
    """Say whether it is the file that was sent that is at fault, so that others may fare better."""
    return error.status in _OF_THE_FILE


def tell(error: LesionError) -> None:
    """Show what is wrong, why and what to do."""
    about = advice(error)
    st.error(f"{plain(error.message)}\n\n{about.remedy}".rstrip(), title=about.title)


@contextmanager
def guarded() -> Iterator[None]:
    """Show an error of the server as words instead of a traceback, and go on by itself when the server is well again.

    Every fragment needs one of its own, since it also runs by itself; it works as a decorator too.
    """
    try:
        yield
    except LesionError as error:
        refresh()
        tell(error)
        if error.status == 401:
            st.button("Sign in", on_click=sign_out, type="primary")
            return
        st.button("Try again", key=f"try-again-{error.code}")
        if (seconds := advice(error).look_s) is not None:
            _look_again(seconds)


def _look_again(seconds: float) -> None:
    """Run the whole page anew once the server answers, looking now and then."""
    looks: list[None] = []

    def look() -> None:
        st.caption(f"Looking again every {seconds:.0f} seconds …")
        if looks and reachable():  # the first look would come at once, and go round and round
            st.rerun()
        looks.append(None)

    st.fragment(look, run_every=seconds)()
