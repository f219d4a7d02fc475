"""The application of the page: Streamlit, with a guard before it who keeps strangers' files out.

``lesion ui`` has Streamlit run this file, in which Streamlit finds ``app``. Connections have bounds besides, in
``bounded_websocket``.
"""

import re
from http import HTTPStatus
from pathlib import Path

import streamlit as st
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.ui.held_files import HELD, NoRoomError
from serve.ui.session import COOKIE_PATH, TICKET_HEADER, cookie_name, dropped_files, page_path
from serve.ui.sign_ins import SIGN_INS

_UPLOADS = "/_stcore/upload_file"
_UPLOAD = re.compile(rf"{_UPLOADS}/([^/]+)/([^/]+)$")


class Guard:
    """Refuses files of people who have not signed in, and files beyond the bounds."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed; ASGI's interface."""
        if scope["type"] == "http" and _UPLOADS in scope["path"] and scope["method"] != "OPTIONS":
            await self._take_file(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _take_file(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Decide by the head of a request, before a byte of its body is read."""
        place, length = _UPLOAD.search(scope["path"]), Headers(scope=scope).get("content-length", "")
        if place is None:
            await _refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")(scope, receive, send)
            return
        if not HELD.admits(place[1]):
            await _refuse(HTTPStatus.FORBIDDEN, "Sign in before you send files.")(scope, receive, send)
            return
        if scope["method"] != "PUT":  # a file is removed
            await self._app(scope, receive, send)
            return
        if not (length.isascii() and length.isdecimal()):
            await _refuse(HTTPStatus.LENGTH_REQUIRED, "The length of the file is missing.")(scope, receive, send)
            return
        try:
            with HELD.arriving(dropped_files(), place[1], place[2], int(length)):
                await self._app(scope, receive, send)
        except NoRoomError:
            message = "The page holds too many files. Upload or remove those that were dropped already, then try again."
            await _refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)(scope, receive, send)


def _refuse(status: HTTPStatus, message: str) -> PlainTextResponse:
    return PlainTextResponse(message, status)


async def give_cookie(request: Request) -> Response:
    """Answer a ticket with the cookie that it is for.

    The ticket comes in a header of its own, which no other site can make a browser send.
    """
    cookie = SIGN_INS.fetch(request.headers.get(TICKET_HEADER, ""))
    if cookie is None:
        return PlainTextResponse("This sign-in is too old. Sign in again.", HTTPStatus.FORBIDDEN)
    response = Response(status_code=HTTPStatus.NO_CONTENT, headers={"Cache-Control": "no-store"})
    response.set_cookie(
        cookie_name(),
        cookie,
        max_age=int(SIGN_INS.seconds),
        path=page_path(),
        secure=request.headers.get("origin", "").startswith("https:"),  # as the browser sees it, before any proxy
        httponly=True,
        samesite="strict",
    )
    return response


app = st.App(
    Path(__file__).with_name("app.py"),
    routes=[Route(page_path(COOKIE_PATH), give_cookie, methods=["POST"])],
    middleware=[Middleware(Guard)],
)
