"""Hands requests to LitServe's workers and waits for their answers: bounded, timed, and told of workers that die."""

import asyncio
import time
import uuid
from dataclasses import dataclass
from typing import Any, Protocol

from litserve.utils import LitAPIStatus, ResponseBufferItem

from lesion.core.errors import LesionError
from serve.http.problems import BusyError
from serve.inference.shared_state import SharedState

_WATCH_S = 0.2
# A worker that dies while it waits may take one request with it before it was told which: LitServe's queue lives in a
# manager process whose thread still serves the dead one for as long as one wait (``inference_worker.IDLE_WAIT_S``).
_REQUEUE_AFTER_S = 0.5
_LARGE = 256 * 1024  # bytes above which a request is pickled and sent by a thread rather than by the event loop


class RequestQueue(Protocol):
    """The part of LitServe's queue that is used here."""

    def put(self, item: object) -> None:
        """Append an item."""


@dataclass(slots=True)
class Waiting(ResponseBufferItem):  # type: ignore[misc]
    """A request that waits for its answer; LitServe fills ``worker_id`` when a worker begins it."""

    message: Any = None


class Dispatcher:
    """One API process's way to the workers.

    Args:
        board: What is known of the workers.
        index: The number of this API process.
        requests: LitServe's queue to the workers.
        buffer: LitServe's table of waiting requests, by id.
        queue_size: The most requests that may wait or be computed, over all API processes.
        timeout: Seconds after which a request is given up.
    """

    def __init__(
        self,
        board: SharedState,
        index: int,
        requests: RequestQueue,
        buffer: dict[str, ResponseBufferItem],
        queue_size: int,
        timeout: float,
    ) -> None:
        self.board = board
        self._index = index
        self._requests = requests
        self._buffer = buffer
        self._queue_size = queue_size
        self._timeout = timeout
        self._lost_worker_at: float | None = None

    def check_room(self) -> None:
        """Refuse early, before a body is read.

        Raises:
            BusyError: No worker is ready, or too many requests wait already.
        """
        if not self.board.ready:
            raise BusyError("No inference worker is ready. Try again in some seconds.", code="no_worker_ready")
        if self.board.in_flight >= self._queue_size:
            raise BusyError(f"{self._queue_size} requests wait already. Try again soon.", code="queue_full")

    async def submit(self, payload: object, size: int) -> dict[str, Any]:
        """Send a payload to a worker and return its answer.

        Args:
            payload: What the worker's ``predict`` gets; pickled.
            size: About how many bytes it has.

        Raises:
            BusyError: Too many requests wait, the request took too long, or its worker died.
            LesionError: The worker failed on the request's batch.
        """
        self.check_room()
        uid = uuid.uuid4().hex
        waiting = Waiting(asyncio.Event(), message=(self._index, uid, time.monotonic(), payload))
        self._buffer[uid] = waiting
        self.board.add_in_flight(self._index, 1)
        try:
            async with asyncio.timeout(self._timeout):
                await self._put(waiting.message, size)
                await waiting.event.wait()
        except TimeoutError:
            raise BusyError(f"No answer within {self._timeout:g} seconds. Try again later.", code="timed_out") from None
        except (OSError, EOFError) as error:  # LitServe's queue is gone: the server is going down
            raise BusyError("The server is shutting down.", code="shutting_down") from error
        finally:
            self._buffer.pop(uid, None)
            self.board.add_in_flight(self._index, -1)
        answer, status = waiting.response
        if status == LitAPIStatus.OK:
            return dict(answer)
        if isinstance(answer, LesionError):
            raise answer
        raise LesionError(
            "The model failed on this request. Tell the server's operator the request_id.", code="inference_failed"
        )

    async def watch(self) -> None:
        """Until cancelled: answer the requests of workers that died, and send again those that went down unseen."""
        before = self.board.pids
        while True:
            await asyncio.sleep(_WATCH_S)
            pids = self.board.pids
            now = time.monotonic()
            if any(old and new != old for old, new in zip(before, pids, strict=True)):
                self._lost_worker_at = now
            before = pids
            for waiting in list(self._buffer.values()):
                if waiting.worker_id is not None and not pids[waiting.worker_id] and not waiting.event.is_set():
                    lost = BusyError("The worker that had this request died. Try again.", code="worker_died")
                    waiting.response = (lost, LitAPIStatus.ERROR)
                    waiting.event.set()
            if self._lost_worker_at is not None and now - self._lost_worker_at > _REQUEUE_AFTER_S:
                await self._send_again(self._lost_worker_at + _REQUEUE_AFTER_S)
                self._lost_worker_at = None

    async def _send_again(self, before: float) -> None:
        """Put again what no worker has begun; if it waits after all it is computed twice and answered once."""
        for waiting in list(self._buffer.values()):
            if waiting.worker_id is None and isinstance(waiting, Waiting) and waiting.message[2] < before:
                await self._put(waiting.message, _LARGE)

    async def _put(self, message: object, size: int) -> None:
        if size < _LARGE:
            self._requests.put(message)
        else:
            await asyncio.to_thread(self._requests.put, message)
