"""Reads the one image of a request: the multipart field ``file``, or the raw body."""

from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile

from lesion.imaging.refusals import EmptyImageError
from serve.request_errors import MediaTypeError, RequestError

FIELD = "file"
_MAX_FIELDS = 16
_RAW = frozenset({"application/octet-stream", "application/dicom", ""})
_BINARY = {"schema": {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}}

REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "One image: as the multipart field `file`, or alone as the body.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: {"type": "string", "format": "binary", "description": "The image file."}},
            },
            "encoding": {FIELD: {"contentType": "image/*, application/octet-stream, application/dicom"}},
        },
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
        "application/dicom": _BINARY,
    },
}


async def read_image(request: Request) -> bytes:
    """Return the bytes of the image in a request.

    Raises:
        RequestError: There is no file (``file_missing``).
        MediaTypeError: The body has another type.
        EmptyImageError: The file is empty.
        HTTPException: The multipart body is malformed (400).
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        data = await _read_form(request)
    elif media_type in _RAW or media_type.startswith("image/"):
        data = await request.body()
    else:
        raise MediaTypeError(
            f"A body of type {media_type[:80]!r} is not accepted. Send the image as the multipart field '{FIELD}', or "
            "alone as the body with a content type such as image/png or application/octet-stream."
        )
    if not data:
        raise EmptyImageError("The image is empty: 0 bytes arrived. Send the file's content.")
    return data


async def _read_form(request: Request) -> bytes:
    async with request.form(max_files=1, max_fields=_MAX_FIELDS) as form:
        file = form.get(FIELD)
        if not isinstance(file, UploadFile):
            fields = ", ".join(sorted({name[:40] for name in form})) or "none"
            raise RequestError(
                f"There is no file in the multipart field '{FIELD}' (fields: {fields}). "
                f"Send the image there, for example with curl -F {FIELD}=@image.png.",
                code="file_missing",
            )
        return await file.read()
