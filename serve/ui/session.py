"""What belongs to one browser session: the server, the key of who signed in, and answers that were asked for lately."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import streamlit as st

from lesion.client import Client
from lesion.core.errors import LesionError

DEFAULT_ADDRESS = "http://127.0.0.1:8000"
ADDRESS = "LESION_API"  # the environment variable with the server's address
_HEALTH_S, _ANSWER_S, _FILE_S = 2.0, 10.0, 60.0
_HEALTH_TIMEOUT_S = 5.0
ROLES = ("viewer", "contributor", "admin")  # each may do what those before it may
Found = TypeVar("Found")


def connect() -> Client:
    """Return this session's client, with the key of who signed in."""
    if "client" not in st.session_state:
        st.session_state["client"] = Client(_address())
    client: Client = st.session_state["client"]
    return client


def sign_in(key: str) -> None:
    """Use a key from now on, in this session alone; whether it is good shows with the next request.

    Raises:
        LesionError: It cannot be a key (``key_invalid``).
    """
    if not (key.isascii() and key.isprintable()):
        raise LesionError(
            "This is no API key: keys are plain letters, digits and signs.", code="key_invalid", status=401
        )
    sign_out()
    st.session_state["client"] = Client(_address(), key)


def sign_out() -> None:
    """Forget the key and everything that was shown with it."""
    st.session_state.clear()
    refresh()


def me(client: Client) -> dict[str, Any]:
    """Return whom the key belongs to: ``name``, ``role``, and whether the server has ``keys`` at all.

    While the server is away it is who it was, so that a page stays as it is, with the files that were dropped on it.
    """
    try:
        st.session_state["me"] = read(client, "/me")
    except LesionError as error:
        if error.code != "server_away" or "me" not in st.session_state:
            raise
    who: dict[str, Any] = st.session_state["me"]
    return who


def may(client: Client, role: str) -> bool:
    """Say whether who signed in has this role or a higher one."""
    return ROLES.index(me(client)["role"]) >= ROLES.index(role)


def health(client: Client) -> dict[str, Any]:
    """Return ``/health``, a moment old at most; a server that cannot predict now is there for all else."""
    return _health(client.identity, client)


def keeps_data(client: Client) -> bool:
    """Say whether the server has a storage: without one there are no uploads, retrainings or earlier models."""
    return bool(health(client)["ledger"] != "none")


def read(client: Client, path: str, **params: Any) -> Any:  # noqa: ANN401 - JSON
    """Return the JSON that is at a path, some seconds old at most, never of another model or another key."""
    return _json(client.identity, health(client)["model_version"], path, params, client)


def read_bytes(client: Client, path: str, **params: Any) -> bytes:  # noqa: ANN401 - query parameters
    """Return the file that is at a path, a minute old at most."""
    return _bytes(client.identity, health(client)["model_version"], path, params, client)


def in_use(client: Client) -> str | None:
    """Return the version that was deployed last, which servers follow within seconds."""
    ledger = read(client, "/deployments")
    return str(ledger[-1]["version"]) if ledger else None


def unless_missing(look: Callable[[], Found]) -> Found | None:
    """Return what was looked for; None if the server has no such thing."""
    try:
        return look()
    except LesionError as error:
        if error.status != 404:
            raise
        return None


def reachable(*, predicting: bool = False) -> bool:
    """Say whether the server answers right now, or even predicts."""
    refresh()
    try:
        found = health(connect())
    except LesionError:
        return False
    return bool(found["ready"]) or not predicting


def refresh() -> None:
    """Forget what was read, after something was changed."""
    for cached in (_health, _json, _bytes):
        cached.clear()


# What begins with an underscore is not part of the cache's key.
@st.cache_data(ttl=_HEALTH_S, max_entries=8, show_spinner=False, scope="session")
def _health(identity: str, _client: Client) -> dict[str, Any]:
    return _client.health(_HEALTH_TIMEOUT_S)


def _address() -> str:
    return os.environ.get(ADDRESS, DEFAULT_ADDRESS)


@st.cache_data(ttl=_ANSWER_S, max_entries=200, show_spinner=False, scope="session")
def _json(identity: str, version: str, path: str, params: dict[str, Any], _client: Client) -> Any:  # noqa: ANN401
    return _client.call("GET", path, params=params)


@st.cache_data(ttl=_FILE_S, max_entries=100, show_spinner=False, scope="session")
def _bytes(identity: str, version: str, path: str, params: dict[str, Any], _client: Client) -> bytes:
    return _client.download(path, **params)
