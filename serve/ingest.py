"""Judges uploaded files, each by itself: decoded here, looked at by the champion, and handed to the intake in turn."""

import asyncio
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from starlette.datastructures import State

from lesion.core.errors import LesionError
from lesion.data.inspection import ImageRecord, examine
from lesion.database.tables import ACCEPTED, QUARANTINED
from lesion.imaging.decode import Limits
from lesion.intake.intake import Outcome
from lesion.intake.rules import ModelOpinion
from lesion.intake.zip_reader import Member
from serve.http.problems import BusyError
from serve.http.schemas import JudgedImage, RejectedFile, UploadAnswer
from serve.inference.inference_worker import InferenceRequest
from serve.observability.prometheus import UPLOADS

_AT_ONCE = 8  # files being decoded or looked at in one upload
_PATIENCE_S = 20.0  # how long a file waits for a free worker
_PAUSE_S = 0.25
_NAME = 100
_decoders = ThreadPoolExecutor(2, "examine")  # two, however many uploads: a decoded image may fill 150 MB


@dataclass(frozen=True, slots=True)
class Origin:
    """Where files come from.

    Attributes:
        source: ``upload`` or ``feedback``.
        uploader: Who sent them.
        patient: The group they belong to; empty for none.
    """

    source: str
    uploader: str
    patient: str = ""


def clean(text: str, length: int = _NAME) -> str:
    """Return a stranger's text as it may be echoed: no control or formatting characters, and not longer than this."""
    return "".join(letter for letter in text if unicodedata.category(letter)[0] != "C")[:length]


def image_limits(state: State) -> Limits:
    """Return what this server refuses to decode."""
    given = state.limits
    return Limits(max_bytes=given.max_image_bytes, max_pixels=given.max_pixels, min_side=given.min_side)


async def judge_files(state: State, files: Iterable[Member], origin: Origin, whole: str = "") -> UploadAnswer:
    """Judge files in their order and keep those that may stay; how many may not is written down in one entry.

    Args:
        state: The app's.
        files: Read in a thread, a few at a time.
        origin: Where they come from.
        whole: The name of the archive that they come from.

    Raises:
        LesionError: The server, not a file, is at fault (5xx). What was judged before stays, and the same upload again
            changes nothing about it.
    """
    answer = await _judge(state, iter(files), origin, whole)
    if answer.rejected:
        codes = Counter(each.code for each in answer.rejected)
        note = state.intake.note_rejected
        await asyncio.to_thread(note, codes, source=origin.source, uploader=origin.uploader)
    return answer


async def _judge(state: State, files: Iterator[Member], origin: Origin, whole: str) -> UploadAnswer:
    answer = UploadAnswer(accepted=[], quarantined=[], rejected=[])
    judged = 0
    while True:
        try:
            batch = await asyncio.to_thread(_some, files)
        except LesionError as error:
            if not judged:
                raise
            _reject(answer, whole, error)  # the archive turned out bad in the middle
            return answer
        if not batch:
            return answer
        looks = await asyncio.gather(*(_look(state, member) for member in batch))
        for member, look in zip(batch, looks, strict=True):
            await _take(state, answer, member, look, origin)
        judged += len(batch)


Look = tuple[ImageRecord, ModelOpinion | None]


async def _look(state: State, member: Member) -> Look | LesionError:
    """Examine one file, and ask the champion if it matters; a fault of the file is a result."""
    if isinstance(member.content, LesionError):
        return member.content
    loop = asyncio.get_running_loop()
    try:
        examined = await loop.run_in_executor(_decoders, examine, member.content, image_limits(state))
        known = member.label in state.bundle.classes
        return examined, await _opinion(state, member.content) if known else None
    except LesionError as error:
        if error.status >= 500:
            raise
        return error


async def _opinion(state: State, data: bytes) -> ModelOpinion:
    """Ask an inference worker, and ask again while all are busy."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            answer = await state.dispatcher.submit(InferenceRequest(data, opinion=True), len(data))
            break
        except BusyError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_PAUSE_S)
    if "error" in answer:
        message, code, status = answer["error"]
        raise LesionError(message, code=code, status=status)
    return ModelOpinion.from_answer(answer)


async def _take(state: State, answer: UploadAnswer, member: Member, look: Look | LesionError, origin: Origin) -> None:
    """Hand one file to the intake and write down what became of it."""
    if isinstance(look, LesionError):
        _reject(answer, member.name, look)
        return
    examined, opinion = look
    assert isinstance(member.content, bytes)
    try:
        outcome: Outcome = await asyncio.to_thread(
            state.intake.take,
            examined,
            member.content,
            member.label,
            opinion,
            source=origin.source,
            uploader=origin.uploader,
            patient=origin.patient,
        )
    except LesionError as error:
        if error.status >= 500:
            raise
        _reject(answer, member.name, error)
        return
    kept = {ACCEPTED: answer.accepted, QUARANTINED: answer.quarantined}.get(outcome.status)
    name = clean(member.name)
    if kept is None:
        _refuse(answer, name, outcome.code, outcome.reason)
    else:
        UPLOADS.labels(outcome.status, outcome.code).inc()
        facts = {"sha256": outcome.sha256, "label": outcome.label, "code": outcome.code, "reason": outcome.reason}
        kept.append(JudgedImage(name=name, **facts))


def _reject(answer: UploadAnswer, name: str, error: LesionError) -> None:
    _refuse(answer, clean(name), error.code, error.message)


def _refuse(answer: UploadAnswer, name: str, code: str, reason: str) -> None:
    UPLOADS.labels("rejected", code).inc()
    answer.rejected.append(RejectedFile(name=name, code=code, reason=reason))


def _some(files: Iterator[Member]) -> list[Member]:
    return list(islice(files, _AT_ONCE))
