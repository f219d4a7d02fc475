"""Requests to LitServe's inference workers, and how a worker takes them in batches.

Below are the parts of LitServe that are overridden, and its private parts that are used, in its version 0.2.19;
pyproject.toml bounds the version. #N is an issue or pull request of https://github.com/Lightning-AI/LitServe.

``BatchedLoop.get_batch_requests``
    LitServe asks its queue a thousand times per second while idle, and without a pause when ``batch_timeout`` is 0. No
    upstream issue known; #147 is about the timeout of the same loop.
``ResponseBufferItem``, ``LitAPIStatus``, ``LITSERVE_WORKER_ID``
    How LitServe tells which worker has a request; they came with #624. There is no public way.
"""

import os
import time
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any

import litserve
from litserve.loops.simple_loops import BatchedLoop
from litserve.transport.base import MessageTransport
from litserve.utils import LitAPIStatus, LoopResponseType, ResponseBufferItem

from serve.request_errors import BusyError

IDLE_WAIT_S = 0.1
# A file of so many bytes takes longer to decode than all the rest of a batch. A batch with as many accepts no further
# image, so that no small image waits for several large ones.
LARGE_FILE = 2**20


def worker_id() -> int:
    """Return the number of this inference worker."""
    return int(os.environ["LITSERVE_WORKER_ID"])


@dataclass(slots=True)
class PendingRequest(ResponseBufferItem):  # type: ignore[misc]
    """A request that waits for its answer; LitServe sets ``worker_id`` when an inference worker begins it."""

    message: Any = None


class IdleBatchLoop(BatchedLoop):  # type: ignore[misc]
    """LitServe's batch loop, but asleep while idle.

    It sleeps until a first request comes, takes the others that wait already, and waits ``batch_timeout`` for more.
    """

    def get_batch_requests(
        self, lit_api: litserve.LitAPI, request_queue: "Queue[Any]", transport: MessageTransport
    ) -> tuple[list[Any], list[Any]]:
        """Return one batch of (API process, request id, request).

        Requests whose senders left are answered at once, without computing anything. The second list is empty: each API
        process answers its own requests that took too long.
        """
        batch: list[Any] = []
        deadline = 0.0
        size = 0
        while len(batch) < lit_api.max_batch_size and size < LARGE_FILE:
            wait = max(deadline - time.monotonic(), 0.0) if batch else IDLE_WAIT_S
            try:
                consumer, uid, sent, request = request_queue.get(timeout=wait)
            except Empty:
                break
            if time.monotonic() - sent > lit_api.request_timeout:
                continue
            if lit_api.shared_state.is_abandoned(consumer, int(uid)):
                left = BusyError("The sender left.", code="sender_left")  # nobody reads it
                self.put_response(transport, consumer, uid, left, LitAPIStatus.OK, LoopResponseType.REGULAR)
                continue
            self.put_response(transport, consumer, uid, (), LitAPIStatus.START, LoopResponseType.REGULAR)
            batch.append((consumer, uid, request))
            size += len(request.data)
            if len(batch) == 1:
                deadline = time.monotonic() + lit_api.batch_timeout
        return batch, []
