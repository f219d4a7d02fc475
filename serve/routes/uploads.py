"""``POST /upload_training_data`` and ``POST /feedback``: labeled images for the next retraining."""

from collections.abc import Collection, Iterable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import FormData, UploadFile

from lesion.catalogue.feedback_undo import undo_feedback
from lesion.core.errors import InvalidValueError, LesionError, UnsupportedTypeError
from lesion.core.text import clean_name
from lesion.intake.archive_layout import START_BYTES, is_archive
from lesion.intake.uploads import match_class
from lesion.intake.zip_reader import LabeledFile, ZipLimits, read_zip
from serve.http.dependencies import KeyFirstRoute, PrincipalDep, StateDep, StorageDep, StorageServicesDep, require
from serve.http.openapi import refusals
from serve.http.schemas import UploadAnswer, UploadPreview
from serve.ingest import Origin, judge_files
from serve.request_errors import missing_file

MAX_FILES = 1000
MAX_LABEL = 200
_MAX_FIELDS = 8
_REFUSALS = {
    400: "There is no file, or the multipart body is malformed.",
    404: "This server has no storage.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not a multipart form.",
    422: "The label is missing, or the archive is refused as a whole.",
    503: "No inference worker is ready, or the store or database does not answer. Send it again; it is stored once.",
}
_TEXT = {"type": "string", "maxLength": MAX_LABEL}
_FILE = {"type": "string", "format": "binary"}

router = APIRouter(
    route_class=KeyFirstRoute,
    tags=["training data"],
    dependencies=[require("contributor")],
    responses=refusals(_REFUSALS),
)


def _form_body(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "required": required, "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@router.post(
    "/upload_training_data",
    summary="Give labeled images",
    openapi_extra=_form_body(
        {
            "files": {
                "type": "array",
                "items": _FILE,
                "maxItems": MAX_FILES,
                "description": "Images of one class; or one ZIP archive with a folder for each class. GET /info has "
                "the limits.",
            },
            "label": _TEXT | {"description": "The class of every file; may be left out for an archive with folders."},
            "group": _TEXT
            | {
                "description": "What the files have in common, such as the patient, of which a keyed hash is kept. Of "
                "a DICOM file its own Patient ID counts."
            },
        },
        ["files"],
    ),
)
async def upload_training_data(
    request: Request,
    state: StateDep,
    services: StorageServicesDep,
    principal: PrincipalDep,
    dry_run: Annotated[
        bool, Query(description="Store nothing: answer which classes were found and what would become of each file.")
    ] = False,
) -> UploadPreview | UploadAnswer:
    """Judge each file separately: kept, put in quarantine, or rejected. The same upload again changes nothing.

    An image that is stored under another label gets the new one if an admin sends it (``label_corrected``); from others
    it is rejected (``label_conflict``).
    """
    state.dispatcher.check_room()
    _check_multipart(request)
    async with request.form(max_files=MAX_FILES, max_fields=_MAX_FIELDS) as form:
        files = _files(form, "files")
        label, group = _label(form, state.bundle.classes), _text(form, "group")
        origin = Origin("upload", str(principal), group, may_correct=principal.may("admin"))
        if len(files) == 1 and _is_archive(files[0]):
            limits = ZipLimits(max_file_bytes=state.settings.max_image_bytes)
            images: Iterable[LabeledFile] = read_zip(files[0].file, limits, label or None, state.bundle.classes)
        else:
            images = _read(files, _required(label))
        return await judge_files(state, services.intake, images, origin, files[0].filename or "", dry_run=dry_run)


