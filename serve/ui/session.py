"""What belongs to one browser session: the server, the key of who signed in, and answers that were asked for lately."""

import os
from typing import Any

import streamlit as st

from lesion.client import Client
from lesion.errors import LesionError

DEFAULT_ADDRESS = "http://127.0.0.1:8000"
ADDRESS = "LESION_API"  # the environment variable with the server's address
_HEALTH_S, _ANSWER_S, _FILE_S = 2.0, 10.0, 60.0
_HEALTH_TIMEOUT_S = 5.0


def connect() -> Client:
    """Return this session's client, with the key of who signed in."""
    if "client" not in st.session_state:
        st.session_state["client"] = Client(os.environ.get(ADDRESS, DEFAULT_ADDRESS))
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
    st.session_state["client"] = Client(os.environ.get(ADDRESS, DEFAULT_ADDRESS), key)


def sign_out() -> None:
    """Forget the key and everything that was shown with it."""
    st.session_state.clear()
    refresh()


def me(client: Client) -> dict[str, Any]:
    """Return whom the key belongs to: ``name``, ``role``, and whether the server has ``keys`` at all."""
    who: dict[str, Any] = read(client, "/me")
    return who


def may(client: Client, role: str) -> bool:
    """Say whether who signed in has this role or a higher one."""
    roles = ("viewer", "contributor", "admin")
    return roles.index(me(client)["role"]) >= roles.index(role)


def health(client: Client) -> dict[str, Any]:
    """Return ``/health``, a moment old at most."""
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


def reachable() -> bool:
    """Say whether the server answers predictions right now."""
    refresh()
    try:
        health(connect())
    except LesionError:
        return False
    return True


def refresh() -> None:
    """Forget what was read, after something was changed."""
    for cached in (_health, _json, _bytes):
        cached.clear()


# What begins with an underscore is not part of the cache's key.
@st.cache_data(ttl=_HEALTH_S, max_entries=8, show_spinner=False, scope="session")
def _health(identity: str, _client: Client) -> dict[str, Any]:
    answer: dict[str, Any] = _client.call("GET", "/health", timeout=_HEALTH_TIMEOUT_S)
    return answer


@st.cache_data(ttl=_ANSWER_S, max_entries=200, show_spinner=False, scope="session")
def _json(identity: str, version: str, path: str, params: dict[str, Any], _client: Client) -> Any:  # noqa: ANN401
    return _client.call("GET", path, params=params)


@st.cache_data(ttl=_FILE_S, max_entries=100, show_spinner=False, scope="session")
def _bytes(identity: str, version: str, path: str, params: dict[str, Any], _client: Client) -> bytes:
    return _client.download(path, **params)
