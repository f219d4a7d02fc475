"""Judges uploaded files one by one: decoded here, assessed by the champion, and handed to the intake in order."""

import asyncio
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from lesion.core.errors import LesionError
from lesion.data.inspection import ImageRecord, examine
from lesion.database.tables import ACCEPTED, QUARANTINED, REJECTED
from lesion.intake.intake import Intake
from lesion.intake.uploads import ModelOpinion, Upload
from lesion.intake.zip_reader import LabeledFile
from serve.http.dependencies import AppState
from serve.http.problems import status_of
from serve.http.schemas import JudgedImage, RejectedFile, UploadAnswer
from serve.observability.prometheus import UPLOADS
from serve.request_errors import BusyError

_BATCH = 8  # files of one upload that are examined at the same time
_PATIENCE_S = 20.0  # how long a file waits for a free inference worker
_PAUSE_S = 0.25
_NAME_LENGTH = 100
_decoders = ThreadPoolExecutor(2, "examine")  # two for all uploads, since a decoded image may fill 150 MB

Examination = tuple[ImageRecord, ModelOpinion | None]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where files come from."""

    source: str  # upload or feedback
    uploader: str  # who sent them
    patient: str = ""  # the group they belong to; empty if unknown


def clean(text: str, length: int = _NAME_LENGTH) -> str:
    """Return a sender's text so that it can be echoed: shortened, and without control and formatting characters."""
    return "".join(letter for letter in text if unicodedata.category(letter)[0] != "C")[:length]


async def judge_files(
    state: AppState, intake: Intake, files: Iterable[LabeledFile], origin: Origin, archive: str = ""
) -> UploadAnswer:
    """Judge files in their order and keep those that are not rejected; the number of rejected ones is recorded.

    The files, perhaps of an ``archive`` of this name, are read in a thread, a few at a time.

    Raises:
        LesionError: The server, not a file, is at fault (5xx). Files that were judged before stay as they are, and the
            same upload again does not change them.
    """
    answer = UploadAnswer(accepted=[], quarantined=[], rejected=[])
    remaining, first = iter(files), True
    while True:
        try:
            batch = await asyncio.to_thread(lambda: list(islice(remaining, _BATCH)))
        except LesionError as error:
            if first:
                raise
            _reject(answer, archive, error)  # the archive is damaged in the middle
            break
        if not batch:
            break
        first = False
        examinations = await asyncio.gather(*(_examine(state, file) for file in batch))
        for file, examination in zip(batch, examinations, strict=True):
            if isinstance(examination, LesionError):
                _reject(answer, file.name, examination)
            else:
                await _process(intake, answer, file, examination, origin)
    if answer.rejected:
        codes = Counter(file.code for file in answer.rejected)
        await asyncio.to_thread(intake.note_rejected, codes, source=origin.source, uploader=origin.uploader)
    return answer


async def _examine(state: AppState, file: LabeledFile) -> Examination | LesionError:
    """Decode one file, and ask for the champion's opinion if its label is a class; return a fault of the file."""
    if isinstance(file.content, LesionError):
        return file.content
    loop = asyncio.get_running_loop()
    try:
        record = await loop.run_in_executor(_decoders, examine, file.content, state.settings.image_limits)
        return record, await _opinion(state, file.content) if file.label in state.bundle.classes else None
    except LesionError as error:
        if _is_server_fault(error):
            raise
        return error


async def _opinion(state: AppState, data: bytes) -> ModelOpinion:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await state.dispatcher.opinion(data)
        except BusyError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_PAUSE_S)


async def _process(
    intake: Intake, answer: UploadAnswer, file: LabeledFile, examination: Examination, origin: Origin
) -> None:
    record, opinion = examination
    assert isinstance(file.content, bytes)
    upload = Upload(record, file.label, origin.uploader, opinion, origin.source, origin.patient)
    try:
        decision = await asyncio.to_thread(intake.process, upload, file.content)
    except LesionError as error:
        if _is_server_fault(error):
            raise
        _reject(answer, file.name, error)
        return
    UPLOADS.labels(decision.status, decision.code).inc()
    name, reason = clean(file.name), {"code": decision.code, "reason": decision.reason}
    if decision.status not in (ACCEPTED, QUARANTINED):
        answer.rejected.append(RejectedFile(name=name, **reason))
        return
    images = answer.accepted if decision.status == ACCEPTED else answer.quarantined
    images.append(JudgedImage(name=name, sha256=record.sha256, label=file.label, **reason))


def _reject(answer: UploadAnswer, name: str, error: LesionError) -> None:
    UPLOADS.labels(REJECTED, error.code).inc()
    answer.rejected.append(RejectedFile(name=clean(name), code=error.code, reason=error.message))


def _is_server_fault(error: LesionError) -> bool:
    return status_of(error) >= 500
