"""Image files without their metadata: the same pixels, and nothing of what was planted beside them."""

import io
import struct
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lesion.core.errors import ImageError
from lesion.imaging.decode import decode, probe
from lesion.imaging.formats.metadata_removal import without_metadata
from lesion.imaging.limits import Limits
from tests.support.images.fuzz_seeds import fuzz_seeds
from tests.support.images.hostile import chunk, encode, gradient, hostile_images
from tests.support.images.profiles import adobe_rgb
from tests.support.images.tiff_files import Page, tiff_file

SECRET, PLACE = b"Quillfeather", b"52 deg 31"
WIDE = Limits(min_side=1, max_bytes=2**28)
COLOR = gradient()


def exif(orientation: int = 6) -> bytes:
    """What a phone writes: who, when, where and with which device."""
    made = Image.Exif()
    made[271], made[272], made[274], made[305], made[315] = "ACME", "ACME Seven", orientation, "Q", SECRET.decode()
    made[306] = "1953:04:17 10:00:00"
    made.get_ifd(0x8769)[0x9286] = SECRET  # a comment
    made.get_ifd(0x8769)[0xA431] = "serial-" + SECRET.decode()
    made.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    made.get_ifd(0x8825)[29] = "1953:04:17"
    made.get_ifd(0x8825)[27] = PLACE
    return made.tobytes()


def jpeg(**options: Any) -> bytes:
    return encode(Image.fromarray(COLOR), "JPEG", quality=90, **options)


def with_segments(data: bytes, *segments: tuple[int, bytes]) -> bytes:
    """A JPEG file with more segments at its beginning."""
    made = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body for marker, body in segments)
    return data[:2] + made + data[2:]


def between_scans(data: bytes, comment: bytes) -> bytes:
    """A progressive JPEG with a comment in front of its second scan."""
    place = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    table = data.rindex(b"\xff\xc4", 0, place)
    return data[:table] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + data[table:]


def png(**texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text, zip=name.startswith("Z"))
        info.add_itxt(name, text)
    return encode(Image.fromarray(COLOR), "PNG", pnginfo=info, exif=exif(), icc_profile=adobe_rgb())


def webp(**options: Any) -> bytes:
    return encode(Image.fromarray(COLOR), "WEBP", lossless=True, **options)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a dc:creator="' + SECRET + b'" tiff:Orientation="8"/></x:xmpmeta>'
THUMBNAIL = encode(Image.fromarray(COLOR[:8, :8]), "JPEG", comment=SECRET)
SEGMENTS = [
    (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP), (0xED, b"Photoshop 3.0\0" + SECRET), (0xE5, SECRET),
    (0xE0, b"JFXX\0\x10" + THUMBNAIL), (0xFE, SECRET),
]  # fmt: skip
TAGS = {
    274: (3, struct.pack("<H", 6)), 271: (2, b"ACME\0"), 315: (2, SECRET + b"\0"), 700: (1, XMP),
    34675: (7, adobe_rgb()), 65000: (7, SECRET),
}  # fmt: skip
PLANTED = {
    "jpeg exif": lambda: jpeg(exif=exif(), icc_profile=adobe_rgb(), comment=SECRET),
    "jpeg segments": lambda: with_segments(jpeg(), *SEGMENTS),
    "jpeg with a second picture": lambda: jpeg() + jpeg(exif=exif()),
    "jpeg with something behind it": lambda: jpeg() + SECRET,
    "progressive jpeg": lambda: between_scans(jpeg(progressive=True), SECRET),
    "cmyk jpeg": lambda: encode(Image.fromarray(COLOR).convert("CMYK"), "JPEG", exif=exif(), comment=SECRET),
    "png": lambda: png(Author=SECRET.decode(), ZComment=SECRET.decode() * 9),
    "png with own chunks": lambda: png()[:33] + chunk(b"prVt", SECRET) + chunk(b"tIME", bytes(7)) + png()[33:] + SECRET,
    "webp": lambda: webp(exif=exif(), xmp=XMP, icc_profile=adobe_rgb()),
    "webp with transparency": lambda: encode(Image.fromarray(np.dstack([COLOR, COLOR[..., :1]])), "WEBP", exif=exif()),
    "tiff": lambda: tiff_file(Page(COLOR, 2, tags=TAGS)),
    "tiff with something behind it": lambda: tiff_file(Page(COLOR, 2)) + SECRET,
    "tiff with a thumbnail": lambda: tiff_file(
        Page(COLOR, 2), Page(COLOR[:8, :8], 2, tags={254: (4, struct.pack("<I", 1)), 270: (2, SECRET + b"\0")})
    ),
}  # fmt: skip


