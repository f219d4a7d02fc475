"""What the users send, and what is wrong with a response: no response is trusted because of its status alone."""

import base64
import json
from collections.abc import Mapping
from typing import Any, Protocol
from uuid import uuid4

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
