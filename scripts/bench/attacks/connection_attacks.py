"""Attacks by connections: heads, waiting, addresses, pipelines, bodies and answers that stand still."""

import socket
import time
from collections import Counter
from contextlib import ExitStack, suppress

from scripts.bench.attacks.target import Attack, Target, repeat, send, status_line

ADDRESSES = 40  # of those that every Linux machine has: 127.0.0.2 and so on
IDLE = 1200  # more than a process may usually have open


def send_heads_slowly(target: Target, until: float) -> Counter[str]:
    """Send heads a byte at a time on many connections, from many addresses."""
    connections = [target.connect(f"127.0.0.{2 + number % ADDRESSES}") for number in range(200)]
    head = target.head("GET", "/health") + b"x: " + b"v" * 1000
    ended = Counter[str]()
    for byte in head:
        if time.monotonic() > until or not connections:
            break
        alive = [connection for connection in connections if send(connection, bytes([byte]))]
        ended["cut"] += len(connections) - len(alive)
        connections = alive
        time.sleep(0.3)
    for connection in connections:
        connection.close()
    return ended


def hold_idle_connections(target: Target, until: float) -> Counter[str]:
    """Open as many connections as the server lets, from many addresses, and send nothing."""
    held, ended = [], Counter[str]()
    for number in range(IDLE):
        with suppress(OSError):
            held.append(target.connect(f"127.0.0.{2 + number % ADDRESSES}"))
    while time.monotonic() < until:
        time.sleep(0.5)
        if status := _health(target):
            ended[status] += 1
    for connection in held:
        connection.close()
    return ended


def _health(target: Target) -> str:
    """Return what a new client is answered at /health/live, which must be within a second."""
    began = time.monotonic()
    with suppress(OSError), target.connect() as connection:
        send(connection, target.head("GET", "/health/live", "Connection: close") + b"\r\n")
        status = status_line(connection)
        return status if time.monotonic() - began < 1.0 else "late"
    return "cut"


def pipeline_requests(target: Target, until: float) -> Counter[str]:
    """Send a thousand requests at once on a connection, and read nothing before."""
    many = (target.head("GET", "/models") + b"\r\n") * 1000

    def act() -> str:
        with target.connect() as connection:
            send(connection, many)
            return status_line(connection)

    return repeat(act, until, 4)


def send_cookies(target: Target, until: float) -> Counter[str]:
    """Send heads full of cookies, up to the bound and beyond."""
    jars = [f"Cookie: {'c' * size}" for size in (60_000, 70_000, 3_000_000)]

    def act() -> str:
        answers = []
        for jar in jars:
            with target.connect() as connection:
                send(connection, target.head("POST", "/predict", jar) + b"content-length: 0\r\n\r\n")
                answers.append(status_line(connection))
        return " ".join(answers)

    return repeat(act, until, 4)


def send_bodies_slowly(target: Target, until: float) -> Counter[str]:
    """With a key, send many bodies that never come to their end."""
    connections = []
    for _ in range(150):
        connection = target.connect()
        head = target.head("POST", "/predict", "Content-Type: image/png", "Content-Length: 9000000", key=True)
        send(connection, head + b"\r\n" + b"\x89PNG\r\n\x1a\n" + bytes(100_000))
        connections.append(connection)
    while time.monotonic() < until:
        time.sleep(1.0)
        connections = [connection for connection in connections if send(connection, bytes(100))]
    for connection in connections:
        connection.close()
    return Counter()


def read_nothing(target: Target, until: float) -> Counter[str]:
    """Ask for answers of some size on many connections, and take none of them."""
    connections = []
    for _ in range(100):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", target.port))
        send(connection, (target.head("GET", "/openapi.json") + b"\r\n") * 15)
        connections.append(connection)
    time.sleep(max(0.0, until - time.monotonic()))
    for connection in connections:
        connection.close()
    return Counter()


def offer_other_protocols(target: Target, until: float) -> Counter[str]:
    """Offer HTTP/2 and WebSocket, expect what cannot be met, and name no host or two."""
    offers = [
        ("h2c", ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAA")),
        ("websocket", ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")),
        ("expect", ("Expect: a-miracle",)),
        ("hosts", ("Host: other",)),
    ]
    turn = iter(range(10**9))

    def act() -> str:
        name, headers = offers[next(turn) % len(offers)]
        with target.connect() as connection:
            fields = ("Connection: close", "Content-Type: image/png", "Content-Length: 5")
            send(connection, target.head("POST", "/predict", *headers, *fields, key=True) + b"\r\nhello")
            return f"{name} {status_line(connection)}"

    return repeat(act, until, 3)


def open_and_leave(target: Target, until: float) -> Counter[str]:
    """Open connections and close them at once, some in the middle of a head."""

    def act() -> str:
        with ExitStack() as stack, suppress(OSError):
            for number in range(20):
                connection = stack.enter_context(target.connect())
                if number % 2:
                    send(connection, b"POST /predict HTTP/1.1\r\nHost")
        return "left"

    return repeat(act, until, 2)


ATTACKS = (
    Attack("slow_heads", "200 heads, a byte every 0.3 s, from 40 addresses", send_heads_slowly, ("cut",)),
    Attack("idle", f"{IDLE} connections that send nothing, from 40 addresses", hold_idle_connections, ("200",)),
    Attack("pipelines", "1,000 requests at once on a connection, without a key", pipeline_requests, ("401", "503")),
    Attack("cookies", "cookies of 60 kB, 70 kB and 3 MB, without a key", send_cookies, ("401 431 431",)),
    Attack("slow_bodies", "150 bodies with a key that never end", send_bodies_slowly, ()),
    Attack("unread", "100 connections that ask for 15 answers each and read none", read_nothing, ()),
    Attack(
        "protocols",
        "HTTP/2, WebSocket, unknown expectations, two Host headers",
        offer_other_protocols,
        ("h2c 415", "websocket 415", "expect 417", "hosts 400"),
    ),
    Attack("leaving", "connections that are closed at once or in a head", open_and_leave, ("left",)),
)
