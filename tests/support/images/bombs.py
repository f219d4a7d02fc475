"""Files within the limits of bytes and pixels that a careless decoder would spend minutes or gigabytes on."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from tests.support.images.dicom_files import dicom_file
from tests.support.images.hostile import chunk, encode, gradient, png, tiff

_UNDEFINED = b"\xff\xff\xff\xff"
_ITEM, _ITEM_END, _SEQUENCE_END = (struct.pack("<HH", 0xFFFE, number) for number in (0xE000, 0xE00D, 0xE0DD))
_NO_LENGTH = bytes(4)
_NO_ITEM, _NO_MORE = _ITEM + _NO_LENGTH, _SEQUENCE_END + _NO_LENGTH
_PIXELS = struct.pack("<HH", 0x7FE0, 0x0010)
_VOI_TABLES = (0x0028, 0x3010)


def dicom_with(elements: bytes, before: bytes = _PIXELS) -> bytes:
    """A file with further elements before one of its own."""
    data = dicom_file(gradient()[..., 0].copy())
    place = data.rindex(before)
    return data[:place] + elements + data[place:]


def element(group: int, number: int, kind: bytes, value: bytes, length: bytes = b"") -> bytes:
    """An explicit element of a kind whose length has four bytes."""
    return struct.pack("<HH", group, number) + kind + b"\0\0" + (length or struct.pack("<I", len(value))) + value


def j2k_header(side: int, *, tile: int, block: int, precinct: int | None = None, levels: int = 0) -> bytes:
    """A JPEG 2000 stream of gray without any data: the exponents of code-blocks (less 2) and of precincts."""
    size = struct.pack(">HHIIIIIIIIH", 41, 0, side, side, 0, 0, tile, tile, 0, 0, 1) + b"\7\1\1"
    style = bytes([precinct is not None, 0, 0, 1, 0, levels, block, block, 0, 1])
    style += b"" if precinct is None else bytes([precinct] * (levels + 1))
    steps = b"\x40" + b"\x40" * (3 * levels + 1)
    head = b"\xff\x4f\xff\x51" + size
    for marker, content in ((b"\xff\x52", style), (b"\xff\x5c", steps)):
        head += marker + struct.pack(">H", 2 + len(content)) + content
    data = b"\xff\x93" + bytes(16)
    return head + b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 12 + len(data), 0, 1) + data + b"\xff\xd9"


def j2k_dicom(side: int, **style: int) -> bytes:
    """A DICOM file of such a stream."""
    pixels = encapsulate([j2k_header(side, **style)])
    return dicom_file(pixels, syntax=JPEG2000Lossless, shape=(1, 1), Rows=side, Columns=side)


def tiles(count: int, side: int = 16) -> bytes:
    """A gray TIFF of so many tiles, all of which are the same bytes of the file."""
    across = 256
    tile = zlib.compress(bytes(side * side))
    body = tile + bytes(len(tile) % 2)
    places, lengths = 8 + len(body), 8 + len(body) + 4 * count
    body += struct.pack("<I", 8) * count + struct.pack("<I", len(tile)) * count
    sides = [(256, 4, 1, across * side), (257, 4, 1, count // across * side)]
    kind = [(258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    return tiff(
        [*sides, *kind, (322, 3, 1, side), (323, 3, 1, side), (324, 4, count, places), (325, 4, count, lengths)],
        body=body,
    )


def strips(count: int, width: int = 100) -> bytes:
    """A gray TIFF with a strip for each row, all of which are the same bytes of the file."""
    strip = zlib.compress(bytes(width))
    body = strip + bytes(len(strip) % 2)
    places, lengths = 8 + len(body), 8 + len(body) + 4 * count
    body += struct.pack("<I", 8) * count + struct.pack("<I", len(strip)) * count
    sides = [(256, 4, 1, width), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1)]
    return tiff([*sides, (273, 4, count, places), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, count, lengths)], body=body)


def before_the_size(segment: bytes, count: int) -> bytes:
    """A JPEG with so many further segments at its beginning."""
    photo = encode(gradient(), "JPEG")
    return photo[:2] + segment * count + photo[2:]


def inflating_twice() -> bytes:
    """A DICOM file that says only behind 4 KiB of file information that it is deflated; it inflates to 200 MB."""
    data = dicom_file(np.zeros((64, 64), np.uint8), syntax=DeflatedExplicitVRLittleEndian)
    place = data.index(struct.pack("<HH", 2, 0x10))
    (length,) = struct.unpack_from("<H", data, place + 6)
    information = data[: place + 8 + length]
    filling = element(2, 4, b"OB", bytes(3000)) + element(2, 5, b"OB", bytes(3000))
    place = information.index(struct.pack("<HH", 2, 0x10))
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = b"".join([*(packer.compress(bytes(2**20)) for _ in range(200)), packer.flush()])
    return information[:place] + filling + information[place:] + packed


def nested(depth: int) -> bytes:
    head = element(*_VOI_TABLES, b"SQ", b"", _UNDEFINED) + _ITEM + _UNDEFINED
    end = _ITEM_END + _NO_LENGTH + _NO_MORE
    return dicom_with(head * depth + end * depth)


def nested_with_lengths(depth: int) -> bytes:
    """Each sequence is the value of the only element of the item around it."""
    value = b""
    for _ in range(depth):
        item = _ITEM + struct.pack("<I", len(value)) + value
        value = element(*_VOI_TABLES, b"SQ", item)
    return dicom_with(value)


# What is sent, and the refusal's code and a part of its message; none: it is decoded. The scale is 1 for the largest.
REFUSED: dict[str, tuple[Callable[[float], bytes], str, str]] = {
    "elements.dcm": (
        lambda scale: dicom_with(element(0x5001, 0x1000, b"UN", b"") * int(1_600_000 * scale)),
        "image_corrupt", "more than 16,384 elements",
    ),
    "items.dcm": (
        lambda scale: dicom_with(element(
            0x5001, 0x1000, b"SQ", _NO_ITEM * int(2_500_000 * scale) + _NO_MORE, _UNDEFINED
        )),
        "image_corrupt", "more than 16,384 elements",
    ),
    "items_of_a_table.dcm": (
        lambda scale: dicom_with(element(*_VOI_TABLES, b"SQ", _NO_ITEM * int(2_500_000 * scale))),
        "image_corrupt", r"element \(0028,3010\) has",
    ),
    "few_items_of_a_table.dcm": (
        lambda scale: dicom_with(element(*_VOI_TABLES, b"SQ", _NO_ITEM * 30_000)),
        "image_corrupt", "more than 4,096 elements",
    ),
    "nested.dcm": (lambda scale: nested(int(500_000 * scale)), "image_corrupt", "damaged"),
    "nested_with_lengths.dcm": (lambda scale: nested_with_lengths(4000), "image_corrupt", "damaged"),
    "numbers.dcm": (
        lambda scale: dicom_with(element(0x0028, 0x1050, b"UN", b"1\\" * int(10_000_000 * scale))),
        "image_corrupt", r"element \(0028,1050\) has",
    ),
    "character_sets.dcm": (
        lambda scale: dicom_with(
            element(0x0008, 0x0005, b"UN", b"A\\" * int(10_000_000 * scale)), struct.pack("<HH", 0x10, 0x10) + b"PN"
        ),
        "image_corrupt", r"element \(0008,0005\) has",
    ),
    "fragments.dcm": (
        lambda scale: dicom_with(b"").partition(_PIXELS)[0] + element(
            0x7FE0, 0x0010, b"OB", _NO_ITEM * int(2_500_000 * scale) + _NO_MORE, _UNDEFINED
        ),
        "image_corrupt", "more than 16,384 elements",
    ),
    "pixels_are_a_sequence.dcm": (
        lambda scale: dicom_with(b"").partition(_PIXELS)[0]
        + element(0x7FE0, 0x0010, b"SQ", _NO_ITEM * int(2_500_000 * scale)),
        "image_corrupt", r"element \(7FE0,0010\) is of the kind SQ",
    ),
    "inflating_unseen.dcm": (lambda scale: inflating_twice(), "image_corrupt", "deflated in an unusual way"),
    "precincts.dcm": (
        lambda scale: j2k_dicom(7000, tile=7000, block=0, precinct=0x11), "image_corrupt", "is cut into"
    ),
    "code_blocks.dcm": (lambda scale: j2k_dicom(7000, tile=7000, block=0), "image_corrupt", "is cut into"),
    "tiles.dcm": (lambda scale: j2k_dicom(2000, tile=8, block=4), "image_corrupt", "is cut into"),
    "tiles.tif": (lambda scale: tiles(195_072), "image_corrupt", "195,072 strips or tiles, more than 32,768"),
    "strips.tif": (lambda scale: strips(130_000), "image_corrupt", "130,000 strips or tiles, more than 32,768"),
    "segments.jpg": (
        lambda scale: before_the_size(b"\xff\xe0\0\2", 70_000), "image_corrupt", "more than 65,536 segments"
    ),
    "chunks.png": (
        lambda scale: png(64, 48, *[chunk(b"IDAT", b"")] * 70_000), "image_corrupt", "more than 65,536 chunks"
    ),
}  # fmt: skip

DECODED: dict[str, Callable[[], bytes]] = {
    "tiles.tif": lambda: tiles(32_768),
    "strips.tif": lambda: strips(32_000),
    "quantization_tables.jpg": lambda: before_the_size(b"\xff\xdb\0\x43\0" + b"\1" * 64, 65_000),
    "restart_intervals.jpg": lambda: before_the_size(b"\xff\xdd\0\4\0\0", 65_000),
    "chunks.png": lambda: png(64, 48, *[chunk(b"IDAT", b"")] * 65_000, chunk(b"IDAT", zlib.compress(bytes(193 * 48)))),
    "texts.png": lambda: png(
        64,
        48,
        *[chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(50 * 2**20)))] * 300,
        chunk(b"IDAT", zlib.compress(bytes(193 * 48))),
    ),
    "thumbnail.jpg": lambda: before_the_size(
        b"\xff\xe1\xff\xfd" + (b"Exif\0\0" + b"II*\0\x08\0\0\0\xff\xff").ljust(0xFFFB, b"\1"), 300
    ),
    "precincts_as_usual.dcm": lambda: j2k_dicom(2048, tile=2048, block=4, precinct=0x77, levels=5),
}
