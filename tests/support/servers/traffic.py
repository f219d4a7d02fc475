"""Clients that keep a server busy while a test changes something."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import httpx

from tests.support.servers.serving import eventually


class InThreads:
    """What runs in threads until the block ends."""

    def tasks(self) -> Sequence[Callable[[], None]]:
        """Return what the threads run; each ends soon after ``stopped`` is set."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.stopped = threading.Event()
        self._threads = [threading.Thread(target=task) for task in self.tasks()]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self._threads:
            thread.join()


@dataclass
class Traffic(InThreads):
    """Clients that send images and read ``/info`` until the block ends; no request may fail meanwhile."""

    url: str
    images: Sequence[bytes]
    clients: int = 4
    kept: bool = True  # whether a client keeps its connection
    pause: float = 0.0  # seconds between two images of a client
    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)  # which image, and its prediction
    failures: list[str] = field(default_factory=list)

    def tasks(self) -> Sequence[Callable[[], None]]:
        return [partial(self._send, number) for number in range(self.clients)]

    def __enter__(self) -> Self:
        super().__enter__()
        self.wait_for(3 * self.clients)
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        assert self.failures == []

    def wait_for(self, images: int = 60) -> None:
        """Wait until so many more images were answered."""
        wanted = len(self.answers) + images
        eventually(lambda: len(self.answers) >= wanted or self.failures, 60)

    def _send(self, turn: int) -> None:
        headers = {} if self.kept else {"Connection": "close"}
        with httpx.Client(base_url=self.url, timeout=60, headers=headers) as client:
            while not self.stopped.is_set():
                turn = (turn + 1) % len(self.images)
                try:
                    prediction = client.post("/predict", content=self.images[turn]).raise_for_status()
                    self.answers.append((turn, prediction.json()))
                    client.get("/info").raise_for_status()
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                time.sleep(self.pause)
