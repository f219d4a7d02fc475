"""ASGI middleware: a request id, a count and a last resort for errors; bounds on bodies, counted as they arrive."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Iterable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lesion.core import logs
from lesion.core.errors import LesionError
from serve.http.problems import BusyError, RequestError, problem, problem_of
from serve.observability import tracing
from serve.observability.prometheus import count_request
from serve.observability.request_stats import RequestCounter

logger = logging.getLogger(__name__)
ACCESS_LOG = logging.getLogger("serve.access_log")

_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINGER_S = (
    5.0  # how long a body that is refused is still taken in and thrown away, so that the client reads the answer
)
_ROOM_S = 0.05  # how often a body that waits for memory looks again
_PREDICT = ("POST", "/predict")


class RequestContext:
    """Gives each request an id, takes a sane one from ``X-Request-ID``, and answers what nobody else answered.

    Each request is counted for Prometheus and in the ``tally`` of the application's state, if it has one; it is traced
    and logged where that is asked for.

    Args:
        app: The application inside.
        paths: Those that the application has, so that a request which is refused before it is routed counts as its own.
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
        given = headers.get("x-request-id", "")
        scope["request_id"] = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        logs.request_id.set(scope["request_id"])
        with tracing.request_span(scope["method"], headers) as span:
            status = await self._answer(scope, receive, send)
            tracing.describe(span, scope["method"], self._route(scope), status, scope["request_id"])

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Have a request answered and count it; returns the answer's status, 0 if nobody waited for one."""
        answer: Message | None = None
        began = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal answer
            if message["type"] == "http.response.start":
                answer = message
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = scope["request_id"]
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except LesionError as error:
            if answer is not None:
                raise
            await problem_of(scope, error)(scope, receive, send_with_id)
        except ClientDisconnect:
            pass  # there is nobody left to answer, and nothing failed
        except Exception:
            logger.exception("request %s failed", scope["request_id"])
            if answer is not None:
                raise
            detail = "The server failed on this request. Tell its operator the request_id."
            await problem(scope, 500, "internal_error", detail)(scope, receive, send_with_id)
        finally:
            _count(scope, self._route(scope), answer, time.perf_counter() - began)
        return answer["status"] if answer else 0

    def _route(self, scope: Scope) -> str | None:
        """Return the template of a request's path; None where nothing has that path."""
        if "route" in scope:
            return str(scope["route"].path)
        return scope["path"] if scope["path"] in self._paths else None


class BodyLimits:
    """Bounds the bytes of one body, of all bodies in this process together, and the time a body may take.

    Bytes are counted as they arrive, so a missing or wrong ``Content-Length`` changes nothing. While the bodies of all
    requests hold more than ``max_total_bytes``, only the one that began first is read on: the others wait unread, in
    the senders' buffers.

    Args:
        app: The application inside.
        max_body_bytes: The largest body.
        max_total_bytes: About the most that the bodies of all requests being answered may hold.
        timeout: Seconds in which a body must have arrived; a larger one has more, in proportion.
        larger: Paths that take larger bodies, with their bounds.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        max_total_bytes: int,
        timeout: float,
        larger: Mapping[str, int] | None = None,
    ) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.larger = dict(larger or {})
        self.max_total_bytes = max_total_bytes
        self.timeout = timeout
        self._held = 0
        self._arriving: dict[object, None] = {}  # bodies that are not complete, in the order in which they began

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        bound = self.larger.get(scope["path"], self.max_body_bytes)
        declared = headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and len(declared) < 20 and int(declared) > bound:
            if "expect" not in headers:  # who asks before sending has sent nothing yet
                await _throw_away(receive)
            raise _too_large(f"{int(declared):,} bytes", bound)
        body = object()
        size = 0
        timeout = self.timeout * max(bound / self.max_body_bytes, 1)
        deadline = time.monotonic() + timeout

        async def receive_counted() -> Message:
            nonlocal size
            if body not in self._arriving:
                return await receive()
            await self._wait_for_room(body, deadline)
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise RequestError(
                    f"The body did not arrive within {timeout:g} seconds. Send it again.",
                    code="body_timeout",
                    status=408,
                ) from None
            arrived = len(message.get("body", b""))
            size += arrived
            self._held += arrived
            complete = not message.get("more_body", False)
            if complete:
                del self._arriving[body]
            if size > bound:
                if not complete:
                    await _throw_away(receive)
                raise _too_large(f"more than {bound:,} bytes", bound)
            return message

        self._arriving[body] = None
        try:
            await self.app(scope, receive_counted, send)
        finally:
            self._arriving.pop(body, None)
            self._held -= size

    async def _wait_for_room(self, body: object, deadline: float) -> None:
        while self._held > self.max_total_bytes and next(iter(self._arriving)) is not body:
            if time.monotonic() > deadline:
                raise BusyError("The server holds as many images as it has memory for. Send the image again soon.")
            await asyncio.sleep(_ROOM_S)


def _count(scope: Scope, route: str | None, answer: Message | None, seconds: float) -> None:
    tally: RequestCounter | None = getattr(scope["app"].state, "tally", None)
    method = scope["method"]
    status = answer["status"] if answer else 0  # 0: its sender went away
    endless = answer is None or _is_stream(answer)
    timed = None if endless else seconds
    count_request(method, route, status, timed)
    if tally is not None:
        tally.count(status, timed, prediction=status == 200 and (method, route) == _PREDICT)
    if ACCESS_LOG.isEnabledFor(logging.INFO):
        facts = {"method": method, "route": route or "", "status": status, "ms": round(1000 * seconds, 1)}
        sender = scope.get("state", {}).get("sender")
        facts |= {"request_id": scope["request_id"], "key": sender.key_id if sender else ""}
        ACCESS_LOG.info("%s %s %d %.1f ms", method, route or "(no route)", status, 1000 * seconds, extra=facts)


def _is_stream(answer: Message) -> bool:
    return Headers(raw=answer["headers"]).get("content-type", "").startswith("text/event-stream")


def _too_large(size: str, bound: int) -> RequestError:
    return RequestError(
        f"The body has {size}; at most {bound:,} are taken. Send a smaller image, or fewer at a time.",
        code="body_too_large",
        status=413,
    )


async def _throw_away(receive: Receive) -> None:
    """Take in what is left of a body for some seconds: a client that is cut off while it sends never reads why."""
    try:
        async with asyncio.timeout(_LINGER_S):
            while True:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
