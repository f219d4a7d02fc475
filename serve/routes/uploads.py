"""``POST /upload_training_data`` and ``POST /feedback``: labelled images for the next retraining."""

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import FormData, UploadFile

from lesion.core.errors import LesionError
from lesion.intake.zip_reader import Member, ZipLimits, members
from serve.http import auth
from serve.http.auth import require
from serve.http.dependencies import storage_of
from serve.http.problems import RequestError
from serve.http.schemas import UploadAnswer
from serve.ingest import Origin, clean, judge_files

MAX_FILES = 1000
MAX_LABEL = 200
_MAX_FIELDS = 8
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_REFUSALS = {
    400: "There is no file, or the multipart body is malformed.",
    404: "This server has no storage.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is no multipart form.",
    422: "The label is missing, or the archive is refused as a whole.",
    503: "No worker is ready, or the store or the database does not answer. Send the same again: nothing comes twice.",
}
REFUSALS = auth.refusals(_REFUSALS)
_TEXT = {"type": "string", "maxLength": MAX_LABEL}
_FILE = {"type": "string", "format": "binary"}

router = APIRouter(tags=["training data"], dependencies=[require("contributor")], responses=REFUSALS)


def _form_body(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "required": required, "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@router.post(
    "/upload_training_data",
    summary="Give labelled images",
    openapi_extra=_form_body(
        {
            "files": {
                "type": "array",
                "items": _FILE,
                "maxItems": MAX_FILES,
                "description": "Images of one class; or one ZIP archive with a folder for each class.",
            },
            "label": _TEXT | {"description": "The class of every file; may be left out for an archive with folders."},
            "group": _TEXT | {"description": "What the files have in common, such as a pseudonym of the patient."},
        },
        ["files"],
    ),
)
async def upload_training_data(request: Request) -> UploadAnswer:
    """Judge every file by itself: kept, put in quarantine, or rejected. The same upload again changes nothing."""
    storage_of(request)
    request.app.state.dispatcher.check_room()
    _check_multipart(request)
    async with request.form(max_files=MAX_FILES, max_fields=_MAX_FIELDS) as form:
        files = _files(form, "files")
        label, group = _text(form, "label"), _text(form, "group")
        origin = Origin("upload", request.state.actor, group)
        if len(files) == 1 and _is_zip(files[0]):
            given = request.app.state.limits
            limits = ZipLimits(max_entries=given.max_archive_entries, max_file_bytes=given.max_image_bytes)
            found: Iterable[Member] = members(files[0].file, limits, label or None)
        else:
            found = _read(files, _required(label))
        return await judge_files(request.app.state, found, origin, files[0].filename or "")


@router.post(
    "/feedback",
    summary="Say what an image really shows",
    openapi_extra=_form_body(
        {"file": _FILE, "label": _TEXT | {"description": "The right class."}, "group": _TEXT}, ["file", "label"]
    ),
)
async def feedback(request: Request) -> UploadAnswer:
    """Give one image with its right class, such as one that was predicted wrongly; judged like any upload."""
    storage_of(request)
    request.app.state.dispatcher.check_room()
    _check_multipart(request)
    async with request.form(max_files=1, max_fields=_MAX_FIELDS) as form:
        files = _files(form, "file")
        origin = Origin("feedback", request.state.actor, _text(form, "group"))
        return await judge_files(request.app.state, _read(files, _required(_text(form, "label"))), origin)


def _check_multipart(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "multipart/form-data":
        raise RequestError(
            f"A body of type {media_type[:80]!r} is not taken. Send a multipart form with files and a label, for "
            "example with curl -F label=CLASS -F files=@image.png.",
            code="media_type_not_supported",
            status=415,
        )


def _files(form: FormData, field: str) -> list[UploadFile]:
    files = [each for each in form.getlist(field) if isinstance(each, UploadFile)]
    if not files:
        raise RequestError(
            f"There is no file in the multipart field '{field}'. Send one there, for example with curl -F "
            f"{field}=@image.png.",
            code="file_missing",
        )
    return files


def _text(form: FormData, field: str) -> str:
    """Return a text field, empty if it is not there."""
    value = form.get(field, "")
    if not isinstance(value, str) or len(value) > MAX_LABEL or value != clean(value, MAX_LABEL):
        raise RequestError(
            f"The field '{field}' must be plain text of at most {MAX_LABEL} characters.",
            code="field_invalid",
            status=422,
        )
    return value.strip()


def _required(label: str) -> str:
    if not label:
        raise RequestError(
            "The field 'label' is missing. Give the class of the files, for example with curl -F label=CLASS.",
            code="label_missing",
            status=422,
        )
    return label


def _is_zip(file: UploadFile) -> bool:
    start = file.file.read(4)
    file.file.seek(0)
    return start in _ZIP


def _read(files: list[UploadFile], label: str) -> Iterator[Member]:
    for file in files:
        content: bytes | LesionError
        if _is_zip(file):
            content = LesionError(
                "A ZIP archive is unpacked only if it is sent alone. Send it by itself.",
                code="archive_not_alone",
                status=422,
            )
        else:
            content = file.file.read()
        yield Member(file.filename or "", label, content)