def texts(data: bytes) -> bytes:
    """A file's bytes and what PNG chunks compress in them."""
    found, position = [data], 0
    while (position := data.find(b"\x78\x9c", position)) >= 0:
        with suppress(zlib.error):
            found.append(zlib.decompressobj().decompress(data[position:], 10_000))
        position += 2
    return b"".join(found)


@pytest.mark.parametrize("name", PLANTED)
def test_nothing_that_is_planted_remains_and_the_picture_does(name: str) -> None:
    data = PLANTED[name]()
    after = without_metadata(data)
    assert SECRET in texts(data) or name == "png with own chunks"
    for secret in (SECRET, SECRET.decode().encode("utf-16-le"), PLACE, b"1953", b"serial"):
        assert secret not in texts(after), secret
    np.testing.assert_array_equal(decode(after, WIDE), decode(data, WIDE))
    old, new = probe(data, WIDE), probe(after, WIDE)
    assert (new.format, new.mode, new.width, new.height, new.device) == (
        old.format, old.mode, old.width, old.height, old.device,
    )  # fmt: skip
    assert without_metadata(after) == after
    Image.open(io.BytesIO(after)).load()  # other programs read it as well


def test_orientation_profile_and_device_stay() -> None:
    for made in (jpeg(exif=exif(8), icc_profile=adobe_rgb()), webp(exif=exif(8), icc_profile=adobe_rgb()), png()):
        with Image.open(io.BytesIO(without_metadata(made))) as picture:
            assert picture.getexif()[274] in (6, 8)
            assert picture.getexif()[272] == "ACME Seven"
            assert set(picture.getexif()) == {272, 274}
            assert picture.info["icc_profile"] == adobe_rgb()


@pytest.mark.parametrize(
    "data",
    [
        jpeg(),
        jpeg(icc_profile=adobe_rgb()),
        jpeg(progressive=True, optimize=True),
        encode(Image.fromarray(COLOR), "PNG"),
        encode(Image.fromarray(COLOR), "PNG", dpi=(72, 72)),
        encode(Image.fromarray(COLOR).quantize(16), "PNG", transparency=3),
        webp(),
        encode(Image.fromarray(COLOR), "TIFF", compression="tiff_lzw"),
        encode(Image.fromarray(COLOR), "BMP"),
        b"no picture at all",
    ],
    ids=["jpeg", "icc", "progressive", "png", "dpi", "palette", "webp", "tiff", "bmp", "text"],
)
def test_a_file_without_metadata_is_returned_as_it_is(data: bytes) -> None:
    assert without_metadata(data) == data


def test_every_kind_of_file_keeps_its_pixels_or_its_refusal() -> None:
    seeds = [*fuzz_seeds(), *(file.data for file in hostile_images().values())]
    changed = 0
    for data in seeds:
        try:
            before = decode(data, WIDE)
        except ImageError:
            continue
        after = without_metadata(data)
        changed += after != data
        np.testing.assert_array_equal(decode(after, WIDE), before)
        assert without_metadata(after) == after
    assert changed > 20


def test_damaged_files_raise_nothing_but_refusals() -> None:
    random = np.random.default_rng(5)
    for data in [seed for seed in fuzz_seeds() if len(seed) < 20_000]:
        for _ in range(5):
            broken = bytearray(data)
            for place in random.integers(0, len(data), 4):
                broken[place] = random.integers(0, 256)
            cut = bytes(broken[: random.integers(12, len(data) + 1)])
            try:
                after = without_metadata(cut)
                before = decode(cut, WIDE)
            except ImageError:
                continue
            np.testing.assert_array_equal(decode(after, WIDE), before)


@pytest.mark.parametrize(
    "data",
    [
        jpeg()[:-2] + b"\xff\x00" * 2_000_000 + b"\xff\xd9",
        jpeg()[:-2] + b"\xff\xc4\x00\x02" * 60_000 + b"\xff\xd9",
        tiff_file(Page(COLOR, 2, tags={273: (4, bytes(4 * 100_000)), 279: (4, b"\xff\xff\x0f\x00" * 100_000)})),
        tiff_file(Page(COLOR, 2, tags={34675: (7, bytes(3_000_000))})),
    ],
    ids=["stuffed bytes", "segments", "strips", "profile"],
)
def test_the_work_is_limited_by_the_size_of_the_file(data: bytes) -> None:
    """A work that grows with the square would take hours, and end with the suite's patience."""
    with suppress(ImageError):
        assert len(without_metadata(data)) < 2 * len(data)
