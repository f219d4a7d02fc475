"""A WebSocket of uvicorn's that holds little of what a browser sends: next to nothing before somebody signed in."""

import streamlit as st
from starlette.datastructures import Headers
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode

from serve.ui.held_files import HELD

MOST_BYTES_OF_STRANGERS = 2**16  # of one message of somebody who has not signed in; a key has some 50
_FRAGMENT_BYTES = 64  # what a fragment takes in memory besides its content, which may be empty


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """Ends a connection at a message that is too long, as soon as too much of it is there.

    uvicorn has one bound, for complete messages, and keeps all fragments of a message until the last one has come.
    Here somebody who has not signed in may send 64 KiB, and a user the most that Streamlit takes of a browser.
    """

    def data_received(self, data: bytes) -> None:
        """Take what has come, and end the connection if too much of a message is there that is not complete."""
        super().data_received(data)
        if self._is_too_much(len(self.conn.reader.buffer) + self._bytes_of_fragments()):
            self._end()

    def send_receive_event_to_app(self) -> None:
        """Pass a complete message on, or end the connection if it is too long."""
        if self._is_too_much(self._bytes_of_fragments()):
            self._end()
        else:
            super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer a ping, unless the browser does not read the answers."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # the answer is dropped

    def _bytes_of_fragments(self) -> int:
        return sum(len(fragment) + _FRAGMENT_BYTES for fragment in self.frames)

    def _is_too_much(self, size: int) -> bool:
        if self.close_sent or size <= MOST_BYTES_OF_STRANGERS:
            return False
        return size > _most_bytes_of_users() or not HELD.admits(*_names(Headers(raw=list(self.scope["headers"]))))

    def _end(self) -> None:
        """Close the connection, and drop what the browser still sends: cut off, it would not read the reason."""
        self.frames = []
        self.conn.fail(CloseCode.MESSAGE_TOO_BIG)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": CloseCode.MESSAGE_TOO_BIG})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()


def _names(headers: Headers) -> tuple[str | None, str]:
    """Return the connection and the session that a browser connects to again, by which it may be signed in."""
    session = [*headers.get("sec-websocket-protocol", "").split(","), "", "", ""][2].strip()  # as Streamlit has it
    return headers.get("sec-websocket-key"), session


def _most_bytes_of_users() -> int:
    return int(st.get_option("server.maxWidgetStateSize")) * 10**6
