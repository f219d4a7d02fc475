"""The device that took a picture: maker and model, as EXIF and DICOM name them."""

import struct

from lesion.imaging.orientation import first_directory

_MAKE, _MODEL = 271, 272
_TEXT = 2  # the type of a value
_MAX_BYTES = 64  # of each text
_MAX_NAME = 100  # characters


def device_name(maker: str, model: str) -> str:
    """Join maker and model to one name without control characters; a model often repeats its maker."""
    maker, model = (" ".join("".join(c if c.isprintable() else " " for c in text).split()) for text in (maker, model))
    repeated = not maker or model.casefold().startswith(maker.casefold())
    return (model or maker if repeated else f"{maker} {model}".strip())[:_MAX_NAME]


def exif_device(exif: bytes) -> str:
    """Return the device that an EXIF block, or a TIFF file, names in its first directory; empty without one.

    Damaged metadata must not make a picture unreadable.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order, positions = first_directory(exif)
    found: dict[int, str] = {}
    try:
        for position in positions:
            tag, kind, number, place = struct.unpack_from(order + "HHII", exif, position)
            if tag in (_MAKE, _MODEL) and kind == _TEXT:
                place = place if number > 4 else position + 8
                text = exif[place : place + min(number, _MAX_BYTES)].partition(b"\0")[0]
                found.setdefault(tag, text.decode("utf-8", "replace"))
    except struct.error:
        pass
    return device_name(found.get(_MAKE, ""), found.get(_MODEL, ""))
