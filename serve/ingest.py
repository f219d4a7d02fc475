"""Judges uploaded files one by one: decoded here, assessed by the champion, and handed to the intake in order."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from lesion.core.errors import LesionError
from lesion.core.text import clean_name
from lesion.data.inspection import ImageRecord, examine_received
from lesion.database.tables import ACCEPTED, QUARANTINED, REJECTED
from lesion.identity.pseudonyms import Pseudonyms
from lesion.identity.received_files import ReceivedFile
from lesion.imaging.refusals import ImageMemoryError
from lesion.intake.intake import Intake
from lesion.intake.uploads import Decision, ModelOpinion, Upload
from lesion.intake.zip_reader import LabeledFile
from serve import senders
from serve.http.dependencies import AppState
from serve.http.problems import status_of
from serve.http.schemas import ClassPreview, JudgedImage, RejectedFile, UploadAnswer, UploadPreview
from serve.inference.large_images import small_only
from serve.observability.prometheus import UPLOADS
from serve.request_errors import BusyError

_BATCH = 8  # files of one upload that are examined at the same time
_PATIENCE_S = 20.0  # how long a file waits for a free inference worker
_PAUSE_S = 0.25
_decoders = ThreadPoolExecutor(2, "examine")  # for all uploads; large images are decoded in another process


@dataclass(frozen=True, slots=True)
class Examined:
    """A file that can be decoded."""

    name: str  # as its sender calls it
    received: ReceivedFile  # as it may be stored
    record: ImageRecord  # the facts of what may be stored
    opinion: ModelOpinion | None  # the champion's; None if the label is no class


Judge = Callable[[Examined, Upload], Decision]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where files come from."""

    source: str  # upload or feedback
    uploader: str  # who sent them
    group: str = ""  # what they have in common, as the sender calls it; empty if unknown
    may_correct: bool = False  # whether the sender may change the label of an image that is stored


async def judge_files(
    state: AppState,
    intake: Intake,
    files: Iterable[LabeledFile],
    origin: Origin,
    archive: str = "",
    *,
    dry_run: bool = False,
) -> UploadAnswer:
    """Judge files in their order and keep those that are not rejected; the number of rejected ones is recorded.

    The files, perhaps of an ``archive`` of this name, are read in a thread, a few at a time. In a ``dry_run`` nothing
    is stored or recorded, and the answer is an UploadPreview: copies within the upload are found by their pixels.

    Raises:
        LesionError: The server, not a file, is at fault (5xx). Files that were judged before stay as they are, and the
            same upload again does not change them.
    """
    senders.current.set(senders.NOBODY)  # what was sent is kept, even if its sender does not wait so long
    answer = UploadAnswer(accepted=[], quarantined=[], rejected=[])
    if dry_run:
        answer = UploadPreview(accepted=[], quarantined=[], rejected=[], classes={})
    judge = _Rehearsal(intake) if dry_run else _keep_with(intake)
    remaining, first, pictures = iter(files), True, set[str]()
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
        examinations = await asyncio.gather(*(_examine(state, file, intake.pseudonyms) for file in batch))
        for file, examination in zip(batch, examinations, strict=True):
            if isinstance(examination, LesionError):
                _reject(answer, file.name, examination, file.label)
                continue
            patient = examination.received.patient or intake.pseudonyms.patient(origin.group)
            upload = _upload(examination, file.label, origin, patient)
            # One picture under two classes in the same upload is a contradiction, not a correction.
            upload = replace(upload, may_correct=origin.may_correct and upload.image.pixel_sha256 not in pictures)
            pictures.add(upload.image.pixel_sha256)
            await _process(judge, answer, examination, upload)
    if answer.rejected and not dry_run:
        codes = Counter(file.code for file in answer.rejected)
        await asyncio.to_thread(intake.note_rejected, codes, source=origin.source, uploader=origin.uploader)
    return answer


