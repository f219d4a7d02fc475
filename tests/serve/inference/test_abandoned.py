"""Requests whose senders left are answered by the batch loop without being computed."""

import asyncio
import queue
import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from litserve.utils import LitAPIStatus
from starlette.requests import ClientDisconnect

from serve import senders
from serve.inference.dispatcher import Dispatcher
from serve.inference.litserve_batches import IdleBatchLoop
from serve.inference.messages import InferenceRequest
from serve.inference.shared_state import SharedState
from serve.senders import Sender

IMAGE = InferenceRequest(b"an image")


class Transport:
    """Keeps what is sent to API processes."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, str, Any, LitAPIStatus]] = []

    def send(self, item: tuple[str, tuple[Any, LitAPIStatus, Any, int]], consumer_id: int) -> None:
        uid, (answer, status, *_) = item
        self.sent.append((consumer_id, uid, answer, status))


def batch_of(shared_state: SharedState, *messages: tuple[int, int]) -> tuple[list[tuple[int, str]], Transport]:
    """Form one batch of messages, each an API process and a number."""
    waiting: queue.Queue[Any] = queue.Queue()
    for process, number in messages:
        waiting.put((process, str(number), time.monotonic(), IMAGE))
    api = SimpleNamespace(max_batch_size=8, batch_timeout=0.0, request_timeout=30.0, shared_state=shared_state)
    transport = Transport()
    batch, _ = IdleBatchLoop().get_batch_requests(cast(Any, api), waiting, cast(Any, transport))
    return [(process, uid) for process, uid, _ in batch], transport


def test_only_marked_requests_of_their_own_process_are_dropped() -> None:
    shared_state = SharedState(1, 2)
    for process, number in ((0, 2), (1, 3), (1, 5000)):
        shared_state.abandon(process, number)
    numbers = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (1, 5000 - 4096), (1, 5000)]
    batch, transport = batch_of(shared_state, *numbers)
    assert batch == [(0, "1"), (0, "3"), (1, "2"), (1, "904")]
    dropped = [(process, uid) for process, uid, answer, _ in transport.sent if answer]
    assert dropped == [(0, "2"), (1, "3"), (1, "5000")]


def test_dropped_requests_do_not_fill_a_batch() -> None:
    shared_state = SharedState(1, 1)
    for number in range(1, 41):
        shared_state.abandon(0, number)
    batch, transport = batch_of(shared_state, *((0, number) for number in range(1, 48)))
    assert batch == [(0, str(number)) for number in range(41, 48)]
    assert len([answer for _, _, answer, _ in transport.sent if answer]) == 40


def test_a_sender_that_leaves_marks_what_waits_for_it_and_asks_no_more() -> None:
    shared_state, waiting = SharedState(1, 1), cast(Any, queue.Queue())
    shared_state.worker_is_ready(0, 1)
    dispatcher = Dispatcher(shared_state, 0, waiting, {}, 8, 5.0)

    async def ask(sender: Sender) -> None:
        senders.current.set(sender)
        await dispatcher.predict(IMAGE)

    async def main() -> None:
        leaving, staying = Sender(), Sender()
        asked = [asyncio.create_task(ask(sender)) for sender in (leaving, staying)]
        await asyncio.sleep(0.05)
        assert [waiting.get_nowait()[1] for _ in asked] == ["1", "2"]
        leaving.leave()
        assert [shared_state.is_abandoned(0, number) for number in (1, 2)] == [True, False]
        assert shared_state.in_flight == 2, "an inference worker has it still"
        for pending in dispatcher.buffer.values():
            pending.response = ({"an": "answer"}, LitAPIStatus.OK)
            pending.event.set()
        with pytest.raises(ClientDisconnect):
            await asked[0]
        await asked[1]
        assert (shared_state.in_flight, leaving.on_leaving, staying.on_leaving) == (0, set(), set())
        with pytest.raises(ClientDisconnect):
            await ask(leaving)
        assert waiting.empty()

    asyncio.run(main())


class SlowQueue(queue.Queue[Any]):
    """A queue that takes nothing until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()

    def put(self, item: object, *_: object) -> None:
        """Wait, and take it."""
        assert self.open.wait(10)
        super().put(item)


def test_large_images_are_sent_one_by_one_and_not_for_senders_that_left() -> None:
    shared_state, waiting = SharedState(1, 1), SlowQueue()
    shared_state.worker_is_ready(0, 1)
    dispatcher = Dispatcher(shared_state, 0, cast(Any, waiting), {}, 8, 5.0)

    async def ask(sender: Sender) -> None:
        senders.current.set(sender)
        await dispatcher.predict(InferenceRequest(bytes(2**20)))

    async def main() -> None:
        first, leaving, last = (Sender() for _ in range(3))
        asked = [asyncio.create_task(ask(sender)) for sender in (first, leaving, last)]
        await asyncio.sleep(0.05)
        leaving.leave()
        waiting.open.set()
        with pytest.raises(ClientDisconnect):
            await asked[1]
        numbers = [(await asyncio.to_thread(waiting.get, timeout=5))[1] for _ in range(2)]
        assert (numbers, waiting.qsize()) == (["1", "3"], 0)
        for pending in dispatcher.buffer.values():
            pending.response = ({"an": "answer"}, LitAPIStatus.OK)
            pending.event.set()
        await asyncio.gather(asked[0], asked[2])
        assert shared_state.in_flight == 0

    asyncio.run(main())


def test_what_nobody_waits_for_by_design_is_done() -> None:
    assert not senders.current.get().gone
    assert senders.current.get() is senders.NOBODY
