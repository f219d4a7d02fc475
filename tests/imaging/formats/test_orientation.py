"""The orientation is found wherever a file says it, and damaged metadata changes nothing."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lesion.imaging.decode import decode, probe
from lesion.imaging.orientation import exif_orientation, raw_profile, xmp_orientation
from tests.support.images.hostile import chunk, corner, encode, oriented
from tests.support.images.tiff_files import Page, shorts, tiff_file

CORNER = corner()  # 32 × 64, its red part at the upper left
TURNED = np.rot90(CORNER, -1)  # what orientation 6 shows


def xmp(turn: int, form: str = "attribute") -> bytes:
    namespace = 'xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
    value = f'tiff:Orientation="{turn}"/>' if form == "attribute" else f"><tiff:Orientation>{turn}</tiff:Orientation>"
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {namespace} {value}</x:xmpmeta>'.encode()


def exif(turn: int, order: str = "<", kind: int = 3) -> bytes:
    """An EXIF block with one entry: a byte (1), a short (3) or a long (4)."""
    value = struct.pack(order + {1: "B", 3: "H", 4: "I"}[kind], turn).ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 1)
    return head + struct.pack(order + "HHI", 274, kind, 1) + value + bytes(4)


def with_chunk(name: bytes, content: bytes) -> bytes:
    data = encode(CORNER)
    return data[:33] + chunk(name, content) + data[33:]


def with_segment(content: bytes) -> bytes:
    data = encode(CORNER, "JPEG", quality=100, subsampling=0)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + data[2:]


def hexadecimal(name: str, content: bytes) -> bytes:
    """A raw profile as ImageMagick writes it into a text."""
    digits = content.hex()
    lines = "\n".join(digits[place : place + 72] for place in range(0, len(digits), 72))
    return f"\n{name}\n{len(content):8}\n{lines}\n".encode()


RAW = hexadecimal("exif", b"Exif\0\0" + exif(6))
JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
FILES = {
    "png exif": lambda: with_chunk(b"eXIf", exif(6)),
    "png raw exif": lambda: with_chunk(b"tEXt", b"Raw profile type exif\0" + RAW),
    "png packed raw exif": lambda: with_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(RAW)),
    "png raw APP1": lambda: with_chunk(b"zTXt", b"Raw profile type APP1\0\0" + zlib.compress(RAW)),
    "png APP1 with XMP": lambda: with_chunk(
        b"zTXt", b"Raw profile type APP1\0\0" + zlib.compress(hexadecimal("generic profile", JPEG_XMP + xmp(6)))
    ),
    "png raw xmp": lambda: with_chunk(b"tEXt", b"Raw profile type xmp\0" + hexadecimal("xmp", xmp(6))),
    "png xmp": lambda: with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6)),
    "png packed xmp": lambda: with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0xmp\0" + zlib.compress(xmp(6))),
    "jpeg exif": lambda: with_segment(b"Exif\0\0" + exif(6)),
    "jpeg xmp": lambda: with_segment(JPEG_XMP + xmp(6, "element")),
    "webp xmp": lambda: encode(CORNER, "WEBP", lossless=True, xmp=xmp(6)),
    "webp exif": lambda: encode(CORNER, "WEBP", lossless=True, exif=oriented(6)),
    "tiff tag": lambda: tiff_file(Page(CORNER, 2, tags={274: shorts(6)})),
    "tiff xmp": lambda: tiff_file(Page(CORNER, 2, tags={700: (1, xmp(6))})),
    "deep tiff": lambda: tiff_file(Page(CORNER.astype(np.uint16) * 257, 2, planar=True, tags={274: shorts(6)})),
}


@pytest.mark.parametrize("name", FILES)
def test_a_turned_picture_is_shown_upright(name: str):
    data = FILES[name]()
    assert np.abs(decode(data).astype(int) - TURNED).max() <= (4 if name.startswith("jpeg") else 0)
    assert (probe(data).width, probe(data).height) == (32, 64)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [1, 3, 4])
def test_numbers_of_any_type_and_byte_order(order: str, kind: int):
    assert [exif_orientation(exif(turn, order, kind)) for turn in (0, 1, 6, 8, 9)] == [None, 1, 6, 8, None]


def test_xmp_in_its_spellings():
    assert [xmp_orientation(xmp(turn)) for turn in range(10)] == [None, *range(1, 9), None]
    assert xmp_orientation(xmp(3, "element")) == 3
    assert xmp_orientation(b"<a tiff:Orientation = '8'>") == 8
    assert xmp_orientation(b"<tiff:Orientation>\n 5 </tiff:Orientation>") == 5
    assert xmp_orientation(b'<a tiff:Orientation="66">') is None
    assert xmp_orientation(b'<a mytiff:Orientation2="6">') is None


def test_exif_counts_before_xmp():
    data = encode(CORNER, "WEBP", lossless=True, exif=oriented(1), xmp=xmp(6))
    assert np.array_equal(decode(data), CORNER)


def test_damaged_metadata_changes_nothing():
    damaged = [b"", b"Exif\0\0", exif(6)[:14], exif(6)[:4] + b"\xff" * 20, b"JJ*\0" + exif(6)[4:], bytes(500)]
    for content in damaged:
        assert exif_orientation(content) is None
        assert np.array_equal(decode(with_chunk(b"eXIf", content)), CORNER)
    for text in (b"exif", b"\nexif\n 9\nzz", b"\nexif\n 9\n123", b"\nexif\n\n00", b"\xff\xff \xff \xff"):
        assert raw_profile(text) == b""
        assert np.array_equal(decode(with_chunk(b"tEXt", b"Raw profile type exif\0" + text)), CORNER)
    assert np.array_equal(decode(with_chunk(b"zTXt", b"Raw profile type exif\0\0no stream")), CORNER)


def test_a_text_that_unpacks_to_gigabytes_is_left_aside():
    bomb = zlib.compress(bytes(16 * 2**20))
    many = b"".join(chunk(b"zTXt", b"Raw profile type exif\0\0" + bomb) for _ in range(20))
    data = encode(Image.fromarray(CORNER))
    assert np.array_equal(decode(data[:33] + many + data[33:]), CORNER)
