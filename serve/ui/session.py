"""What belongs to one browser session: the server, the API key of its user, and answers that were read recently."""

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar, cast

import streamlit as st
from streamlit import runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

from lesion.client import Client, ClientError
from lesion.core.roles import ROLES
from serve.ui.held_files import HELD
from serve.ui.sending import stop_all
from serve.ui.sign_ins import SIGN_INS

DEFAULT_ADDRESS = "http://127.0.0.1:8000"
ADDRESS = "LESION_API"  # the environment variable with the server's address
_HEALTH_S, _JSON_S, _FILE_S = 2.0, 10.0, 60.0  # how long answers are kept
_HEALTH_TIMEOUT_S = 5.0
_KEPT = "kept-files"  # in the session, while the script runs
# In the session: the cookie by which it is signed in, a key that has none yet, and the ticket for that cookie.
_COOKIE, _KEY, _TICKET = "cookie", "key", "ticket"
COOKIE_PATH = "sign-in"  # below the page's path
TICKET_HEADER = "X-Lesion-Ticket"
_LAST = "last answer of"  # in the session, followed by what was asked
# What all answers that are kept have in common. The cache tells clients apart by server and key.
_CACHE: dict[str, Any] = {
    "show_spinner": False,
    "scope": "session",
    "hash_funcs": {Client: lambda client: client.identity},
}
Result = TypeVar("Result")


def connect() -> Client:
    """Return this session's client, with the key of its user; a new window has that of its browser's cookie."""
    cookie = st.session_state.get(_COOKIE) if "client" in st.session_state else st.context.cookies.get(cookie_name())
    if isinstance(cookie, str):  # in a test without a browser it is a stand-in
        key = SIGN_INS.key_of(cookie)
        if key is None and _COOKIE in st.session_state:  # another window signed out, or the time is over
            sign_out()
        elif key is not None and "client" not in st.session_state:
            st.session_state["client"], st.session_state[_COOKIE] = Client(_address(), key), cookie
    if "client" not in st.session_state:
        st.session_state["client"] = Client(_address())
    client: Client = st.session_state["client"]
    return client


def remember_sign_in() -> None:
    """Give the browser a cookie for a key that the server has accepted, so that other windows are signed in too."""
    key = st.session_state.pop(_KEY, None)
    if key is not None and runtime.exists():  # not in a test without a browser
        st.session_state[_COOKIE] = cookie = SIGN_INS.begin(key)
        st.session_state[_TICKET] = SIGN_INS.offer(cookie)
    ticket = st.session_state.get(_TICKET)
    if ticket is not None and SIGN_INS.is_offered(ticket):
        request = f"{{method: 'POST', headers: {{'{TICKET_HEADER}': '{ticket}'}}}}"
        st.html(f"<script>fetch('{page_path(COOKIE_PATH)}', {request})</script>", unsafe_allow_javascript=True)


def page_path(name: str = "") -> str:
    """Return a path on the page's own server, which may be below one of a proxy."""
    return "/".join(["", *filter(None, (str(st.get_option("server.baseUrlPath")).strip("/"), name))]) or "/"


def cookie_name() -> str:
    """Return the cookie's name: a browser sends cookies to all ports, so that each server has its own."""
    return f"lesion_{hashlib.sha256(_address().encode()).hexdigest()[:12]}"


def sign_in(key: str) -> None:
    """Use a key from now on, in this session only; the next request shows whether the server accepts it."""
    if not (key.isascii() and key.isprintable()):
        message = "This is not an API key: keys consist of plain letters, digits and signs."
        raise ClientError(message, code="key_invalid", status=HTTPStatus.UNAUTHORIZED)
    sign_out()
    st.session_state["client"], st.session_state[_KEY] = Client(_address(), key), key


def sign_out() -> None:
    """Forget the key and everything that was shown with it, in all windows of this browser."""
    dismiss()
    stop_all()
    st.session_state.clear()
    clear_cache()


def admit() -> None:
    """Let this session send files to the page, and longer messages; at the begin of a run."""
    st.session_state.pop(_KEPT, None)  # of a run that was broken off
    if (context := get_script_run_ctx()) is not None:
        HELD.admit(context.session_id, *_connection())


def keep_files(files: Sequence[UploadedFile]) -> None:
    """Keep these files: an uploader of this run shows them."""
    st.session_state.setdefault(_KEPT, set()).update(file.file_id for file in files)


def free_files() -> None:
    """Free the files that have left the page, at the end of a run; Streamlit would keep them until the session ends."""
    kept: set[str] = st.session_state.pop(_KEPT, set())
    context = get_script_run_ctx()
    if context is not None and runtime.exists():  # not in a test without a browser
        HELD.keep(dropped_files(), context.session_id, kept)


