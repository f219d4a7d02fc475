"""Starts a server from plain settings and turns refusals into sentences and exit statuses."""

import logging
import sys
from typing import Any

from lesion.cli import latest_bundle
from lesion.errors import LesionError
from serve.server import create_server

logger = logging.getLogger(__name__)


def serve(bundle: str | None, host: str, port: int, log_level: str, access_log: bool, server: dict[str, Any]) -> int:
    """Serve until stopped.

    Args:
        bundle: The bundle's folder; the newest below ``outputs/`` when None.
        host: Where to listen.
        port: Where to listen.
        log_level: As uvicorn names it.
        access_log: Whether to log each request.
        server: Arguments of :func:`serve.server.create_server`.

    Returns:
        The exit status: 0 after SIGTERM or SIGINT, 1 when the server failed, 2 when it was refused to start.
    """
    try:
        made = create_server(bundle or latest_bundle(), **server)
        print(f"Serving {made.bundle.name} {made.bundle.version} on http://{host}:{port}", flush=True)
        made.run(host, port, log_level, access_log=access_log)
    except LesionError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)
        return 2
    return 1 if made.failed else 0
