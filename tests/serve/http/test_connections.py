"""Bounds of connections, over real ones to a server in this process that answers with the length of the body."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn

from serve import senders
from serve.http import connections
from serve.http.connections import BoundedConnection
from serve.senders import Sender

Act = Callable[[int], Awaitable[None]]


async def answer_length(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the length of the body, or for /large with much more than a connection holds."""
    length, more = 0, True
    while more:
        message = await receive()
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    body = bytes(2**25) if scope["path"] == "/large" else str(length).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for start in range(0, len(body), 2**16):
        await send({"type": "http.response.body", "body": body[start : start + 2**16], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def serving(app: Any = answer_length) -> AsyncIterator[int]:
    config = uvicorn.Config(app, port=0, http=BoundedConnection, lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


def run(act: Act, app: Any = answer_length) -> None:
    async def acting() -> None:
        async with asyncio.timeout(20), serving(app) as port:
            await act(port)

    asyncio.run(acting())


async def connect(port: int, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))


async def exchange(port: int, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send pieces on one connection, and return all that comes back until it is closed."""
    reader, writer = await connect(port)
    received = asyncio.create_task(reader.read())
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        return await received
    writer.close()
    return b""


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
CLOSE = b"Connection: close\r\n"


@pytest.mark.parametrize("pause", [0.0, 0.02])
def test_requests_within_the_bounds_are_answered(pause: float) -> None:
    async def act(port: int) -> None:
        headers = b"".join(b"x-%d: %s\r\n" % (number, b"v" * 500) for number in range(90))
        body = b"b" * 300_000
        whole = HEAD + headers + CLOSE + b"content-length: %d\r\n\r\n" % len(body) + body
        pieces = [whole[start : start + 30_000] for start in range(0, len(whole), 30_000)] if pause else [whole]
        assert (await exchange(port, *pieces, pause=pause)).endswith(b"300000")

    run(act)


def test_many_requests_on_one_connection_are_answered() -> None:
    async def act(port: int) -> None:
        one = HEAD + b"content-length: 70000\r\n\r\n" + b"b" * 70_000
        answers = await exchange(port, *([one] * 5), HEAD + CLOSE + b"content-length: 0\r\n\r\n", pause=0.05)
        assert answers.count(b"70000") == 5
        assert answers.count(b"200 OK") == 6

    run(act)


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([HEAD + b"x: " + b"v" * 100_000], b"431"),
        ([HEAD + b"x: ", *([b"v" * 10_000] * 8)], b"431"),
        ([HEAD + b"a: b\r\n" * 101 + b"\r\n"], b"431"),
        ([HEAD + b"".join(b"x-%d:\r\n" % number for number in range(20_000)) + b"\r\n"], b"431"),
        ([b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"], b"414"),
        ([b"GET /", *([b"a" * 10_000] * 8)], b"414"),
        ([b"no request at all\r\n\r\n"], b"400"),
        ([b"GET / HTTP/1.1\r\n\r\n"], b"400"),
        ([HEAD + b"Host: y\r\n\r\n"], b"400"),
        ([b"GET / HTTP/1.1\r\nHost: x y\r\n\r\n"], b"400"),
        ([b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n"], b"400"),
        ([b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n"], b"400"),
        ([HEAD + b"Expect: 200-ok\r\ncontent-length: 2\r\n\r\nab"], b"417"),
    ],
)
def test_a_head_beyond_its_bounds_is_refused(pieces: list[bytes], status: bytes) -> None:
    async def act(port: int) -> None:
        answer = await exchange(port, *pieces, pause=0.01)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"connection: close" in answer

    run(act)


def test_a_further_head_on_a_connection_has_the_same_bounds() -> None:
    async def act(port: int) -> None:
        good = HEAD + b"content-length: 3\r\n\r\nabc"
        endless = [HEAD + b"x: ", *([b"v" * 50_000] * 3)]  # its beginning came with what was before it
        answers = await exchange(port, good, good, *endless, pause=0.05)
        assert answers.count(b"200 OK") == 2
        assert b"431 Request Header" in answers

    run(act)


def test_a_connection_without_a_whole_head_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.3)

    async def act(port: int) -> None:
        loop = asyncio.get_running_loop()
        for start in (b"", b"GET / HT"):
            began = loop.time()
            assert await exchange(port, start) == b""
            assert 0.2 < loop.time() - began < 5
        slow = HEAD + b"content-length: 4\r\n" + CLOSE + b"\r\n"
        assert (await exchange(port, slow, b"ab", b"cd", pause=0.4)).endswith(b"4")  # a body has its own time

    run(act)


def ended(reader: asyncio.StreamReader) -> bool:
    return reader.at_eof() or reader.exception() is not None


def test_beyond_the_most_connections_the_one_that_waits_longest_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 10)

    async def act(port: int) -> None:
        idle = [await connect(port, f"127.0.0.{2 + number % 5}") for number in range(15)]
        await asyncio.sleep(0.2)
        assert (await exchange(port, HEAD + CLOSE + b"content-length: 2\r\n\r\nab")).endswith(b"2")
        assert [ended(reader) for reader, _ in idle] == [True] * 6 + [False] * 9
        for _, writer in idle:
            writer.close()

    run(act)


@pytest.mark.parametrize("request_first", [False, True])
def test_one_address_takes_nothing_from_the_others(monkeypatch: pytest.MonkeyPatch, request_first: bool) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 10)

    async def act(port: int) -> None:
        others = [await connect(port, f"127.0.0.{3 + number}") for number in range(5)]
        greedy = []
        for _ in range(20):
            greedy.append(await connect(port, "127.0.0.2"))
            if request_first:  # then it waits for the next one
                greedy[-1][1].write(HEAD + b"content-length: 1\r\n\r\na")
                await greedy[-1][0].readuntil(b"\r\n\r\n1")
        await asyncio.sleep(0.2)
        assert [ended(reader) for reader, _ in greedy] == [True] * 15 + [False] * 5
        assert not any(ended(reader) for reader, _ in others)
        reader, writer = others[0]
        writer.write(HEAD + CLOSE + b"content-length: 2\r\n\r\nab")
        assert (await reader.read()).endswith(b"2")
        for _, writer in greedy + others:
            writer.close()

    run(act)


UPGRADE = HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_the_wish_for_another_protocol_is_ignored(protocol: bytes) -> None:
    async def act(port: int) -> None:
        sized = UPGRADE % protocol + b"content-length: 70000\r\n\r\n" + b"b" * 70_000
        chunked = UPGRADE % protocol + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        last = HEAD + CLOSE + b"content-length: 3\r\n\r\nabc"
        answers = await exchange(port, sized[:200], sized[200:] + chunked + chunked, last, pause=0.05)
        assert [answer[-5:].lstrip() for answer in answers.split(b"HTTP/1.1 200 OK")[1:]] == [
            b"70000",
            b"5",
            b"5",
            b"3",
        ]

    run(act)


@pytest.mark.parametrize(
    ("more", "status"), [(b"", b"200"), (b"x: " + b"v" * 65_500 + b"\r\n", b"431"), (b"Host: y\r\n", b"400")]
)
def test_a_head_with_an_upgrade_has_the_same_bounds(more: bytes, status: bytes) -> None:
    async def act(port: int) -> None:
        answer = await exchange(port, UPGRADE % b"h2c" + more + CLOSE + b"content-length: 2\r\n\r\nab")
        assert answer.startswith(b"HTTP/1.1 " + status)

    run(act)


def test_a_client_that_takes_nothing_of_its_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WRITE_TIMEOUT_S", 0.3)

    async def act(port: int) -> None:
        request = b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        writer.write(request)
        await asyncio.sleep(1.5)
        with contextlib.suppress(ConnectionError):
            assert len(await reader.read()) < 2**25
        writer.close()
        assert len(await exchange(port, request)) > 2**25  # one who reads gets all

    run(act)


def test_the_sender_of_all_requests_of_a_connection_leaves_with_it() -> None:
    seen: dict[int, set[Sender]] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.setdefault(scope["client"][1], set()).add(scope[senders.KEY])
        await asyncio.sleep(0.05)
        await answer_length(scope, receive, send)

    async def act(port: int) -> None:
        request = HEAD + b"content-length: 0\r\n\r\n"
        reader, writer = await connect(port)
        other_reader, other_writer = await connect(port)
        writer.write(2 * request)  # one waits for the other
        other_writer.write(request)
        await reader.readuntil(b"0")
        await other_reader.readuntil(b"0")
        writer.close()
        [left], [stayed] = (seen[each.get_extra_info("sockname")[1]] for each in (writer, other_writer))
        while not left.gone:
            await asyncio.sleep(0.01)
        assert not stayed.gone
        other_writer.close()

    run(act, app)
