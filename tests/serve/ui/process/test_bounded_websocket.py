"""How much of a message the page's connections hold, over real ones to an application that counts bytes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.config import HTTP_PROTOCOLS, WS_PROTOCOLS

from scripts.bench.attacks.page_strangers import frame_head, handshake
from serve.ui.bounded_websocket import MOST_BYTES_OF_STRANGERS, BoundedWebSocket
from serve.ui.held_files import HELD
from serve.ui.streamlit_process import bound_connections

BINARY, CONTINUED, CLOSED, PING = 2, 0, 8, 9
TOO_BIG = (1009).to_bytes(2)
Act = Callable[["Browser"], Awaitable[None]]


class Browser:
    """A connection, what the application has received on it, and its other end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, received: list[Any]) -> None:
        self.reader = reader
        self.writer = writer
        self.received = received
        self.held: BoundedWebSocket

    async def send(self, opcode: int, size: int, *, last: bool = True, content: int | None = None) -> None:
        """Send a frame that tells of ``size`` bytes, and so many or fewer of them."""
        self.writer.write(frame_head(opcode, size, last=last) + bytes(size if content is None else content))
        await self.writer.drain()

    async def is_refused(self) -> bool:
        """Whether the connection is closed because of a message that is too large."""
        first, size = await self.reader.readexactly(2)
        return first == 0x80 | CLOSED and (await self.reader.readexactly(size))[:2] == TOO_BIG

    async def wait_for(self, *received: Any) -> None:
        while self.received != list(received):
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def browsing(session: str) -> AsyncIterator[Browser]:
    received, connections = list[Any](), list[BoundedWebSocket]()

    async def count_bytes(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            received.append(len(message["bytes"]))
        received.append(message["code"])

    class Watched(BoundedWebSocket):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            connections.append(self)

    config = uvicorn.Config(count_bytes, port=0, ws=Watched, ws_max_size=2**24, lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
    writer.write(handshake("127.0.0.1").replace(b": streamlit", f": streamlit, x, {session}".encode()))
    await reader.readuntil(b"\r\n\r\n")
    browser = Browser(reader, writer, received)
    (browser.held,) = connections
    try:
        yield browser
    finally:
        writer.transport.abort()
        server.should_exit = True
        await task


def run(act: Act, session: str = "stranger") -> None:
    async def acting() -> None:
        async with asyncio.timeout(20), browsing(session) as browser:
            await act(browser)

    asyncio.run(acting())


@pytest.fixture
def user() -> Any:
    HELD.admit("user")
    yield "user"
    HELD.dismiss("user")


def test_strangers_send_short_messages_and_no_others() -> None:
    async def act(browser: Browser) -> None:
        taken = MOST_BYTES_OF_STRANGERS - 64
        await browser.send(BINARY, taken)
        await browser.send(BINARY, 1000, last=False)
        await browser.send(CONTINUED, 1000)
        await browser.wait_for(taken, 2000)
        await browser.send(BINARY, taken + 1)
        assert await browser.is_refused()
        await browser.wait_for(taken, 2000, 1009)

    run(act)


@pytest.mark.parametrize(("size", "count"), [(10_000, 7), (0, 1100)])
def test_fragments_without_a_last_one_end_a_strangers_connection(size: int, count: int) -> None:
    async def act(browser: Browser) -> None:
        for number in range(count):
            await browser.send(CONTINUED if number else BINARY, size, last=False)
        assert await browser.is_refused()
        await browser.send(CONTINUED, size)
        await browser.wait_for(1009)
        assert browser.held.frames == []

    run(act)


def test_a_frame_whose_end_does_not_come_ends_a_strangers_connection() -> None:
    async def act(browser: Browser) -> None:
        await browser.send(BINARY, 15_000_000, content=60_000)
        await asyncio.sleep(0.05)
        assert browser.received == []
        browser.writer.write(bytes(10_000))
        assert await browser.is_refused()
        browser.writer.write(bytes(1_000_000))  # is dropped
        await browser.writer.drain()
        await browser.wait_for(1009)
        assert len(browser.held.conn.reader.buffer) < 2 * MOST_BYTES_OF_STRANGERS

    run(act)


def test_users_send_what_streamlit_takes(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.ui.bounded_websocket._most_bytes_of_users", lambda: 2_000_000)

    async def act(browser: Browser) -> None:
        await browser.send(BINARY, 1_000_000, last=False)
        await browser.send(CONTINUED, 900_000)
        await browser.wait_for(1_900_000)
        await browser.send(BINARY, 1_000_000, last=False)
        await browser.send(CONTINUED, 1_000_000, last=False)
        assert await browser.is_refused()

    run(act, user)


def test_after_the_sign_out_long_messages_are_refused(user: str) -> None:
    async def act(browser: Browser) -> None:
        await browser.send(BINARY, 500_000, last=False)
        await browser.send(CONTINUED, 500_000)
        await browser.wait_for(1_000_000)
        HELD.dismiss(user)
        await browser.send(BINARY, 500_000, last=False)
        assert await browser.is_refused()

    run(act, user)


def test_answers_to_pings_that_nobody_reads_are_not_kept() -> None:
    async def act(browser: Browser) -> None:
        cast(asyncio.Transport, browser.writer.transport).pause_reading()
        ping = frame_head(PING, 125, last=True) + bytes(125)
        for _ in range(160):
            browser.writer.write(ping * 1000)
            await browser.writer.drain()
        assert 2**15 < browser.held.transport.get_write_buffer_size() < 2**19

    run(act)


def test_uvicorn_uses_these_connections_for_streamlit(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (HTTP_PROTOCOLS, WS_PROTOCOLS):
        for name, value in table.items():
            monkeypatch.setitem(table, name, value)  # put back after the test
    bound_connections()
    config = uvicorn.Config(lambda: None, ws="websockets-sansio")
    config.load()
    assert config.ws_protocol_class is BoundedWebSocket
    assert config.http_protocol_class.__name__ == "H11Protocol"
