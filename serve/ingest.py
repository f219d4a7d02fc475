"""Judges uploaded files one by one: decoded here, assessed by the champion, and handed to the intake in order."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice

from lesion.core.errors import LesionError
from lesion.core.text import clean_name
from lesion.database.tables import ACCEPTED, QUARANTINED, REJECTED
from lesion.intake.intake import Intake
from lesion.intake.uploads import Decision, Upload
from lesion.intake.zip_reader import LabeledFile
from serve import senders
from serve.file_examination import Examined, examine_all, is_server_fault
from serve.http.dependencies import AppState
from serve.http.schemas import ClassPreview, JudgedImage, RejectedFile, UploadAnswer, UploadPreview
from serve.observability.prometheus import UPLOADS

_BATCH = 8  # files of one upload that are examined at the same time

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
        examinations = await examine_all(state, batch, intake.pseudonyms)
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
        if is_server_fault(error):
            raise
        _reject(answer, file.name, error, upload.label)
        return
    _count(answer, decision.status, decision.code, upload.label)
    name, reason = clean_name(file.name), {"code": decision.code, "reason": decision.reason}
    if decision.status not in (ACCEPTED, QUARANTINED):
        answer.rejected.append(RejectedFile(name=name, **reason))
        return
    images = answer.accepted if decision.status == ACCEPTED else answer.quarantined
    sha256, changes = decision.known_as or file.record.sha256, list(decision.changes)
    images.append(JudgedImage(name=name, sha256=sha256, label=upload.label, changes=changes, **reason))


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
