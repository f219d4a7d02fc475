"""The address where a server listens, checked before anything is loaded."""

import errno
import os
import socket
import time

from lesion.core.errors import ConfigError

_PATIENCE_S, _POLL_S = 5.0, 0.1  # the port of a server that was killed becomes free within moments
_HOSTS = ("127.0.0.1", "0.0.0.0", "::")  # noqa: S104


def usable_address(host: str, port: object) -> tuple[str, int]:
    """Return the address to bind to: ``127.0.0.1`` (or ``localhost``), ``0.0.0.0`` or ``::``, at port 1024 to 65535.

    Raises:
        ConfigError: The address is not one of these, or something listens there already (``port_taken``).
    """
    host = "127.0.0.1" if host == "localhost" else host
    if host not in _HOSTS or not isinstance(port, int) or not 1024 <= port <= 65535:
        raise ConfigError(f"host={host} port={port}: use 127.0.0.1, 0.0.0.0 or ::, and a port from 1024 to 65535.")
    deadline = time.monotonic() + _PATIENCE_S
    while (number := _refusal(host, port)) == errno.EADDRINUSE and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    if number == errno.EADDRINUSE:
        raise ConfigError(
            f"port {port} is taken by another program, perhaps another Lesion server. Stop that, or choose "
            f"another: port={port + 1 if port < 65535 else port - 1}.",
            code="port_taken",
        )
    if number:
        raise ConfigError(f"The server cannot listen on host={host} port={port}: {os.strerror(number)}.")
    return host, port


def _refusal(host: str, port: int) -> int:
    """Return the number of the error that listening there gives now; 0 without an error."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            # As the server does: closed connections do not keep the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0
