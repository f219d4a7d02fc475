"""Attacks by files within the limits of size: pictures and archives that take far more work than their bytes say."""

import io
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from itertools import cycle

from scripts.bench.attacks.target import Attack, Target, answer_of, repeat
from serve.load.samples import encode, scan

_SIDE = 7000  # 49 megapixels: just below the limit
_TILES = 150_000


def deep_png(channels: int, side: int = _SIDE) -> bytes:
    """Return a blank PNG of 16 bits, with 1 channel (gray) or 4 (color with transparency)."""
    color = {1: 0, 4: 6}[channels]
    row = bytes(1 + side * channels * 2)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 16, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_many_chunks(chunks: int = 400_000) -> bytes:
    """Return a small PNG whose data is preceded by empty chunks of no meaning."""
    picture = encode(scan(1, 64), "PNG")
    return picture[:33] + _chunk(b"teSt", b"") * chunks + picture[33:]


def tiff_of_many_tiles(tiles: int = _TILES) -> bytes:
    """Return a gray TIFF whose tiles of 16 × 16 pixels are all the same compressed bytes."""
    across = int(tiles**0.5)
    tile = zlib.compress(bytes(256), 9)
    count = across * across
    offsets_at = 8 + len(tile)
    sizes_at = offsets_at + 4 * count
    directory_at = sizes_at + 4 * count
    side = across * 16
    entries = [
        (256, 4, 1, side),
        (257, 4, 1, side),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (322, 4, 1, 16),
        (323, 4, 1, 16),
        (324, 4, count, offsets_at),
        (325, 4, count, sizes_at),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    offsets = struct.pack("<I", 8) * count
    sizes = struct.pack("<I", len(tile)) * count
    return b"II*\0" + struct.pack("<I", directory_at) + tile + offsets + sizes + directory + bytes(4)


def jpeg_of_many_scans(scans: int = 400) -> bytes:
    """Return a progressive JPEG that repeats its last scan."""
    picture = encode(scan(2, 512), "JPEG", quality=90, progressive=True)
    last = picture.rindex(b"\xff\xda")
    return picture[:-2] + picture[last:-2] * scans + picture[-2:]


def dicom_of_nested_sequences(depth: int = 60_000) -> bytes:
    """Return a DICOM file of sequences in sequences, of undefined lengths."""
    opening = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    closing = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return _dicom(opening * depth + closing * depth)


def dicom_of_many_items(items: int = 500_000) -> bytes:
    """Return a DICOM file with a sequence of empty items."""
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    return _dicom(struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, len(item) * items) + item * items)


def _dicom(elements: bytes) -> bytes:
    syntax = b"1.2.840.10008.1.2.1\0"
    meta = struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", len(syntax)) + syntax
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(meta)) + meta + elements


def archive_of_large_pictures(count: int = 200) -> bytes:
    """Return a ZIP of pictures of 49 megapixels that differ in one pixel, a few kilobytes each."""
    buffer = io.BytesIO()
    picture = deep_png(1)
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(count):
            text = b"comment\0" + str(number).encode()
            archive.writestr(f"{number}.png", picture[:33] + _chunk(b"tEXt", text) + picture[33:])
    return buffer.getvalue()


def sending(*files: Callable[[], bytes], clients: int = 3) -> Callable[[Target, float], Counter[str]]:
    """Return an attack that has files predicted again and again, in turns."""

    def act(target: Target, until: float) -> Counter[str]:
        contents = cycle([make() for make in files])

        def predict() -> str:
            return answer_of(target.ask("POST", "/predict", content=next(contents)))

        return repeat(predict, until, clients)

    return act


def upload_archives(target: Target, until: float) -> Counter[str]:
    """Upload an archive of large pictures again and again."""
    data = archive_of_large_pictures(10)

    def act() -> str:
        return answer_of(target.upload("many.zip", data))

    return repeat(act, until, 2)


_REFUSED = (
    "413 image_too_many_pixels",
    "422 image_corrupt",
    "422 image_mode_not_supported",
    "503 timed_out",
    "503 queue_full",
    "503 large_images_full",
    "200",
)
_deep = sending(lambda: deep_png(1), lambda: deep_png(4))
_sequences = sending(dicom_of_nested_sequences, dicom_of_many_items)
ATTACKS = (
    Attack("deep_pixels", "PNG of 49 megapixels, 16 bits, 1 and 4 channels", _deep, _REFUSED),
    Attack("chunks", "PNG of 400,000 chunks", sending(png_of_many_chunks), _REFUSED),
    Attack("tiles", f"TIFF of {_TILES:,} tiles", sending(tiff_of_many_tiles), _REFUSED),
    Attack("scans", "JPEG of 400 scans", sending(jpeg_of_many_scans), _REFUSED),
    Attack("sequences", "DICOM of nested sequences and of many items", _sequences, _REFUSED),
    Attack("archives", "ZIP of 10 pictures of 49 megapixels", upload_archives, ("200", "503 timed_out")),
)
