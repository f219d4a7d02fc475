"""Requests that must be refused, with the status and the code of each refusal."""

import struct
import zlib
from typing import NamedTuple

from serve.load.checks import FORM, form
from serve.load.samples import encode, scan


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
