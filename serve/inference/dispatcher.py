"""Sends requests to the inference workers and waits for their answers: bounded, timed, and aware of dead workers."""

import asyncio
import time
import uuid
from typing import Any, Protocol, cast

from litserve.utils import LitAPIStatus, ResponseBufferItem

from lesion.core.errors import LesionError
from serve.inference.litserve_overrides import PendingRequest
from serve.inference.messages import InferenceAnswer, InferenceRequest, OpinionAnswer
from serve.inference.shared_state import SharedState
from serve.request_errors import BusyError

_WATCH_S = 0.2
# An inference worker that dies while it waits may take one request with it before it learned which: LitServe's queue
# is in a manager process, whose thread still serves the dead worker for one wait (``litserve_overrides.IDLE_WAIT_S``).
_REQUEUE_AFTER_S = 0.5
_LARGE = 256 * 1024  # bytes above which a thread, not the event loop, pickles and sends a request


class RequestQueue(Protocol):
    """The part of LitServe's queue that is used here."""

    def put(self, item: object) -> None:
        """Append an item."""


class Dispatcher:
    """The connection of one API process to the inference workers.

    Args:
        shared_state: What is known of the inference workers.
        index: The number of this API process.
        requests: LitServe's queue to the inference workers.
        buffer: LitServe's table of pending requests, by id.
        queue_size: The most requests that may wait or be computed, over all API processes.
        timeout: Seconds after which a request is given up.
    """

    def __init__(
        self,
        shared_state: SharedState,
        index: int,
        requests: RequestQueue,
        buffer: dict[str, ResponseBufferItem],
        queue_size: int,
        timeout: float,
    ) -> None:
        self._shared_state = shared_state
        self._index = index
        self._requests = requests
        self._buffer = buffer
        self._queue_size = queue_size
        self._timeout = timeout
        self._lost_worker_at: float | None = None

    def check_room(self) -> None:
        """Refuse early, before a body is read.

        Raises:
            BusyError: No inference worker is ready, or too many requests wait already.
        """
        if not self._shared_state.ready:
            raise BusyError("No inference worker is ready. Try again in some seconds.", code="no_worker_ready")
        if self._shared_state.in_flight >= self._queue_size:
            raise BusyError(f"{self._queue_size} requests wait already. Try again soon.", code="queue_full")

    async def predict(self, request: InferenceRequest) -> InferenceAnswer:
        """Send a request to an inference worker and return its answer.

        Raises:
            BusyError: Too many requests wait, the request took too long, or its inference worker died.
            LesionError: The image is refused, or the model failed on the request's batch (``inference_failed``).
        """
        return cast(InferenceAnswer, await self._submit(request))

    async def opinion(self, data: bytes) -> OpinionAnswer:
        """Ask an inference worker for its opinion on an uploaded image; raises what :meth:`predict` raises."""
        return cast(OpinionAnswer, await self._submit(InferenceRequest(data, opinion=True)))

    async def _submit(self, request: InferenceRequest) -> object:
        self.check_room()
        uid = uuid.uuid4().hex
        pending = PendingRequest(asyncio.Event(), message=(self._index, uid, time.monotonic(), request))
        self._buffer[uid] = pending
        self._shared_state.add_in_flight(self._index, 1)
        try:
            async with asyncio.timeout(self._timeout):
                await self._put(pending.message, len(request.data))
                await pending.event.wait()
        except TimeoutError:
            raise BusyError(f"No answer within {self._timeout:g} seconds. Try again later.", code="timed_out") from None
        except (OSError, EOFError) as error:  # LitServe's queue has ended: the server is shutting down
            raise BusyError("The server is shutting down.", code="shutting_down") from error
        finally:
            self._buffer.pop(uid, None)
            self._shared_state.add_in_flight(self._index, -1)
        answer, status = pending.response
        if isinstance(answer, LesionError):
            raise answer
        if status != LitAPIStatus.OK:
            raise LesionError(
                "The model failed on this request. Tell the server's operator the request_id.", code="inference_failed"
            )
        return answer

    async def watch(self) -> None:
        """Until cancelled: answer requests of inference workers that died, and resend those that were lost unseen."""
        previous = self._shared_state.pids
        while True:
            await asyncio.sleep(_WATCH_S)
            pids = self._shared_state.pids
            now = time.monotonic()
            if any(old and new != old for old, new in zip(previous, pids, strict=True)):
                self._lost_worker_at = now
            previous = pids
            for pending in list(self._buffer.values()):
                if pending.worker_id is not None and not pids[pending.worker_id] and not pending.event.is_set():
                    lost = BusyError("The worker that had this request died. Try again.", code="worker_died")
                    pending.response = (lost, LitAPIStatus.ERROR)
                    pending.event.set()
            if self._lost_worker_at is not None and now - self._lost_worker_at > _REQUEUE_AFTER_S:
                await self._resend(self._lost_worker_at + _REQUEUE_AFTER_S)
                self._lost_worker_at = None

    async def _resend(self, before: float) -> None:
        """Send again what no inference worker has begun; if it was not lost it is computed twice and answered once."""
        for pending in list(self._buffer.values()):
            if pending.worker_id is None and isinstance(pending, PendingRequest) and pending.message[2] < before:
                await self._put(pending.message, _LARGE)

    async def _put(self, message: tuple[Any, ...], size: int) -> None:
        if size < _LARGE:
            self._requests.put(message)
        else:
            await asyncio.to_thread(self._requests.put, message)
