"""Sends requests to the inference workers and waits for their answers: bounded, timed, and aware of dead workers."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from queue import Queue
from typing import Any, cast

from litserve.utils import LitAPIStatus, ResponseBufferItem
from starlette.requests import ClientDisconnect

from lesion.core.errors import LesionError
from lesion.intake.uploads import ModelOpinion
from serve import senders
from serve.inference.explainer import Explainer
from serve.inference.large_images import LargeImages
from serve.inference.litserve_batches import PendingRequest
from serve.inference.messages import InferenceAnswer, InferenceRequest, LargeImage, Request, Unexplained
from serve.inference.shared_state import SharedState
from serve.request_errors import BusyError, ModelReplacedError

_WATCH_S = 0.2
# An inference worker that dies while it waits may take one request with it before it learned which: LitServe's queue
# is in a manager process, whose thread still serves the dead worker for one wait (``litserve_batches.IDLE_WAIT_S``).
_REQUEUE_AFTER_S = 0.5
_MOST_MODELS = 2  # that a large image is fitted for, one after the other, if the model is replaced meanwhile
_LARGE = 256 * 1024  # bytes above which a thread, not the event loop, pickles and sends a request


@dataclass(eq=False)
class Dispatcher:
    """The connection of one API process to the inference workers.

    ``requests`` and ``buffer`` are LitServe's queue to them, and its table of pending requests by id. At most
    ``queue_size`` requests wait or are computed over all API processes; one is given up after ``timeout`` seconds.
    """

    shared_state: SharedState
    index: int
    requests: "Queue[Any]"
    buffer: dict[str, ResponseBufferItem]
    queue_size: int
    timeout: float
    _numbers: Iterator[int] = field(default_factory=lambda: count(1), init=False)
    _lost_worker_at: float | None = field(default=None, init=False)
    _sending: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)  # held while a large request is sent

    def __post_init__(self) -> None:
        self.explainer = Explainer(self._ask)
        self.large_images = LargeImages()

    def check_room(self) -> None:
        """Raise a BusyError if no inference worker is ready or too many requests wait, before a body is read."""
        if not self.shared_state.ready:
            raise BusyError("No inference worker is ready. Try again in some seconds.", code="no_worker_ready")
        if self.shared_state.in_flight >= self.queue_size:
            raise BusyError(f"{self.queue_size} requests wait already. Try again soon.", code="queue_full")

    async def predict(self, request: InferenceRequest) -> InferenceAnswer:
        """Send a request to an inference worker, make its heat map if it asks for one, and return the answer.

        Raises:
            BusyError: Too many requests or explanations wait, the request took too long, its inference worker died, or
                the model was replaced twice while it was explained.
            LesionError: The image is refused, or the model failed on the request's batch (``inference_failed``).
        """
        answer = await self._submit(request)
        if not isinstance(answer, Unexplained):
            return cast(InferenceAnswer, answer)
        try:
            return await self.explainer.explain(answer, request.layers, request.trace)
        except ModelReplacedError:  # the new model has another answer, and explains that
            again = cast(Unexplained, await self._submit(request))
            return await self.explainer.explain(again, request.layers, request.trace)

    async def opinion(self, data: bytes) -> ModelOpinion:
        """Ask an inference worker for its opinion on an uploaded image; raises what :meth:`predict` raises."""
        return cast(ModelOpinion, await self._submit(InferenceRequest(data, opinion=True)))

    async def _submit(self, request: InferenceRequest) -> object:
        """Return an inference worker's answer; decode an image that is too large for it in another process first."""
        answer = await self._ask(request)
        for _ in range(_MOST_MODELS):
            if isinstance(answer, LargeImage):
                answer = await self._ask(await self._fit(request, answer))
        if isinstance(answer, LargeImage):
            raise ModelReplacedError("The model was replaced while an image was decoded for it. Try again.")
        return answer

    async def _fit(self, request: InferenceRequest, large: LargeImage) -> InferenceRequest:
        try:
            async with asyncio.timeout(self.timeout):
                pixels = await self.large_images.call(large.preprocessing.read, request.data, large.limits)
        except TimeoutError:
            raise _timed_out(self.timeout) from None
        return replace(request, data=pixels.tobytes(), fitted=large.preprocessing, created=time.monotonic())

    async def _ask(self, request: Request) -> object:
        """Return an inference worker's answer, or raise a ClientDisconnect once the sender has left."""
        sender, number = senders.current.get(), next(self._numbers)
        if sender.gone:
            raise ClientDisconnect
        self.check_room()
        uid, drop = str(number), partial(self.shared_state.abandon, self.index, number)
        pending = PendingRequest(asyncio.Event(), message=(self.index, uid, time.monotonic(), request))
        self.buffer[uid] = pending
        sender.on_leaving.add(drop)
        self.shared_state.add_in_flight(self.index, 1)
        try:
            async with asyncio.timeout(self.timeout):
                await self._put(pending.message, len(request.data))
                await pending.event.wait()
        except TimeoutError:
            raise _timed_out(self.timeout) from None
        except (OSError, EOFError) as error:  # LitServe's queue has ended: the server is shutting down
            raise BusyError("The server is shutting down.", code="shutting_down") from error
        finally:
            sender.on_leaving.discard(drop)
            self.buffer.pop(uid, None)
            self.shared_state.add_in_flight(self.index, -1)
        if sender.gone:
            raise ClientDisconnect
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
        previous = self.shared_state.pids
        while True:
            await asyncio.sleep(_WATCH_S)
            pids = self.shared_state.pids
            now = time.monotonic()
            if any(old and new != old for old, new in zip(previous, pids, strict=True)):
                self._lost_worker_at = now
            previous = pids
            for pending in list(self.buffer.values()):
                if pending.worker_id is not None and not pids[pending.worker_id] and not pending.event.is_set():
                    lost = BusyError("The inference worker that had this request died. Try again.", code="worker_died")
                    pending.response = (lost, LitAPIStatus.ERROR)
                    pending.event.set()
            if self._lost_worker_at is not None and now - self._lost_worker_at > _REQUEUE_AFTER_S:
                await self._resend(self._lost_worker_at + _REQUEUE_AFTER_S)
                self._lost_worker_at = None

    async def _resend(self, before: float) -> None:
        """Send again what no inference worker has begun; if it was not lost it is computed twice and answered once."""
        for pending in list(self.buffer.values()):
            if pending.worker_id is None and isinstance(pending, PendingRequest) and pending.message[2] < before:
                await self._put(pending.message, _LARGE)

    async def _put(self, message: tuple[Any, ...], size: int) -> None:
        """Send a request to the inference workers; large ones one by one, and not if the sender has left meanwhile."""
        if size < _LARGE:
            self.requests.put(message)
            return
        async with self._sending:
            if senders.current.get().gone:
                raise ClientDisconnect
            await asyncio.to_thread(self.requests.put, message)


def _timed_out(seconds: float) -> BusyError:
    return BusyError(f"No answer within {seconds:g} seconds. Try again later.", code="timed_out")
