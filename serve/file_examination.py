"""Examines uploaded files: decodes them, and asks for the champion's opinion, patiently while the server is busy."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from lesion.core.errors import LesionError
from lesion.data.inspection import ImageRecord, examine_received
from lesion.identity.pseudonyms import Pseudonyms
from lesion.identity.received_files import ReceivedFile
from lesion.imaging.refusals import ImageMemoryError
from lesion.intake.uploads import ModelOpinion
from lesion.intake.zip_reader import LabeledFile
from serve.http.dependencies import AppState
from serve.http.problems import status_of
from serve.inference.large_images import small_only
from serve.request_errors import BusyError

P = ParamSpec("P")
Result = TypeVar("Result")

_PATIENCE_S = 20.0  # how long a file waits for room among the images that wait for a worker, or to be decoded
_PAUSE_S = 0.25
_decoders = ThreadPoolExecutor(2, "examine")  # for all uploads; large images are decoded in another process


@dataclass(frozen=True, slots=True)
class Examined:
    """A file that can be decoded."""

    name: str  # as its sender calls it
    received: ReceivedFile  # as it may be stored
    record: ImageRecord  # the facts of what may be stored
    opinion: ModelOpinion | None  # the champion's; None if the label is no class


async def examine_all(
    state: AppState, files: Iterable[LabeledFile], pseudonyms: Pseudonyms
) -> list[Examined | LesionError]:
    """Examine files at the same time; if the server fails on one, the others are given up."""
    large_turn = asyncio.Lock()
    tasks = [asyncio.create_task(_examine(state, file, pseudonyms, large_turn)) for file in files]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _examine(
    state: AppState, file: LabeledFile, pseudonyms: Pseudonyms, large_turn: asyncio.Lock
) -> Examined | LesionError:
    """Decode one file, and ask for the champion's opinion if its label is a class; return a fault of the file.

    Large images are decoded one at a time anyway. So only one of an upload's waits for that, the one that holds
    ``large_turn``, and there is room for those of others.
    """
    if isinstance(file.content, LesionError):
        return file.content
    loop, limits = asyncio.get_running_loop(), state.settings.image_limits
    receive = partial(examine_received, pseudonyms=pseudonyms)
    try:
        try:
            received = await loop.run_in_executor(_decoders, receive, file.content, small_only(limits))
        except ImageMemoryError:
            async with large_turn:
                received = await _patiently(state.dispatcher.large_images.call, receive, file.content, limits)
                opinion = await _opinion(state, file)
        else:
            opinion = await _opinion(state, file)
    except LesionError as error:
        if is_server_fault(error):
            raise
        return error
    return Examined(file.name, *received, opinion)


async def _opinion(state: AppState, file: LabeledFile) -> ModelOpinion | None:
    """Return the champion's opinion on a file; None if its label is no class."""
    if file.label not in state.bundle.classes:
        return None
    assert isinstance(file.content, bytes)
    return await _patiently(state.dispatcher.opinion, file.content)


async def _patiently(ask: Callable[P, Awaitable[Result]], *arguments: P.args, **options: P.kwargs) -> Result:
    """Return what a function answers; ask again for some seconds while the server is busy.

    Raises:
        BusyError: The server is still busy, and the sender has to try again.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await ask(*arguments, **options)
        except BusyError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_PAUSE_S)


def is_server_fault(error: LesionError) -> bool:
    """Return whether the server, not the file, is at fault (5xx)."""
    return status_of(error) >= 500
