"""A way to a server that can be cut, so that the server is unreachable, or slowed down."""

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

_BLOCK = 2**20
_PATIENCE_S = 120.0


class FaultProxy:
    """Passes on what comes to a port of this machine to a server: a port of this machine, or the path of a socket.

    Each piece of a request waits ``pause_s`` seconds, and while the proxy is halted none is passed on.
    """

    def __init__(self, target: int | Path) -> None:
        self._target = target
        self.pause_s = 0.0
        self._passing = threading.Event()
        self._passing.set()
        self._open: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._begin()

    def cut(self) -> None:
        """End all connections and refuse new ones."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listening.close()
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Accept connections again."""
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self._begin()

    def halt(self) -> None:
        """Keep all connections, and pass on no request."""
        self._passing.clear()

    def release(self) -> None:
        """Pass on what came meanwhile, and from now on everything at once."""
        self.pause_s = 0.0
        self._passing.set()

    def _begin(self) -> None:
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                here, _ = listening.accept()
                there = self._connect()
                self._open |= {here, there}
                for source, target, waits in ((here, there, True), (there, here, False)):
                    threading.Thread(target=self._copy, args=(source, target, waits), daemon=True).start()

    def _connect(self) -> socket.socket:
        if isinstance(self._target, int):
            return socket.create_connection(("127.0.0.1", self._target))
        there = socket.socket(socket.AF_UNIX)
        there.connect(str(self._target))
        return there

    def _copy(self, source: socket.socket, target: socket.socket, waits: bool) -> None:
        with suppress(OSError):
            while data := source.recv(_BLOCK):
                if waits:
                    time.sleep(self.pause_s)
                    self._passing.wait(_PATIENCE_S)
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.discard(source)
        source.close()
