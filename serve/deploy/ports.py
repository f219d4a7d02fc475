"""Free ports of this machine, and what answers on the others."""

import socket
from contextlib import ExitStack

import httpx

from lesion.client import Client
from lesion.core.errors import LesionError


def free_port() -> int:
    """Return a port of this machine that no program listens on now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return different ports of this machine that no program listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in sockets]


def is_listening(port: int | None) -> bool:
    """Return whether a program listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def served_version(port: int | None) -> str | None:
    """Return the model version that a replica predicts with, or None if the replica is not ready."""
    try:
        with Client(f"http://127.0.0.1:{port}", timeout=5) as client:
            health = client.health()
    except LesionError:
        return None
    return str(health["model_version"]) if health["ready"] else None


def page_answers(address: str) -> bool:
    """Return whether the web page is at an address: its HTML, and the program that fills it."""
    try:
        page = httpx.get(address, timeout=5)
        return b"<html" in page.content and httpx.get(f"{address}/_stcore/health", timeout=5).text == "ok"
    except httpx.HTTPError:
        return False
