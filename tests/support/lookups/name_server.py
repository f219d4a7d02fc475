"""Runs a command without a network, where a name server of its own records each name that is looked up.

    unshare --net --mount --map-root-user python -m tests.support.lookups.name_server RECORD COMMAND ...

The record has one name a line. Also what asks without Python is recorded, such as libraries in C and programs in Go.
"""

import fcntl
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ISOLATED = ("unshare", "--net", "--mount", "--map-root-user")

_SIOCSIFFLAGS = 0x8914
_IFF_UP_AND_RUNNING = 0x1 | 0x40
_UNKNOWN_NAME = 0x8183  # the flags of an answer that the name does not exist


def can_isolate() -> bool:
    """Return whether this machine gives a process namespaces of its own."""
    if shutil.which(ISOLATED[0]) is None:
        return False
    return subprocess.run([*ISOLATED, "true"], capture_output=True, check=False).returncode == 0


def recording(record: Path, *command: str) -> list[str]:
    """Return the command that runs another one in namespaces of its own."""
    return [*ISOLATED, sys.executable, "-m", "tests.support.lookups.name_server", str(record), *command]


def looked_up_names(record: Path) -> set[str]:
    """Return the names that were looked up."""
    return set(record.read_text().split())


def start_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP_AND_RUNNING))


def use_own_name_server() -> None:
    with tempfile.NamedTemporaryFile("w", prefix="resolv-", delete=False) as file:
        file.write("nameserver 127.0.0.1\n")
    Path(file.name).chmod(0o644)
    subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True)
    Path(file.name).unlink()


def answer_lookups(server: socket.socket, record: Path) -> None:
    """Record each name that is asked for, and say that it does not exist."""
    while True:
        question, sender = server.recvfrom(4096)
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode("latin-1"))
            at += 1 + question[at]
        with record.open("a") as file:
            file.write(".".join(labels) + "\n")
        asked = question[12 : at + 5]
        server.sendto(question[:2] + struct.pack(">HHHHH", _UNKNOWN_NAME, 1, 0, 0, 0) + asked, sender)


def main() -> int:
    record, command = Path(sys.argv[1]), sys.argv[2:]
    record.touch()
    start_loopback()
    use_own_name_server()
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    threading.Thread(target=answer_lookups, args=(server, record), daemon=True).start()
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
