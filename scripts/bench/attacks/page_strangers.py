"""Measure what strangers make the page hold in memory: python scripts/bench/attacks/page_strangers.py [--require].

Nobody has signed in, and behind the page is no server. For each way to send without an end, 20 connections send 15 MB
each and stay open. --require exits with 1 when the memory of the page grows by more than 40 MiB.
"""

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from rich.console import Console

from scripts.bench.common import bench_parser, bench_table, machine, page_server, verdict

CONNECTIONS, MEGABYTES, MOST_MIB = 20, 15, 40.0
PIECE = bytes(10**6)
SETTLE_S = 2.0
_BINARY, _CONTINUED, _PING = 2, 0, 9  # opcodes of RFC 6455
_MASK = bytes(4)  # changes nothing


def main() -> int:
    options = bench_parser(__doc__, require="exit with 1 when the page holds more than promised").parse_args()
    attacks = {
        "a message whose last fragment never comes": fragments,
        "a frame whose last byte never comes": frame,
        "pings whose answers are not read": pings,
        "a head that does not end": head,
    }
    grown = {name: measure(attack) for name, attack in attacks.items()}
    title = f"{CONNECTIONS} connections of {MEGABYTES} MB, {machine()}"
    table = bench_table(title, ("what strangers send", "page before MiB", "more MiB", "verdict"))
    for name, (before, more) in grown.items():
        table.add_row(name, f"{before:.0f}", f"{more:+.0f}", verdict(more <= MOST_MIB))
    Console(width=110).print(table)
    return int(options.require and any(more > MOST_MIB for _, more in grown.values()))


def measure(attack: Callable[[str], Iterator[bytes]]) -> tuple[float, float]:
    """Return the memory of a page, and how much it grows (MiB)."""
    with (
        TemporaryDirectory() as folder,
        page_server(Path(folder), "http://127.0.0.1:9") as address,
        ExitStack() as opened,
    ):
        place = address.removeprefix("http://")
        host, port = place.split(":")
        for warm in (True, False):
            before = memory()
            connections = [
                opened.enter_context(socket.create_connection((host, int(port)), 5))
                for _ in range(1 if warm else CONNECTIONS)
            ]
            for connection in connections:
                with suppress(OSError):  # it was closed, or takes no more
                    send(connection, attack(place))
            time.sleep(SETTLE_S)
        return before, memory() - before


def send(connection: socket.socket, pieces: Iterator[bytes]) -> None:
    first = next(pieces)
    connection.sendall(first)
    if b"Upgrade" in first:
        connection.recv(2**16)  # before the answer, what is sent is not for the WebSocket
    for piece in pieces:
        connection.sendall(piece)


def fragments(place: str) -> Iterator[bytes]:
    yield handshake(place)
    for number in range(MEGABYTES):
        yield frame_head(_CONTINUED if number else _BINARY, len(PIECE), last=False) + PIECE


def frame(place: str) -> Iterator[bytes]:
    yield handshake(place)
    yield frame_head(_BINARY, MEGABYTES * len(PIECE) + 1, last=True)
    for _ in range(MEGABYTES):
        yield PIECE


def pings(place: str) -> Iterator[bytes]:
    yield handshake(place)
    ping = frame_head(_PING, 125, last=True) + bytes(125)
    for _ in range(MEGABYTES):
        yield ping * (len(PIECE) // len(ping))


def head(place: str) -> Iterator[bytes]:
    yield f"GET / HTTP/1.1\r\nHost: {place}\r\nX-Long: ".encode()
    for _ in range(MEGABYTES):
        yield b"x" * len(PIECE)


def handshake(place: str) -> bytes:
    """Return the request that opens the page's WebSocket."""
    lines = [
        "GET /_stcore/stream HTTP/1.1",
        f"Host: {place}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: c3RyYW5nZXJzIGtleSBoZQ==",
        "Sec-WebSocket-Protocol: streamlit",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def frame_head(opcode: int, size: int, *, last: bool) -> bytes:
    """Return what is before the payload of a client's frame (RFC 6455, 5.2)."""
    first = bytes([0x80 * last | opcode])
    length = bytes([0x80 | size]) if size < 126 else b"\xff" + size.to_bytes(8)
    return first + length + _MASK


def memory() -> float:
    """Return the MiB that the processes which this one has started hold."""
    return float(sum(process.memory_info().rss for process in psutil.Process().children(recursive=True))) / 2**20


if __name__ == "__main__":
    sys.exit(main())
