"""Compressed pixel data: JPEG of any process, JPEG-LS, JPEG 2000, High-Throughput JPEG 2000 and RLE.

What a stream is made of is read from its own first bytes, because files often name another compression than they use.
The decoders (libjpeg-turbo, CharLS, OpenJPEG, all in the package imagecodecs) only get a stream whose header agrees
with the elements of the file: otherwise a small picture could hide a huge one.
"""

import struct
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.imaging.dicom.bounded_reading import MAX_FRAGMENTS
from lesion.imaging.dicom.j2k_parts import check_j2k_parts
from lesion.imaging.formats.jpeg import check_scans, jpeg_segments
from lesion.imaging.formats.jpeg_ending import with_endings
from lesion.imaging.refusals import corrupt, several_pictures, unsupported

_JPEG, _J2K, _J2K_BOX, _RLE_HEADER, _RLE_RUN = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ", 64, 128
_SIGNATURES = (_JPEG, _J2K, _J2K_BOX)
_OFFSET = 4  # bytes in the table of offsets for each picture
_SCAN, _END, _LOSSLESS, _LS_FRAME, _ADOBE, _JFIF = b"\xff\xda", b"\xff\xd9", 0xC3, 0xF7, 0xEE, 0xE0
_FRAMES = (frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {_LS_FRAME}  # segments that give the size
_RGB_NAMES = (b"RGB", b"rgb")  # names of the components


@dataclass(frozen=True, slots=True)
class Stream:
    """The header of a compressed picture."""

    kind: str  # JPEG, JPEG-LS, JPEG 2000 or RLE
    width: int
    height: int
    samples: int  # components of a pixel
    bits: int  # of a sample
    space: str | None = None  # RGB or YBR_FULL, if the stream itself says so
    data: bytes = b""  # without a container around it


def join_fragments(data: bytes, *, one_each: bool) -> bytes:
    """Return the compressed picture in encapsulated pixel data (PS3.5 A.4); several pictures are refused.

    Args:
        data: The value of the element, which begins with an item.
        one_each: Whether a picture is one fragment, as in RLE; otherwise it may be spread over several.
    """
    from pydicom.encaps import generate_fragments

    offsets, *fragments = islice(generate_fragments(data), MAX_FRAGMENTS + 1)
    if len(fragments) == MAX_FRAGMENTS:
        raise corrupt("DICOM", f"its pixels have {MAX_FRAGMENTS:,} fragments or more")
    if offsets.startswith(_SIGNATURES):  # the table of offsets is missing
        offsets, fragments = b"", [offsets, *fragments]
    starts = len(fragments) if one_each else sum(fragment.startswith(_SIGNATURES) for fragment in fragments)
    if len(offsets) > _OFFSET or starts > 1:
        raise several_pictures("DICOM")
    return b"".join(fragments)


def read_stream(frame: bytes) -> Stream | None:
    """Read the header of a compressed picture; return None if its first bytes belong to no known compression.

    A stream that ends too early is an EOFError, here and in the other functions.
    """
    try:
        if frame.startswith(_JPEG):
            return _read_jpeg(frame)
        if frame.startswith(_J2K_BOX) and _J2K in frame:
            frame = frame[frame.index(_J2K) :]
        return _read_j2k(frame) if frame.startswith(_J2K) else None
    except (struct.error, IndexError) as error:
        raise EOFError from error


def codec_bytes(stream: Stream) -> int:
    """Return the bytes that the codec of a picture holds for each pixel, beside the result."""
    if stream.kind == "JPEG 2000":
        return 4 * stream.samples + 1
    if stream.kind == "JPEG":  # of several scans: the coefficients; without its end marker: the picture, to compare it
        again = stream.samples if stream.data.rfind(_END) < stream.data.rfind(_SCAN) else 0
        return again + (2 * stream.samples if stream.data.count(_SCAN) > 1 else 0)
    return 2 * stream.samples if stream.kind == "RLE" else 0


def decode_stream(stream: Stream, space: str) -> NDArray[Any]:
    """Decode a picture whose header was checked, without any change of its color space.

    Return (height, width) or (height, width, 3), of 1 or 2 bytes per sample.
    """
    import imagecodecs

    if stream.kind == "JPEG":
        check_scans(stream.data.count(_SCAN), stream.width, stream.height)
        if stream.data.rfind(_END) > stream.data.rfind(_SCAN):
            return _decode_jpeg(stream, stream.data, space)
        pictures = [_decode_jpeg(stream, data, space) for data in with_endings(stream.data, large=True)]
        if not pictures or not np.array_equal(pictures[0], pictures[1]):
            raise EOFError("the scans of a JPEG stream end too early")
        return pictures[0]
    whole = stream.data if _END in stream.data[-16:] else stream.data + _END  # the end marker has no pixels
    pixels: NDArray[Any] = (imagecodecs.jpegls_decode if stream.kind == "JPEG-LS" else imagecodecs.jpeg2k_decode)(whole)
    return pixels


def _decode_jpeg(stream: Stream, data: bytes, space: str) -> NDArray[Any]:
    import imagecodecs

    name = None if stream.samples == 1 else "RGB" if space == "RGB" else "YCBCR"
    return imagecodecs.jpeg8_decode(data, colorspace=name, outcolorspace=name)


def decode_rle(stream: Stream) -> NDArray[Any]:
    """Decode the RLE compression of DICOM (PS3.5 annex G): one segment for each byte of each sample.

    Return (rows, columns) or (rows, columns, samples), uint8 or uint16.
    """
    import imagecodecs

    frame, samples, size, pixels = stream.data, stream.samples, -(-stream.bits // 8), stream.width * stream.height
    if len(frame) < _RLE_HEADER:
        raise EOFError("an RLE segment ends too early")
    count, *offsets = struct.unpack_from("<16I", frame)
    if count != samples * size or offsets[0] < _RLE_HEADER or sorted(offsets[:count]) != offsets[:count]:
        raise corrupt("DICOM", f"its RLE header counts {count} segments for {samples} samples of {size} bytes")
    planes = np.empty((samples, size, pixels), np.uint8)
    for index, start in enumerate(offsets[:count]):
        end = offsets[index + 1] if index + 1 < count else len(frame)
        output = bytearray(pixels + _RLE_RUN)  # the last run may be longer than the picture
        plane = imagecodecs.packbits_decode(frame[start:end], out=output)
        if len(plane) < pixels:
            raise EOFError("an RLE segment ends too early")
        planes[index // size, size - 1 - index % size] = np.frombuffer(plane, np.uint8)[:pixels]
    numbers = np.ascontiguousarray(planes.transpose(2, 0, 1)).view(f"u{size}")
    shape = stream.height, stream.width, *([samples] if samples > 1 else [])
    return numbers.reshape(shape)


def _read_jpeg(frame: bytes) -> Stream:
    """Read the segments of a JPEG or JPEG-LS stream up to its size, and what they tell about its colors."""
    space = None
    for marker, _, segment in jpeg_segments(frame):
        content = segment[4:]
        if marker == _ADOBE and content[:5] == b"Adobe" and len(content) >= 12:
            space = "YBR_FULL" if content[11] else "RGB"
        elif marker == _JFIF and content[:4] == b"JFIF" and space is None:
            space = "YBR_FULL"
        elif marker in _FRAMES:
            bits, height, width, samples = struct.unpack_from(">BHHB", content)
            if samples == 3 and content[6 : 6 + 9 : 3] in _RGB_NAMES:
                space = "RGB"
            elif marker == _LOSSLESS:
                space = None  # its colors are stored as they are, whatever else is written into it
            kind = "JPEG-LS" if marker == _LS_FRAME else "JPEG"
            return Stream(kind, width, height, samples, bits, space, frame)
    raise corrupt("DICOM", "its compressed picture has no size")


def _read_j2k(frame: bytes) -> Stream:
    """Read the segment SIZ of a JPEG 2000 stream (ISO 15444-1 A.5.1)."""
    width, height, left, top = struct.unpack_from(">IIII", frame, 8)
    (samples,) = struct.unpack_from(">H", frame, 40)
    components = [struct.unpack_from(">BBB", frame, 42 + 3 * index) for index in range(min(samples, 4))]
    if any(component[1:] != (1, 1) for component in components):
        raise unsupported("DICOM", "JPEG 2000 with colors at another resolution than the brightness")
    depths = {1 + component[0] % 128 for component in components}  # the highest bit is the sign
    if len(depths) != 1:
        raise unsupported("DICOM", "JPEG 2000 whose components differ in their bits")
    check_j2k_parts(frame)
    return Stream("JPEG 2000", width - left, height - top, samples, depths.pop(), None, frame)
