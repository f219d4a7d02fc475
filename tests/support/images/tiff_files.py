"""TIFF files of every layout: byte order, planes, tiles, compression, depth, several pages."""

import struct
import zlib
from dataclasses import dataclass, field

import numpy as np

NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773


@dataclass(frozen=True)
class Page:
    """A page: samples (H, W, C) and how they are stored."""

    samples: np.ndarray
    photometric: int = 1
    planar: bool = False
    compression: int = NONE
    predictor: bool = False
    tile: int = 0  # side of the tiles; 0: strips
    strip_rows: int = 0  # 0: one strip
    extra: tuple[int, ...] = ()  # the tag ExtraSamples
    tags: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # more tags: type and content


def tiff_file(*pages: Page, order: str = "<") -> bytes:
    """A file of these pages."""
    body = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    pointer = 4
    for page in pages:
        directory = _directory(body, page, order)
        body += bytes(len(body) % 2)
        struct.pack_into(order + "I", body, pointer, len(body))
        body += directory
        pointer = len(body) - 4
    return bytes(body)


def _directory(body: bytearray, page: Page, order: str) -> bytes:
    """Append the pixels of a page and return its directory."""
    height, width, channels = page.samples.shape
    bits = 8 * page.samples.dtype.itemsize
    planes = np.split(page.samples, channels, axis=2) if page.planar else [page.samples]
    offsets, lengths = [], []
    for part in [part for plane in planes for part in _parts(plane, page)]:
        stored = _packed(part, page, order)
        offsets.append(len(body))
        lengths.append(len(stored))
        body += stored + bytes(len(stored) % 2)
    rows = page.strip_rows or height
    tags = {256: _longs(order, width), 257: _longs(order, height), 258: _shorts(order, *[bits] * channels)}
    tags |= {259: _shorts(order, page.compression), 262: _shorts(order, page.photometric)}
    tags |= {277: _shorts(order, channels), 284: _shorts(order, 2 if page.planar else 1)}
    if page.tile:
        tags |= {322: _longs(order, page.tile), 323: _longs(order, page.tile)}
        tags |= {324: _longs(order, *offsets), 325: _longs(order, *lengths)}
    else:
        tags |= {273: _longs(order, *offsets), 278: _longs(order, rows), 279: _longs(order, *lengths)}
    if page.predictor:
        tags[317] = _shorts(order, 2)
    if page.extra:
        tags[338] = _shorts(order, *page.extra)
    return _written(body, tags | page.tags, order)


def _written(body: bytearray, tags: dict[int, tuple[int, bytes]], order: str) -> bytes:
    entries = b""
    for tag, (kind, content) in sorted(tags.items()):
        count = len(content) // {1: 1, 2: 1, 3: 2, 4: 4, 7: 1, 13: 4}[kind]
        if len(content) > 4:
            body += bytes(len(body) % 2)
            content, place = struct.pack(order + "I", len(body)), content
            body += place
        entries += struct.pack(order + "HHI", tag, kind, count) + content.ljust(4, b"\0")
    return struct.pack(order + "H", len(tags)) + entries + bytes(4)


def _parts(plane: np.ndarray, page: Page) -> list[np.ndarray]:
    height, width = plane.shape[:2]
    if not page.tile:
        rows = page.strip_rows or height
        return [plane[top : top + rows] for top in range(0, height, rows)]
    side = page.tile
    padded = np.pad(plane, ((0, -height % side), (0, -width % side), (0, 0)))
    return [
        padded[top : top + side, left : left + side] for top in range(0, height, side) for left in range(0, width, side)
    ]


def _packed(part: np.ndarray, page: Page, order: str) -> bytes:
    if page.predictor:
        part = np.concatenate([part[:, :1], part[:, 1:] - part[:, :-1]], axis=1)
    raw = part.astype(f"{order}u{part.dtype.itemsize}").tobytes()
    if page.compression == DEFLATE:
        return zlib.compress(raw)
    if page.compression == LZW:
        return _lzw(raw)
    if page.compression == PACKBITS:
        row = len(raw) // len(part)
        pieces = [raw[top + left : min(top + left + 128, top + row)] for top in range(0, len(raw), row)
                  for left in range(0, row, 128)]  # fmt: skip
        return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)
    return raw


def _lzw(raw: bytes) -> bytes:
    """Codes of 9 bits only: the table is cleared before it needs longer ones."""
    codes = []
    for start in range(0, len(raw), 250):
        codes += [256, *raw[start : start + 250]]
    text = "".join(format(code, "09b") for code in [*codes, 257])
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def _shorts(order: str, *values: int) -> tuple[int, bytes]:
    return 3, struct.pack(f"{order}{len(values)}H", *values)


def _longs(order: str, *values: int) -> tuple[int, bytes]:
    return 4, struct.pack(f"{order}{len(values)}I", *values)


def longs(*values: int, order: str = "<") -> tuple[int, bytes]:
    """A tag of whole numbers of 32 bits, for `Page.tags`."""
    return _longs(order, *values)


def shorts(*values: int, order: str = "<") -> tuple[int, bytes]:
    """A tag of whole numbers of 16 bits, for `Page.tags`."""
    return _shorts(order, *values)
