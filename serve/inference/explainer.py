"""Makes heat maps by occlusion from many short requests, so that other requests get their turn in between."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from lesion.explanation.occlusion import Boxes, Odds, coarse_boxes, effects, fine_boxes
from serve.inference.messages import CoverRequest, InferenceAnswer, MapRequest, Request, Unexplained
from serve.request_errors import BusyError

MAX_WAITING = 8  # explanations that wait in one API process; further ones are answered 503
_PART_PIXELS = 24 * 96**2  # of the images of one request to an inference worker: some tens of milliseconds


@dataclass(eq=False)
class Explainer:
    """The explanations of one API process: one is made at a time, and few may wait.

    ``submit`` sends a request to an inference worker and returns its answer.
    """

    submit: Callable[[Request], Awaitable[object]]
    _waiting: int = field(default=0, init=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    def check_room(self) -> None:
        """Raise a BusyError if too many explanations wait, before a body is read."""
        if self._waiting > MAX_WAITING:
            raise BusyError(
                f"{MAX_WAITING} explanations wait already. Try again soon, or use method=grad-cam.",
                code="explanations_full",
            )

    async def explain(self, found: Unexplained, layers: bool, trace: str) -> InferenceAnswer:
        """Return the answer with its explanation.

        Raises:
            BusyError: Too many explanations wait.
            ModelReplacedError: The model that gave the answer is not served any more.
        """
        self.check_room()
        async with self._count(), self._turn:
            boxes = coarse_boxes(found.size)
            before = await self._odds(found, np.empty((0, 4), np.int64), trace)
            coarse = await self._odds(found, boxes, trace)
            small = fine_boxes(found.size, effects(before, coarse))
            fine = await self._odds(found, small, trace)
            request = MapRequest(
                found.image, found.size, found.class_name, before, coarse, small, fine, layers, trace=trace
            )
            found.answer["explanation"] = cast(dict[str, Any], await self.submit(request))
        return found.answer

    async def _odds(self, found: Unexplained, boxes: Boxes, trace: str) -> Odds:
        """Return the class's odds under each square, (N, 2); those of the image itself, (1, 2), without squares."""
        step = max(1, _PART_PIXELS // found.size**2)
        version = found.answer["model_version"]
        parts = []
        for start in range(0, max(len(boxes), 1), step):
            part = boxes[start : start + step]
            request = CoverRequest(found.image, found.size, found.class_name, part, version, trace=trace)
            parts.append(cast(Odds, await self.submit(request)))
        return np.concatenate(parts)

    @asynccontextmanager
    async def _count(self) -> AsyncIterator[None]:
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