def dropped_files() -> MemoryUploadedFileManager:
    """Return where Streamlit keeps the files of all sessions."""
    return cast("MemoryUploadedFileManager", runtime.get_instance().uploaded_file_mgr)


def dismiss() -> None:
    """End this session's sign-in, also for other windows, and let it send nothing more."""
    if (cookie := st.session_state.get(_COOKIE)) is not None:
        SIGN_INS.end(cookie)
    if (context := get_script_run_ctx()) is not None:
        HELD.dismiss(context.session_id, *_connection())


def _connection() -> list[str]:
    """Return what distinguishes the browser's connection, through which it may then send longer messages."""
    key = st.context.headers.get("Sec-WebSocket-Key")
    return [key] if key else []


def current_user(client: Client) -> dict[str, Any]:
    """Return whom the key belongs to: ``name``, ``role``, and whether the server has ``keys`` at all."""
    user: dict[str, Any] = last_known(client, "/me")
    return user


def has_role(client: Client, role: str) -> bool:
    """Return whether the user has this role or a higher one."""
    return ROLES.index(current_user(client)["role"]) >= ROLES.index(role)


@st.cache_data(ttl=_HEALTH_S, max_entries=8, **_CACHE)
def health(client: Client) -> dict[str, Any]:
    """Return ``/health``, at most two seconds old, also of a server that cannot predict now."""
    return client.health(_HEALTH_TIMEOUT_S)


def has_storage(client: Client) -> bool:
    """Return whether the server has a storage: without one there are no uploads, retrainings or earlier models."""
    return bool(_or_last("health", partial(health, client))["ledger"] != "none")


def model_version(client: Client) -> str:
    """Return the version that answers or, while the server is away or busy, that answered last."""
    return str(_or_last("health", partial(health, client))["model_version"])


def read(client: Client, path: str, **params: Any) -> Any:  # noqa: ANN401 - JSON
    """Return the JSON at a path, at most ten seconds old, never of another model or another key."""
    st.session_state[f"{_LAST} health"] = answer = health(client)
    return _json(client, answer["model_version"], path, params)


def last_known(client: Client, path: str) -> Any:  # noqa: ANN401 - JSON
    """Return the JSON at a path or, while the server is away or busy, what it answered last.

    So a page, and the files that were dropped on it, stay.
    """
    return _or_last(path, partial(read, client, path))


def _or_last(name: str, load: Callable[[], Result]) -> Result:
    key = f"{_LAST} {name}"
    try:
        st.session_state[key] = load()
    except ClientError as error:
        if not error.temporary or key not in st.session_state:
            raise
    result: Result = st.session_state[key]
    return result


def class_names(client: Client) -> dict[str, str]:
    """Return the name by which each class of the model is shown; none where the server does not tell them now."""
    try:
        names: dict[str, str] = last_known(client, "/info")["class_names"]
    except ClientError:  # what else needs /info says so; for names alone no page is lost
        return {}
    return names


def read_bytes(client: Client, path: str, **params: Any) -> bytes:  # noqa: ANN401 - query parameters
    """Return the file at a path, at most a minute old."""
    return _bytes(client, health(client)["model_version"], path, params)


def version_in_use(client: Client) -> str | None:
    """Return the version that was deployed last; servers switch to it within seconds."""
    deployments = read(client, "/deployments")
    return str(deployments[-1]["version"]) if deployments else None


def none_if_missing(load: Callable[[], Result]) -> Result | None:
    """Return what ``load`` returns; None if the server answers that it does not exist."""
    try:
        return load()
    except ClientError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return None


def is_reachable(*, predicting: bool = False) -> bool:
    """Return whether the server answers right now, and with ``predicting`` whether it can also predict."""
    clear_cache()
    try:
        answer = health(connect())
    except ClientError:
        return False
    return bool(answer["ready"]) or not predicting


def clear_cache() -> None:
    """Forget what was read, after a change."""
    for cached in (health, _json, _bytes):
        cached.clear()


@st.cache_data(ttl=_JSON_S, max_entries=200, **_CACHE)
def _json(client: Client, version: str, path: str, params: dict[str, Any]) -> Any:  # noqa: ANN401
    return client.call("GET", path, params=params)


@st.cache_data(ttl=_FILE_S, max_entries=100, **_CACHE)
def _bytes(client: Client, version: str, path: str, params: dict[str, Any]) -> bytes:
    return client.download(path, **params)


def _address() -> str:
    return os.environ.get(ADDRESS, DEFAULT_ADDRESS)
