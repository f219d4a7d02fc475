"""ASGI middleware: request ids, counts, a response to every error, and limits on bodies, enforced as they arrive."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lesion.core import logs
from lesion.core.errors import LesionError, TooLargeError, UnsupportedTypeError
from lesion.database.failures import is_full
from serve import senders
from serve.http.dependencies import AppState
from serve.http.problems import no_space, problem, problem_of
from serve.observability import tracing
from serve.request_errors import BodyTimeoutError, BusyError

logger = logging.getLogger(__name__)
ACCESS_LOG = logging.getLogger("serve.access_log")

_VALID_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINGER_S = 5.0  # how long a refused body is still received and discarded, so that the client reads the response
_FORMS = (b"multipart/form-data", b"application/x-www-form-urlencoded")
_CHARSETS = ("", "utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1")
_MOST_JSON_BYTES = 2**16  # settings and reasons; parsing takes hundreds of times as much memory
_ROOM_S = 0.05  # how often a body that waits for memory checks again
# Bodies that are small, or begin, may hold a quarter more than all others: they do not wait for large ones.
_RESERVE = 4
_SMALL_BYTES = 2**20


class RequestContext:
    """Gives each request an id, or accepts a valid one from ``X-Request-ID``, and answers errors that nothing else did.

    Each request is counted if the application's state has a counter, and traced and logged where that is configured.
    With the application's ``paths``, a request that is refused before routing is counted under its path.
    """

    def __init__(self, app: ASGIApp, paths: Iterable[str] = ()) -> None:
        self.app = app
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        requested_id = headers.get("x-request-id", "")
        scope["request_id"] = requested_id if _VALID_ID.fullmatch(requested_id) else uuid.uuid4().hex
        logs.request_id.set(scope["request_id"])
        senders.current.set(scope.get(senders.KEY, senders.NOBODY))
        with tracing.request_span(scope["method"], headers) as span:
            status = await self._respond(scope, receive, send)
            tracing.describe(span, scope["method"], self._route(scope), status, scope["request_id"])

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Answer and count a request; return the status, 0 if the sender left before the response began."""
        response: Message | None = None
        start = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal response
            if message["type"] == "http.response.start":
                response = message
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = scope["request_id"]
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except LesionError as error:
            if response is not None:
                raise
            await problem_of(scope, error)(scope, receive, send_with_id)
        except ClientDisconnect:
            pass  # the sender left, and nothing failed
        except Exception as error:
            if is_full(error) and response is None:  # of the folder for temporary files, where large bodies are kept
                await no_space(scope, error)(scope, receive, send_with_id)
                return HTTPStatus.INSUFFICIENT_STORAGE
            logger.exception("request %s failed", scope["request_id"])
            if response is not None:
                raise
            detail = "The server failed on this request. Tell its operator the request_id."
            await problem(scope, 500, "internal_error", detail)(scope, receive, send_with_id)
        finally:
            _count(scope, self._route(scope), response, time.perf_counter() - start)
        return response["status"] if response else 0

    def _route(self, scope: Scope) -> str | None:
        """Return the template of a request's path; None if no route has that path."""
        if "route" in scope:
            return str(scope["route"].path)
        return scope["path"] if scope["path"] in self._paths else None


def _count(scope: Scope, route: str | None, response: Message | None, seconds: float) -> None:
    services: AppState | None = getattr(scope["app"].state, "services", None)
    method = scope["method"]
    status = response["status"] if response else 0
    if services is not None:
        media_type = Headers(raw=response["headers"]).get("content-type", "") if response else ""
        endless = response is None or media_type.startswith("text/event-stream")
        services.request_counter.count(method, route, status, None if endless else seconds)
    if ACCESS_LOG.isEnabledFor(logging.INFO):
        principal = scope.get("state", {}).get("principal")
        fields = {"method": method, "route": route or "", "status": status, "ms": round(1000 * seconds, 1)}
        fields |= {"request_id": scope["request_id"], "key": principal.key_id if principal else ""}
        ACCESS_LOG.info("%s %s %d %.1f ms", method, route or "(no route)", status, 1000 * seconds, extra=fields)


