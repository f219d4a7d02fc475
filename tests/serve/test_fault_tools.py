"""What the fault matrix makes its faults with: a proxy that cuts and halts, and a folder whose files open slowly."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from scripts.bench.faults.fault_proxy import FaultProxy
from scripts.bench.faults.slow_folder import SlowFolder
from tests.support.small_disk import SmallDisk

PAUSE_S = 0.5


@contextmanager
def echo() -> Iterator[int]:
    """A server that sends back what it gets; gives its port."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(100):
                connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def ask(connection: socket.socket) -> tuple[bytes, float]:
    """Send a word; return the answer and the seconds that it took."""
    begin = time.monotonic()
    connection.sendall(b"word")
    return connection.recv(100), time.monotonic() - begin


def test_a_proxy_passes_on_cuts_and_mends() -> None:
    with echo() as port:
        proxy = FaultProxy(port)
        with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
            assert ask(connection)[0] == b"word"
            proxy.cut()
            with suppress(OSError):
                assert ask(connection)[0] == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", proxy.port))
        proxy.mend()
        with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
            assert ask(connection)[0] == b"word"
        proxy.cut()


def test_a_slow_or_halted_proxy_passes_on_late_and_loses_nothing() -> None:
    with echo() as port:
        proxy = FaultProxy(port)
        with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
            proxy.pause_s = PAUSE_S
            answer, seconds = ask(connection)
            assert (answer, seconds >= PAUSE_S) == (b"word", True)
            proxy.pause_s = 0.0
            proxy.halt()
            connection.sendall(b"late")
            connection.settimeout(PAUSE_S)
            with pytest.raises(TimeoutError):
                connection.recv(100)
            connection.settimeout(60)
            proxy.release()
            assert connection.recv(100) == b"late"
        proxy.cut()


def seconds_to_read(file: Path) -> float:
    """The seconds that another process takes to open and read a file, as far as it measures them itself."""
    script = "import sys, time; t = time.monotonic(); open(sys.argv[1]).read(); print(time.monotonic() - t)"
    command = ["python3", "-S", "-c", script, str(file)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
def test_files_of_a_slow_folder_open_late_and_those_of_a_halted_one_when_it_ends(disk: SmallDisk) -> None:
    folder = disk.folder / "files"
    folder.mkdir()
    (folder / "a").write_text("1")
    try:
        slow = SlowFolder(folder, PAUSE_S)
    except OSError as error:
        pytest.skip(str(error))
    try:
        assert seconds_to_read(folder / "a") >= PAUSE_S
        slow.halt()
        reading = threading.Thread(target=seconds_to_read, args=(folder / "a",))
        reading.start()
        reading.join(4 * PAUSE_S)
        assert reading.is_alive()
    finally:
        slow.close()
    reading.join(60)
    assert not reading.is_alive()
    assert (folder / "a").read_text() == "1"
    assert not os.path.ismount(folder)
