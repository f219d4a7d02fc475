"""PNG files of every color type, depth, filter and interlacing, with any chunks, as Pillow does not write them."""

import struct
import zlib

import numpy as np

from tests.support.images.hostile import chunk

COLOR_TYPES = {"L": 0, "RGB": 2, "P": 3, "LA": 4, "RGBA": 6}
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def png_file(
    samples: np.ndarray,
    mode: str,
    bits: int = 8,
    *,
    filtered: int = 0,
    interlaced: bool = False,
    extra: bytes = b"",
    end: bool = True,
) -> bytes:
    """A PNG of whole numbers (H, W, C); ``extra`` are chunks before the pixels, ``filtered`` the filter of each row."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, COLOR_TYPES[mode], 0, 0, interlaced)
    passes = [samples[top::down, left::right] for top, left, down, right in ADAM7] if interlaced else [samples]
    rows = b"".join(_rows(part, bits, filtered) for part in passes if part.size)
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(rows))]
    return b"".join([*parts, chunk(b"IEND", b"") if end else b""])


def _rows(samples: np.ndarray, bits: int, filtered: int) -> bytes:
    """The rows of one pass, each after its filter's number."""
    distance = max(1, samples.shape[2] * bits // 8)
    flat = samples.reshape(len(samples), -1)
    if bits == 16:
        packed = flat.astype(">u2").view(np.uint8)
    elif bits == 8:
        packed = flat.astype(np.uint8)
    else:
        digits = (flat[..., None] >> np.arange(bits)[::-1]) & 1
        packed = np.packbits(digits.reshape(len(flat), -1).astype(np.uint8), axis=1)
    above = np.vstack([np.zeros_like(packed[:1]), packed[:-1]]).astype(int)
    left, corner = (np.pad(rows, ((0, 0), (distance, 0)))[:, : packed.shape[1]].astype(int) for rows in (packed, above))
    guess = left + above - corner
    nearest = np.argmin([np.abs(guess - left), np.abs(guess - above), np.abs(guess - corner)], axis=0)
    paeth = np.choose(nearest, [left, above, corner])
    predicted = [np.zeros_like(left), left, above, (left + above) // 2, paeth][filtered]
    rows = (packed.astype(int) - predicted).astype(np.uint8)
    return b"".join(bytes([filtered]) + row.tobytes() for row in rows)