class HeadRequests:
    """Answers HEAD as GET, without the body: monitors and caches ask so."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        ended = False

        async def send_head(message: Message) -> None:
            nonlocal ended
            if message["type"] != "http.response.body":
                await send(message)
            elif not ended:  # what a stream sends later is dropped
                ended = True
                await send({"type": "http.response.body"})

        request = {**scope, "method": "GET"}
        try:
            await self.app(request, receive, send_head)
        finally:
            scope.update(request | {"method": "HEAD"})  # with the route that was found, for counts and traces


@dataclass(eq=False)
class BodyLimits:
    """Limits the bytes of one body, those of all bodies in this process together, and the time that a body may take.

    Bytes are counted as they arrive, so a missing or wrong ``Content-Length`` changes nothing. While the bodies of all
    requests hold more than ``max_total_bytes``, only small bodies, up to a quarter more, and the body that began first
    are received: the others wait unread, in the senders' buffers. A body must have arrived within ``timeout`` seconds;
    the paths in ``larger`` accept larger bodies, which have more time in proportion.
    """

    app: ASGIApp
    max_body_bytes: int
    max_total_bytes: int
    timeout: float
    larger: Mapping[str, int] = field(default_factory=dict)
    held_bytes: int = field(default=0, init=False)
    # The bodies that are not complete, in the order they began.
    arriving: dict["_Body", None] = field(default_factory=dict, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.larger.get(scope["path"], self.max_body_bytes)
        headers = Headers(scope=scope)
        media_type = headers.get("content-type", "").lower()
        if "json" in media_type:
            limit = min(limit, _MOST_JSON_BYTES)
        await _refuse_encoding(headers, receive)
        if "charset" in media_type:
            await _refuse_charset(media_type, receive)
        await _refuse_declared_size(headers, limit, receive)
        body = _Body(receive, self, limit, self.timeout * max(limit / self.max_body_bytes, 1))
        self.arriving[body] = None
        try:
            await self.app(scope, body.receive, send)
        finally:
            self.arriving.pop(body, None)
            self.held_bytes -= body.size


class _Body:
    def __init__(self, receive: Receive, limits: BodyLimits, limit: int, timeout: float) -> None:
        self._receive = receive
        self._limits = limits
        self._limit = limit
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self.size = 0

    async def receive(self) -> Message:
        """Receive the next ASGI message, within the limits."""
        limits = self._limits
        if self not in limits.arriving:
            return await self._receive()
        while not self._has_room():
            if time.monotonic() > self._deadline:
                raise BusyError("The server holds as many images as it has memory for. Send the image again soon.")
            await asyncio.sleep(_ROOM_S)
        message = await self._next_message()
        arrived = len(message.get("body", b""))
        self.size += arrived
        limits.held_bytes += arrived
        complete = not message.get("more_body", False)
        if complete:
            del limits.arriving[self]
        if self.size > self._limit:
            if not complete:
                await _discard_rest(self._receive)
            raise _too_large(f"more than {self._limit:,} bytes", self._limit)
        return message

    def _has_room(self) -> bool:
        limits = self._limits
        reserve = limits.max_total_bytes // _RESERVE if self.size < _SMALL_BYTES else 0
        return limits.held_bytes <= limits.max_total_bytes + reserve or next(iter(limits.arriving)) is self

    async def _next_message(self) -> Message:
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                return await self._receive()
        except TimeoutError:
            message = f"The body did not arrive within {self._timeout:g} seconds. Send it again."
            raise BodyTimeoutError(message) from None


async def _refuse_encoding(headers: Headers, receive: Receive) -> None:
    """Refuse a compressed body, before it is read: its limits would count other bytes than those that are unpacked."""
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        await _discard_rest(receive)
        raise UnsupportedTypeError(
            f"A body with Content-Encoding: {encoding[:40]} is not unpacked. Send it as it is, without that header.",
            code="encoding_not_supported",
        )


async def _refuse_charset(media_type: str, receive: Receive) -> None:
    """Refuse a form in a rare or unknown character set, on which the parser would fail."""
    kind, options = parse_options_header(media_type.encode("latin-1"))
    charset = options.get(b"charset", b"").decode("latin-1").strip()
    if kind in _FORMS and charset not in _CHARSETS:
        await _discard_rest(receive)
        raise UnsupportedTypeError(
            f"A form in the character set {charset[:40]!r} is not read. Send it in UTF-8, or leave charset out.",
            code="charset_not_supported",
        )


async def _refuse_declared_size(headers: Headers, limit: int, receive: Receive) -> None:
    """Refuse a body whose ``Content-Length`` is over the limit, before it is read."""
    declared = headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and len(declared) < 20 and int(declared) > limit:
        if "expect" not in headers:  # a sender that asks first has sent nothing yet
            await _discard_rest(receive)
        raise _too_large(f"{int(declared):,} bytes", limit)


def _too_large(size: str, limit: int) -> TooLargeError:
    message = f"The body has {size}; at most {limit:,} are accepted. Send a smaller image, or fewer at a time."
    return TooLargeError(message, code="body_too_large")


async def _discard_rest(receive: Receive) -> None:
    """Receive the rest of a body for some seconds: a client that is cut off while it sends never reads the reason."""
    try:
        async with asyncio.timeout(_LINGER_S):
            while True:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