async def _examine(state: AppState, file: LabeledFile, pseudonyms: Pseudonyms) -> Examined | LesionError:
    """Decode one file, and ask for the champion's opinion if its label is a class; return a fault of the file."""
    if isinstance(file.content, LesionError):
        return file.content
    loop, limits = asyncio.get_running_loop(), state.settings.image_limits
    receive = partial(examine_received, pseudonyms=pseudonyms)
    try:
        try:
            received, record = await loop.run_in_executor(_decoders, receive, file.content, small_only(limits))
        except ImageMemoryError:
            received, record = await state.dispatcher.large_images.call(receive, file.content, limits)
        opinion = await _opinion(state, file.content) if file.label in state.bundle.classes else None
    except LesionError as error:
        if _is_server_fault(error):
            raise
        return error
    return Examined(file.name, received, record, opinion)


def _upload(examined: Examined, label: str, origin: Origin, patient: str) -> Upload:
    return Upload(
        examined.record,
        label,
        origin.uploader,
        examined.opinion,
        origin.source,
        patient,
        sent_hash=examined.received.sent_hash,
        text_in_pixels=examined.received.text_in_pixels,
    )


async def _opinion(state: AppState, data: bytes) -> ModelOpinion:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await state.dispatcher.opinion(data)
        except BusyError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_PAUSE_S)


class _Rehearsal:
    """Judges the files of one upload without storing them, so it remembers them itself."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._seen = dict[str, tuple[str, str, str]]()  # hash, label and name of the first file, by its pixels

    def __call__(self, file: Examined, upload: Upload) -> Decision:
        """Return the decision about a file, as if those before it had been stored."""
        decision = self._intake.judge(upload)
        if not decision.split:
            return decision
        this = upload.image.sha256, upload.label, file.name
        first = self._seen.setdefault(upload.image.pixel_sha256, this)
        if first is this:
            return decision
        sha256, label, name = first
        if label != upload.label:
            reason = f"The same picture is in this upload as {clean_name(name)!r}, under {label}."
            return Decision(REJECTED, "label_conflict", reason)
        if sha256 == upload.image.sha256:
            return Decision(
                decision.status, "already_known", f"The same file is in this upload as {clean_name(name)!r}."
            )
        return Decision(REJECTED, "duplicate", f"The same picture is in this upload as {clean_name(name)!r}.")


def _keep_with(intake: Intake) -> Judge:
    def judge(file: Examined, upload: Upload) -> Decision:
        return intake.process(upload, file.received.data)

    return judge


async def _process(judge: Judge, answer: UploadAnswer, file: Examined, upload: Upload) -> None:
    try:
        decision = await asyncio.to_thread(judge, file, upload)
    except LesionError as error:
        if _is_server_fault(error):
            raise
        _reject(answer, file.name, error, upload.label)
        return
    _count(answer, decision.status, decision.code, upload.label)
    name, reason = clean_name(file.name), {"code": decision.code, "reason": decision.reason}
    if decision.status not in (ACCEPTED, QUARANTINED):
        answer.rejected.append(RejectedFile(name=name, **reason))
        return
    images = answer.accepted if decision.status == ACCEPTED else answer.quarantined
    images.append(JudgedImage(name=name, sha256=decision.known_as or file.record.sha256, label=upload.label, **reason))


def _reject(answer: UploadAnswer, name: str, error: LesionError, label: str = "") -> None:
    _count(answer, REJECTED, error.code, label)
    answer.rejected.append(RejectedFile(name=clean_name(name), code=error.code, reason=error.message))


def _count(answer: UploadAnswer, status: str, code: str, label: str) -> None:
    """Count a file in the metrics or, in a dry run, under its label in the answer."""
    if not isinstance(answer, UploadPreview):
        UPLOADS.labels(status, code).inc()
    elif label:
        counts = answer.classes.setdefault(clean_name(label), ClassPreview())
        setattr(counts, status, getattr(counts, status) + 1)


def _is_server_fault(error: LesionError) -> bool:
    return status_of(error) >= 500
