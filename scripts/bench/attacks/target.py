"""The server that is attacked, and how an attack reads its answers."""

import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

PATIENCE_S = 40.0  # longer than the server may take for any answer but that to an upload
UPLOAD_PATIENCE_S = 600.0


@dataclass(frozen=True)
class Target:
    """A server of this machine: its port, its admin's key and its storage's folder."""

    port: int
    key: str
    storage: Path

    def head(self, method: str, path: str, *headers: str, key: bool = False) -> bytes:
        """Return a request's line and headers, up to the empty line, which is left to the attack."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *headers]
        if key:
            lines.append(f"Authorization: Bearer {self.key}")
        return "\r\n".join([*lines, ""]).encode("latin-1")

    def connect(self, address: str = "127.0.0.1") -> socket.socket:
        """Open a connection from one of this machine's addresses."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_S, (address, 0))

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response | None:  # noqa: ANN401 - httpx's
        """Send a request with the admin's key; return None if the connection was cut."""
        headers = {"Authorization": f"Bearer {self.key}", **request.pop("headers", {})}
        request = {"timeout": PATIENCE_S, **request}
        with suppress(httpx.TransportError):
            return httpx.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers, **request)
        return None

    def upload(self, name: str, data: bytes) -> httpx.Response | None:
        """Upload a file as an image of the first class, or as an archive of them."""
        info = self.ask("GET", "/info")
        if info is None:
            return None
        fields = {"label": info.json()["classes"][0]}
        files = {"files": (name, data)}
        return self.ask("POST", "/upload_training_data", files=files, data=fields, timeout=UPLOAD_PATIENCE_S)


@dataclass(frozen=True)
class Attack:
    """Something that a hostile or careless client does until a time, and what it may be answered.

    ``act`` returns how often it got which status or code; ``cut`` stands for a connection that was closed without one.
    """

    name: str
    about: str
    act: Callable[[Target, float], Counter[str]]
    right: tuple[str, ...]

    def wrong_answers(self, answers: Mapping[str, int]) -> dict[str, int]:
        """Return the answers that are not right ones."""
        return {answer: count for answer, count in answers.items() if answer not in self.right}


def repeat(act: Callable[[], str], until: float, clients: int) -> Counter[str]:
    """Do something again and again until a time, by several clients at once; count what it returns."""

    def run(_: int) -> Counter[str]:
        answers = Counter[str]()
        while time.monotonic() < until:
            answers[act()] += 1
        return answers

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(run, range(clients)), Counter[str]())


def status_line(connection: socket.socket) -> str:
    """Return the status that a connection is answered; ``cut`` if it is closed without one."""
    received = b""
    with suppress(OSError):
        while b"\r\n" not in received and (piece := connection.recv(4096)):
            received += piece
    parts = received.split(None, 2)
    return parts[1].decode("latin-1") if len(parts) > 1 else "cut"


def answer_of(response: httpx.Response | None) -> str:
    """Return the status of a response and the code of its problem; ``cut`` without a response."""
    if response is None:
        return "cut"
    with suppress(json.JSONDecodeError, AttributeError, UnicodeDecodeError):
        if response.status_code >= 400:
            return f"{response.status_code} {response.json().get('code', '')}".strip()
    return str(response.status_code)


def send(connection: socket.socket, data: bytes) -> bool:
    """Send data; return whether the server still took it."""
    try:
        connection.sendall(data)
    except OSError:
        return False
    return True
