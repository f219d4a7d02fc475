"""What listens on this machine's ports."""

import socket

from lesion.client import Client
from lesion.core.errors import LesionError


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int | None, path: str | None = None) -> bool:
    """Return whether something listens on a port of this machine and, if a path is given, calls itself ready there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1", port)):
            return False
    return path is None or served_version(port) is not None


def served_version(port: int | None) -> str | None:
    """Return the version that a replica predicts with; None if it is not ready."""
    try:
        with Client(f"http://127.0.0.1:{port}", timeout=5) as client:
            health = client.health()
    except LesionError:
        return None
    return str(health["model_version"]) if health["ready"] else None
