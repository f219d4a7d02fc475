"""The wire format of Protocol Buffers, as far as a look into an ONNX file needs it."""

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10


def read_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of each field: a whole number, or the bytes of a text, message or fixed number.

    A message that is not well-formed is a ValueError.
    """
    place = 0
    while place < len(message):
        tag, place = _read_varint(message, place)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise ValueError("a field has the number 0")
        if kind == _VARINT:
            value, place = _read_varint(message, place)
            yield number, value
            continue
        if kind == _BYTES:
            size, place = _read_varint(message, place)
        elif kind in _WIDTHS:
            size = _WIDTHS[kind]
        else:
            raise ValueError(f"field {number} has the unknown type {kind}")
        if size > len(message) - place:
            raise ValueError(f"field {number} has {size} bytes, of which {len(message) - place} are there")
        yield number, message[place : place + size]
        place += size


def read_packed(value: int | memoryview) -> list[int]:
    """Return the whole numbers of a repeated field: of one occurrence, or of all of them packed together."""
    if isinstance(value, int):
        return [value]
    numbers, place = [], 0
    while place < len(value):
        number, place = _read_varint(value, place)
        numbers.append(number)
    return numbers


def _read_varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return a whole number of variable length, and where it ends."""
    number = 0
    for shift, byte in enumerate(message[place : place + _MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return number, place + shift + 1
    raise ValueError("a number does not end")
