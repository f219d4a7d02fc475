"""Attacks by requests: bodies before the key, JSON, abandoned images, locked tables, replaced files and names."""

import socket
import sqlite3
import struct
import time
from collections import Counter
from pathlib import Path

from scripts.bench.attacks.target import Attack, Target, answer_of, repeat, send, status_line
from serve.load.samples import encode, photo, scan

LINE_BYTES_S = 125e6  # a gigabit a second
_LEAVING_CLIENTS = 8
LOCKED_S = 6.0
HOSTILE_NAME = "scan\u202egpj.exe\u200b" + "a" * 100 + ";=1+1.png"


def send_bodies_without_key(target: Target, until: float) -> Counter[str]:
    """Without a key, send a large body in pieces to a route that takes bodies."""
    piece = b"10000\r\n" + bytes(0x10000) + b"\r\n"

    def act() -> str:
        with target.connect() as connection:
            send(connection, target.head("POST", "/upload_training_data", "Transfer-Encoding: chunked") + b"\r\n")
            for _ in range(200):  # 13 MB
                if not send(connection, piece):
                    break
            return status_line(connection)

    return repeat(act, until, 6)


def send_json(target: Target, until: float) -> Counter[str]:
    """With a key, send JSON that is large, deep, or has numbers of many digits."""
    bodies = [b"[" * 30_000, b'{"epochs": ' + b"9" * 60_000 + b"}", b'{"reason": "' + b"x" * 5_000_000 + b'"}']
    turn = iter(range(10**9))

    def act() -> str:
        body = bodies[next(turn) % len(bodies)]
        return answer_of(target.ask("POST", "/retrain", content=body, headers={"Content-Type": "application/json"}))

    return repeat(act, until, 3)


def leave_after_sending(target: Target, until: float) -> Counter[str]:
    """Send large images, as fast as a line takes them, and close the connection before their answer."""
    image = encode(photo(4000, 3000), "JPEG", quality=90)
    head = target.head("POST", "/predict", "Content-Type: image/jpeg", f"Content-Length: {len(image)}", key=True)

    def act() -> str:
        next_at = time.monotonic() + _LEAVING_CLIENTS * len(image) / LINE_BYTES_S
        with target.connect() as connection:
            # closed with a reset, as by a program that was ended
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            send(connection, head + b"\r\n" + image)
            time.sleep(0.05)
        time.sleep(max(0.0, next_at - time.monotonic()))
        return "left"

    return repeat(act, until, _LEAVING_CLIENTS)


def lock_database(target: Target, until: float) -> Counter[str]:
    """Hold the lock of SQLite's writer, while an upload wants it and lists are read."""
    database = sqlite3.connect(next(target.storage.rglob("lesion.db")), isolation_level=None, timeout=5)
    database.execute("BEGIN EXCLUSIVE")
    lists = Counter[str]()
    end = min(until, time.monotonic() + LOCKED_S)
    while time.monotonic() < end:
        lists[answer_of(target.ask("GET", "/models"))] += 1
        time.sleep(0.05)
    database.rollback()
    database.close()
    return lists


def replace_stored_file(target: Target, until: float) -> Counter[str]:
    """Write another picture over a stored image's file, and ask for the image."""
    uploaded = target.upload("mine.png", encode(scan(77), "PNG"))
    answer = uploaded.json() if uploaded is not None else {}
    [image] = answer["accepted"] + answer["quarantined"]
    sha256 = image["sha256"]
    other = encode(scan(78), "PNG")
    for file in Path(target.storage).rglob(sha256):
        file.chmod(0o644)
        file.write_bytes(other)

    def act() -> str:
        time.sleep(0.05)
        return answer_of(target.ask("GET", f"/images/{sha256}/thumbnail"))

    return repeat(act, until, 1)


def send_names(target: Target, until: float) -> Counter[str]:
    """Upload files whose names turn text, hide letters or are formulas, and read how they are answered."""
    seeds = iter(range(1000, 10**9))

    def act() -> str:
        answer = target.upload(HOSTILE_NAME, encode(scan(next(seeds), 128), "PNG"))
        unclean = answer is not None and any(letter in answer.text for letter in "\u202e\u200b")
        return "unclean" if unclean else answer_of(answer)

    return repeat(act, until, 2)


ATTACKS = (
    Attack("strangers_bodies", "bodies of 13 MB in pieces, without a key", send_bodies_without_key, ("401",)),
    Attack(
        "json",
        "JSON that is deep, of 5 MB, or with a number of 60,000 digits",
        send_json,
        ("422 parameter_invalid", "413 body_too_large", "400 body_malformed"),
    ),
    Attack(
        "abandoned",
        "images of 12 megapixels, a gigabit a second, whose senders leave",
        leave_after_sending,
        ("left",),
    ),
    Attack("locked_database", f"SQLite locked for {LOCKED_S:g} s", lock_database, ("200",)),
    Attack("replaced_file", "another picture in place of a stored one", replace_stored_file, ("500 file_damaged",)),
    Attack("names", "file names that turn or hide text", send_names, ("200",)),
)
