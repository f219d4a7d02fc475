"""The page as a real process, and a server before the API that can refuse whatever it is asked."""

import http.client
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx
import psutil
from serving import free_port

SCRIPT = Path(__file__).parents[1] / "scripts" / "ui.py"
Answer = tuple[int, dict[str, str], bytes]
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"})


class PageProcess:
    """``scripts/ui.py`` before an API, on a free port."""

    def __init__(self, api: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        command = [sys.executable, str(SCRIPT), "--api", api, "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/_stcore/health").text == "ok":
                    return self
            except httpx.TransportError:
                time.sleep(0.1)
        text = self.output()
        self.__exit__()
        raise RuntimeError(f"the page did not start:\n{text}")

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()
        self.log.close()

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def stop(self) -> int:
        """Ask it to end, and make sure that nothing is left."""
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(20)
        _, alive = psutil.wait_procs(family, timeout=5)
        for process in alive:
            process.kill()
        assert not alive, f"left over: {alive}"
        return status


class Front:
    """A server that passes everything on to the API behind it, until it is told to refuse."""

    def __init__(self, behind: str) -> None:
        self._behind = behind
        self._refusal: tuple[int, str, str] | None = None
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

    def refuse(self, status: int, code: str, path: str = "/") -> None:
        """From now on answer with this status whatever is asked of this path and below."""
        self._refusal = (status, code, path)

    def pass_on(self) -> None:
        """Refuse nothing any more."""
        self._refusal = None

    def _answer(self, asked: BaseHTTPRequestHandler, body: bytes) -> Answer:
        refusal = self._refusal
        if refusal is None or not asked.path.startswith(refusal[2]):
            return self._pass_on(asked, body)
        status, code, _ = refusal
        detail = f"The stand-in refuses this with {status}."
        title = HTTPStatus(status).phrase
        document = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}
        headers = {"Content-Type": "application/problem+json"}
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            headers["Retry-After"] = "7"
        return status, headers, json.dumps(document | {"request_id": "0"}).encode()

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
