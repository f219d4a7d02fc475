"""Bounds of a connection that uvicorn has not: of a request's head, of waiting for it, and of all connections."""

import asyncio
import re
import resource
from collections import Counter
from typing import Any, ClassVar, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve import senders

MOST_HEAD_BYTES = 2**16  # of a request line and its headers
MOST_HEADERS = 100
MOST_PIPELINED = 20  # requests that wait on one connection for those before them
HEAD_TIMEOUT_S = 10.0  # in which a request's head must have arrived
WRITE_TIMEOUT_S = 30.0  # after which a client that takes nothing of its answer is given up
_LINGER_S = 2.0
_IDLE_S = 1.0  # how long an idle connection is kept when the server is stopped
_FILES_IN_RESERVE = 100  # of those that a process may open: for databases, pipes and uploads
_HOST = re.compile(rb"[\w.~%!$&'()*+,;=:\[\]-]*", re.ASCII)
_REASONS = {
    400: "The request is not HTTP/1.1 as RFC 9112 has it: it needs one Host header, with a valid value.",
    414: "The address of the request is too long.",
    417: "The only expectation that can be met is 100-continue. Send the request without its Expect header.",
    431: "The request has too many or too long headers.",
    503: "The server has too many connections. Try again soon.",
}
_STATUS = {
    400: "Bad Request",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class _HeadError(Exception):
    """Ends the parsing of a head that is refused."""


class BoundedConnection(HttpToolsProtocol):
    """A connection of uvicorn's, by httptools, with bounds.

    Without them a stranger's header without end is held in memory and copied with each piece of it, and connections
    that send nothing keep everybody else out. One address may hold half of the connections. An upgrade to another
    protocol, which some clients offer with their first request, is ignored (RFC 9110, 7.8).
    """

    _waiting: ClassVar[dict["BoundedConnection", None]] = {}  # those that wait for a whole head, the longest first
    _count_of: ClassVar[Counter[str]] = Counter()  # connections by address

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*arguments, **options)
        self._sender = senders.Sender()
        self._head_open = True
        self._head_bytes = 0
        self._upgrading = False
        self._header_bytes = 0  # of the headers and the address that were parsed
        self._refused: int | None = None  # the status
        self._ending = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head; beyond the most connections, give up the one that waits longest."""
        super().connection_made(transport)
        self._count_of[self._address] += 1
        self._await_head()
        most = most_connections()
        if self._count_of[self._address] > most // 2:
            waiting = [each for each in self._waiting if each._address == self._address]
        elif len(self.connections) > most:
            waiting = list(self._waiting)
        else:
            return
        waiting.remove(self)
        if not waiting:
            self._refuse(503)
        else:  # one that has never sent a request rather than one between two of them
            next((each for each in waiting if each.cycle is None), waiting[0]).give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._head_is_there()
        self._sender.leave()
        self._count_of[self._address] -= 1
        if not self._count_of[self._address]:
            del self._count_of[self._address]
        self._stop_write_timer()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Answer what has come and close; a request that is on its way to an idle connection has a moment to arrive."""
        self._ending = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(_IDLE_S, self._close_idle)
        else:
            super().shutdown()

    def _close_idle(self) -> None:
        begun = self._head_open and (self._head_bytes > 0 or self.cycle is not None)
        if not begun and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()

    def give_up(self) -> None:
        """Close the connection at once."""
        self._head_is_there()
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, but no more of a head than it may have."""
        if self._head_open and self._head_bytes + len(data) > MOST_HEAD_BYTES:
            allowed = MOST_HEAD_BYTES - self._head_bytes
            self._feed(data[:allowed])
            if self._head_open and self._refused is None and not self.transport.is_closing():
                # nearly all of it is the address, which the parser gives as it comes, or a header that does not end
                self._refuse(414 if self._header_bytes > MOST_HEAD_BYTES // 2 and not self.headers else 431)
            data = data[allowed:]
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        if self._refused is None:
            self._head_bytes += len(data) if self._head_open else 0
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:  # its argument is where what follows begins
            self._parse_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def _parse_without_upgrade(self, rest: bytes) -> None:
        """Parse a request again without its wish for an upgrade: the parser takes its body for another protocol."""
        line = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        headers = [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._upgrading = False
        self._parse(b"\r\n".join([line, *headers, b"", rest]))

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        cast(dict[str, Any], self.scope)[senders.KEY] = self._sender
        self._header_bytes = 0
        if not self._head_open:  # a further request on the same connection
            self._head_open, self._head_bytes = True, 0
            self._await_head()

    def on_url(self, url: bytes) -> None:
        """Add to the address, within its bound."""
        self._header_bytes += len(url)
        if self._header_bytes > MOST_HEAD_BYTES:
            self._stop_parsing(414)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header, within the bounds of all."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MOST_HEAD_BYTES or len(self.headers) == MOST_HEADERS:
            self._stop_parsing(431)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the answer, unless the request is not valid or too many wait for their answers."""
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._upgrading = True
            return
        self._head_open = False
        self._head_is_there()
        self._check_headers()
        if len(self.pipeline) >= MOST_PIPELINED:
            self._stop_parsing(503)
        super().on_headers_complete()
        if self._ending:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """End a request, unless it will be parsed again."""
        if not self._upgrading:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._waiting[self] = None

    def _check_headers(self) -> None:
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1 if _HOST.fullmatch(value) else 2
            elif name == b"expect" and value.lower() != b"100-continue":
                self._stop_parsing(417)
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            self._stop_parsing(400)

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _stop_parsing(self, status: int) -> None:
        self._refused = status
        raise _HeadError  # httptools ends the parsing, and uvicorn calls send_400_response

    def send_400_response(self, msg: str) -> None:
        """Answer what could not be parsed, with the status that fits it."""
        if self._refused is None:
            super().send_400_response(msg)
        else:
            self._refuse(self._refused)

    def _refuse(self, status: int) -> None:
        """Answer with a status, and close the connection.

        What the client still sends is dropped for a moment: one that is cut off while it sends never reads the answer.
        """
        self._refused = status
        self._head_is_there()
        body = _REASONS[status].encode()
        head = f"HTTP/1.1 {status} {_STATUS[status]}\r\ncontent-type: text/plain; charset=utf-8\r\n"
        head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.abort)

    def pause_writing(self) -> None:
        """Begin to watch whether the client takes its answer."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """End that."""
        self._stop_write_timer()
        super().resume_writing()

    def _watch_writing(self) -> None:
        left = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() >= left:
                self.give_up()
            else:
                self._watch_writing()

        self._write_timer = self.loop.call_later(WRITE_TIMEOUT_S, look)

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _await_head(self) -> None:
        self._waiting[self] = None
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.give_up)

    def _head_is_there(self) -> None:
        self._waiting.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def most_connections() -> int:
    """Return how many connections a process may have: as many files as it may open, without a reserve."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(soft - _FILES_IN_RESERVE, soft // 2) if soft > 0 else 2**20