@router.post(
    "/feedback",
    summary="Correct the class of an image",
    openapi_extra=_form_body(
        {"file": _FILE, "label": _TEXT | {"description": "The right class."}, "group": _TEXT}, ["file", "label"]
    ),
)
async def feedback(
    request: Request, state: StateDep, services: StorageServicesDep, principal: PrincipalDep
) -> UploadAnswer:
    """Send one image with its right class, such as one that was predicted wrongly; it is judged like any upload."""
    state.dispatcher.check_room()
    _check_multipart(request)
    async with request.form(max_files=1, max_fields=_MAX_FIELDS) as form:
        files = _files(form, "file")
        origin = Origin("feedback", str(principal), _text(form, "group"), may_correct=principal.may("admin"))
        images = _read(files, _required(_label(form, state.bundle.classes)))
        return await judge_files(state, services.intake, images, origin)


class FeedbackUndo(BaseModel):
    """Which changes are taken back."""

    model_config = ConfigDict(extra="forbid")

    changes: list[Annotated[int, Field(ge=1, le=2**63 - 1)]] = Field(
        min_length=1, max_length=100, description="The `changes` of the answer to your feedback."
    )


class UndoneImage(BaseModel):
    """An image after feedback was taken back."""

    sha256: str
    status: str = Field(description="`dropped` if the feedback had stored it.")
    label: str


class UndoneFeedback(BaseModel):
    """The images whose feedback was taken back."""

    images: list[UndoneImage]


@router.post(
    "/feedback/undo",
    summary="Take feedback back",
    responses=refusals({404: "No such change by this key.", 409: "The image was changed since, or a day has passed."}),
)
def undo(storage: StorageDep, principal: PrincipalDep, which: FeedbackUndo) -> UndoneFeedback:
    """Take back what your own feedback stored or corrected less than a day ago, while nothing else was done with it.

    An image that the feedback stored is dropped, and may be sent again; a label that it corrected becomes what it was.
    """
    with storage.session() as session:
        rows = undo_feedback(session, which.changes, str(principal))
        return UndoneFeedback(
            images=[UndoneImage(sha256=row.sha256, status=row.status, label=row.label) for row in rows]
        )


def _check_multipart(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "multipart/form-data":
        raise UnsupportedTypeError(
            f"A body of type {media_type[:80]!r} is not accepted. Send a multipart form with files and a label, for "
            "example with curl -F label=CLASS -F files=@image.png.",
            code="media_type_not_supported",
        )


def _files(form: FormData, field: str) -> list[UploadFile]:
    sent = [*form.getlist(field), *form.getlist(f"{field}[]")]  # some libraries add [] to the name of a list
    files = [file for file in sent if isinstance(file, UploadFile)]
    if not files:
        raise missing_file(form, field)
    return files


def _text(form: FormData, field: str) -> str:
    """Return a text field; empty if it is missing."""
    values = set(form.getlist(field))
    if len(values) > 1:
        raise InvalidValueError(
            f"The field '{field}' came with {len(values)} different values. Send one, with the files it is about.",
            code="field_repeated",
        )
    value = values.pop() if values else ""
    if not isinstance(value, str) or len(value) > MAX_LABEL or value != clean_name(value, MAX_LABEL):
        raise InvalidValueError(
            f"The field '{field}' must be plain text of at most {MAX_LABEL} characters.", code="field_invalid"
        )
    return value.strip()


def _label(form: FormData, classes: Collection[str]) -> str:
    """Return the class that the label means; empty if it is missing."""
    return match_class(_text(form, "label"), classes)


def _required(label: str) -> str:
    if not label:
        raise InvalidValueError(
            "The field 'label' is missing. Send the class of the files, for example with curl -F label=CLASS.",
            code="label_missing",
        )
    return label


def _is_archive(file: UploadFile) -> bool:
    start = file.file.read(START_BYTES)
    file.file.seek(0)
    return is_archive(start, file.filename or "")


def _read(files: list[UploadFile], label: str) -> Iterator[LabeledFile]:
    for file in files:
        content: bytes | LesionError
        if _is_archive(file):
            content = InvalidValueError(
                "An archive is unpacked only if it is the only file. Send it alone, as a ZIP.", code="archive_not_alone"
            )
        else:
            content = file.file.read()
        yield LabeledFile(file.filename or "", label, content)
