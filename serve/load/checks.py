"""What the users send, mistakes among it, and what is wrong with a response, whatever its status."""

import base64
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from serve.load.samples import encode, scan

BOUNDARY = uuid4().hex
FORM = f"multipart/form-data; boundary={BOUNDARY}"
PROBLEM = "application/problem+json"


class Response(Protocol):
    """The parts of a response that are checked; Locust's responses have them."""

    status_code: int
    text: str | None
    headers: Any

    def json(self) -> Any:  # noqa: ANN401 - JSON's values
        """Return the content."""


def form(files: Mapping[str, bytes], field: str = "file", **texts: str) -> bytes:
    """Return a multipart body of texts and of files, all in one field."""
    parts = [(f'name="{name}"', value.encode()) for name, value in texts.items()]
    parts += [(f'name="{field}"; filename="{name}"', content) for name, content in files.items()]
    lines = [
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content for head, content in parts
    ]
    return b"\r\n".join([*lines, f"--{BOUNDARY}--\r\n".encode()])


def status_fault(response: Response) -> str:
    """Describe the status of a response that is not 200 although it should be."""
    return f"status {response.status_code}: {(response.text or '')[:200]}"


def prediction_fault(response: Response, explain: bool) -> str:
    """Describe what is wrong with the response to an image; empty when nothing is."""
    if response.status_code != 200:
        return status_fault(response)
    prediction = response.json()
    probabilities = prediction["probabilities"]
    if abs(sum(probabilities.values()) - 1.0) > 1e-4:
        return f"the probabilities sum to {sum(probabilities.values())}"
    if max(probabilities, key=probabilities.get) != prediction["predicted_class"]:
        return f"{prediction['predicted_class']} is not the most probable of {probabilities}"
    if _header(response, "X-Request-ID") != prediction["request_id"]:
        return "the request ids differ"
    if explain and not base64.b64decode(prediction["explanation"]["overlay_png_base64"]).startswith(b"\x89PNG"):
        return "the overlay is not a PNG file"
    return ""


def refusal_fault(response: Response, status: int, code: str) -> str:
    """Describe what is wrong with the refusal of a request that must be refused; empty when it is the right one."""
    text = response.text or ""
    if response.status_code != status:
        return f"status {response.status_code} for {status} {code}: {text[:200]}"
    if not _header(response, "Content-Type").startswith(PROBLEM):
        return f"the refusal is no problem document: {text[:200]}"
    problem = json.loads(text)
    if problem["code"] != code or not problem["detail"]:
        return f"the refusal is {problem['code']}, not {code}: {problem['detail']}"
    return ""


def upload_fault(response: Response, sent: int, repeated: bool) -> str:
    """Describe what is wrong with the response to an upload; empty when nothing is."""
    if response.status_code != 200:
        return status_fault(response)
    outcome = {name: images for name, images in response.json().items() if isinstance(images, list)}
    judged = sum(map(len, outcome.values()))
    if judged != sent:
        return f"{judged} of {sent} images were judged"
    stored = [image for name, images in outcome.items() if name != "rejected" for image in images]
    again = [image for image in stored if repeated and image["code"] != "already_known"]
    return f"an image that was sent twice was accepted twice: {again[0]}" if again else ""


def _header(response: Response, name: str) -> str:
    return str(response.headers.get(name) or "") if response.headers else ""


class Mistake(NamedTuple):
    """A request that must be refused, with the status and the code of the refusal."""

    name: str
    status: int
    code: str
    body: bytes = b""
    path: str = "/predict"
    media_type: str = FORM
    method: str = "POST"


_GOOD = encode(scan(0), "JPEG", quality=90)
_BOMB = b"\x89PNG\r\n\x1a\n" + b"".join(
    struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    for name, body in (
        (b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(9999))),
        (b"IEND", b""),
    )
)
MISTAKES = (
    Mistake("empty file", 400, "image_empty", form({"a.png": b""})),
    Mistake("no image", 415, "image_not_recognised", form({"a.jpg": b"This is not a picture.\n" * 40})),
    Mistake("half an image", 422, "image_truncated", form({"a.jpg": _GOOD[: len(_GOOD) // 2]})),
    Mistake("tiny image", 422, "image_too_small", form({"a.png": encode(scan(0)[:4, :4], "PNG")})),
    Mistake("huge image", 413, "image_too_many_pixels", form({"a.png": _BOMB})),
    Mistake("no file", 400, "file_missing", form({}, note="hello")),
    Mistake("JSON", 415, "media_type_not_supported", b"{}", media_type="application/json"),
    Mistake("stray class", 422, "class_without_explain", form({"a.jpg": _GOOD}), path="/predict?class=x"),
    Mistake("unknown class", 422, "class_unknown", form({"a.jpg": _GOOD}), path="/predict?explain=true&class=no-such"),
    Mistake("unknown path", 404, "not_found", path="/predictions", method="GET"),
    Mistake("wrong method", 405, "method_not_allowed", method="GET"),
)
