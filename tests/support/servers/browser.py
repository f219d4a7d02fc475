"""The page as a real process, windows before it, and a stand-in for the API that can refuse any request."""

import http.client
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from lesion.database.storage import Storage
from scripts.dev.browsing import MISSING, PAGES, chromium
from serve.deploy.ports import free_port, page_answers
from tests.support.paths import SCRIPTS
from tests.support.servers.serving import CommandProcess, ServerProcess

# The marks of a module whose tests use a real browser.
IN_A_BROWSER = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason=f"needs a browser: {MISSING}"),
]
OpenWindow = Callable[..., Page]
SOON_MS = 20_000
PATHS = dict(zip(PAGES, ("", "visualizations", "training", "model", "admin"), strict=True))
Answer = tuple[int, dict[str, str], bytes]
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"})


class PageProcess(CommandProcess):
    """``scripts/ui.py`` for an API, on a free port."""

    def __init__(self, api: str, *options: str, port: int | None = None) -> None:
        port = port or free_port()
        command = [sys.executable, str(SCRIPTS / "ui.py"), "--api", api, "--port", str(port), *options]
        super().__init__(command, f"http://127.0.0.1:{port}")

    def ready(self) -> bool:
        return page_answers(self.url)


@dataclass
class _Told:
    """What is answered at a path instead of what the API would say."""

    path: str
    answer: Answer | None  # None: the connection is cut …
    after: int
    least: int
    late: bool = False  # … after the API has done what was asked


class Front:
    """A server that passes everything on to the API behind it, until it is told to refuse."""

    def __init__(self, behind: str) -> None:
        self._behind = behind
        self._told: list[_Told] = []
        self.asked: list[str] = []
        self.retry_after = 7  # seconds, in refusals that pass
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                try:
                    status, headers, content = front._answer(self, body)
                except (OSError, http.client.HTTPException):
                    self.close_connection = True  # as if there were no server
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_DELETE = do_PUT = do_GET

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def refuse(self, status: int, code: str, path: str = "/", after: int = 0, least: int = 0) -> None:
        """From now on answer with this status whatever is asked of this path and below.

        Args:
            status: Of the answers.
            code: Their stable name.
            path: Where.
            after: So many requests there are passed on first.
            least: Requests with fewer bytes than this are passed on.
        """
        detail = f"The stand-in refuses this with {status}."
        document = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
        self.answer(path, status, document | {"code": code, "request_id": "0"}, after, least)

    @contextmanager
    def refusing(self, status: int, code: str, path: str = "/", after: int = 0) -> Iterator[None]:
        """Refuse as ``refuse`` does, until the block ends."""
        self.refuse(status, code, path, after)
        try:
            yield
        finally:
            self.pass_on()

    def answer(self, path: str, status: int, document: object, after: int = 0, least: int = 0) -> None:
        """From now on answer whatever is asked of this path and below with this status and JSON."""
        headers = {"Content-Type": "application/json"}
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            headers["Retry-After"] = str(self.retry_after)
        self._told.append(_Told(path, (status, headers, json.dumps(document).encode()), after, least))

    def cut(self, path: str = "/", after: int = 0, *, late: bool = False) -> None:
        """From now on close each connection at this path unanswered; ``late``: after the API did what was asked."""
        self._told.append(_Told(path, None, after, 0, late))

    def pass_on(self) -> None:
        """Refuse nothing any more."""
        self._told.clear()

    def _answer(self, asked: BaseHTTPRequestHandler, body: bytes) -> Answer:
        path = asked.path.partition("?")[0]
        self.asked.append(f"{asked.command} {path}")
        for told in self._told:
            if f"{path}/".startswith(f"{told.path.rstrip('/')}/") and len(body) >= told.least:
                if told.after:
                    told.after -= 1
                    continue
                if told.late:
                    self._pass_on(asked, body)
                if told.answer is None:
                    raise ConnectionAbortedError
                return told.answer
        return self._pass_on(asked, body)

    def _pass_on(self, asked: BaseHTTPRequestHandler, body: bytes) -> Answer:
        place = urlsplit(self._behind)
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)
        kept = {name: value for name, value in asked.headers.items() if name.lower() not in _HOP | {"host"}}
        try:
            connection.request(asked.command, asked.path, body or None, kept)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        return answer.status, {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}, content


@dataclass
class World:
    """A server with its storage, the page before it, and the stand-in between the two."""

    server: ServerProcess
    storage: Storage
    front: Front
    page: PageProcess


def shows(page: Page, words: str, milliseconds: int = SOON_MS) -> None:
    """Wait until a page shows the words."""
    # A closed expander, such as the model card's, may hold the same words earlier on the page.
    expect(page.get_by_text(words).filter(visible=True).first).to_be_visible(timeout=milliseconds)
