"""Files that are slightly broken or unusual: read if all pixels are there, otherwise refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lesion.core.errors import ImageError
from lesion.imaging.decode import decode, probe
from lesion.imaging.formats.jpeg import parse_jpeg
from tests.support.images.hostile import chunk, encode, gradient, oriented
from tests.support.images.png_files import png_file
from tests.support.images.tiff_files import Page, longs, shorts, tiff_file

COLOR = gradient()
GRAY = COLOR[..., :1]
NOISE = np.random.default_rng(5).integers(0, 256, (40, 56, 3), np.uint8)
# 24 × 24 pixels of gray bands, from 0 to 230, with arithmetic coding: sequential and progressive, by jpegtran.
TABLE = (
    "ffd8ffe000104a46494600010100000100010000ffdb004300100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c39"
    "33383740485c4e404457453738506d51575f626768673e4d71797064785c656763"
)
ARITHMETIC = {
    "sequential": "ffc9000b080018001801011100ffcc000600101005ffda0008010100003f00ff0071cd12b43a9572bbdc0e00b9621778"
    "12c0ffd9",
    "progressive": "ffca000b080018001801011100ffcc00040010ffda0008010100000001fee44fe565ffcc00041005ffda000801010001"
    "05029f9221b8ffcc00041005ffda0008010100063f02c0ffcc00041005ffda0008010100013f21ffda0008010100000010fd80ffcc000410"
    "05ffda0008010100013f101f553c0732ffd9",
}


def code_of(data: bytes) -> str:
    with pytest.raises(ImageError) as refusal:
        decode(data)
    assert refusal.value.message.count(";") == 1, "what was given, and what to do"
    return refusal.value.code


JPEG_OPTIONS: dict[str, dict[str, object]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 2},
    "progressive with restart markers": {"progressive": True, "restart_marker_rows": 1},
    "whole color": {"subsampling": 0},
}


@pytest.mark.parametrize("name", JPEG_OPTIONS)
def test_a_jpeg_without_its_end_is_read(name: str):
    data = encode(NOISE, "JPEG", **JPEG_OPTIONS[name])
    whole = decode(data)
    for ending in (b"", b"\xff", bytes(1000), b"\xff" + bytes(5)):
        assert np.array_equal(decode(data[:-2] + ending), whole), ending
    assert np.array_equal(decode(data[:-2], target_side=10), whole)
    assert probe(data[:-2]).format == "JPEG"


@pytest.mark.parametrize("name", JPEG_OPTIONS)
def test_a_jpeg_without_its_end_that_lacks_pixels_is_refused(name: str):
    smooth = Image.fromarray(NOISE[:6, :6]).resize((56, 40), Image.Resampling.BICUBIC)
    for picture in (Image.fromarray(NOISE), smooth):
        data = encode(picture, "JPEG", **JPEG_OPTIONS[name])
        for missing in (6, 12, 40, 41, 100, 200):
            assert code_of(data[:-missing]) == "image_truncated", missing
            assert code_of(data[:-missing] + bytes(500)) == "image_truncated", "filled up with zeros"


def test_scans_are_counted_behind_what_seems_to_be_the_end():
    """A comment with an end marker, between the scans, hides none of those that follow."""
    buffer = io.BytesIO()
    Image.fromarray(gradient()).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    first, last = data.index(b"\xff\xda"), data.rindex(b"\xff\xda")
    comment = b"\xff\xfe\x00\x04\xff\xd9"
    hidden = data[:last] + comment + data[last:]
    assert parse_jpeg(hidden).ended
    np.testing.assert_array_equal(decode(hidden), decode(data))
    bomb = data[:last] + comment + data[last:-2] * 200 + data[-2:]
    with pytest.raises(ImageError, match="more than 100 scans"):
        parse_jpeg(bomb)
    film = data + b"\xff\xda\x00\x02" * 500  # behind the end: another picture, or a film
    np.testing.assert_array_equal(decode(film), decode(data))
    assert not parse_jpeg(data[: last + 40]).ended
    assert first < last


def test_a_progressive_jpeg_without_its_last_scan_is_refused():
    data = encode(NOISE, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    table = data.rindex(b"\xff\xc4", 0, last)
    assert code_of(data[:table]) == "image_truncated"
    assert decode(data[:table] + b"\xff\xd9").shape == NOISE.shape, "with the end marker, it is how far it was sent"


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_coding(name: str):
    data = bytes.fromhex(TABLE + ARITHMETIC[name])
    bands = decode(data)[:, 0, 0].astype(int)
    assert np.abs(bands - np.arange(24) * 10).max() <= 12


def test_12_bits_of_a_jpeg_are_refused_by_name():
    data = encode(COLOR, "JPEG")
    place = data.index(b"\xff\xc0")
    deep = data[:place] + b"\xff\xc1" + data[place + 2 : place + 4] + b"\x0c" + data[place + 5 :]
    with pytest.raises(ImageError, match="12 bits per sample"):
        decode(deep)


@pytest.mark.parametrize("transform", [0, 2])
def test_adobes_inverted_inks(transform: int):
    """Photoshop stores inks as their complement, as they are (0) or in YCCK (2)."""
    inks = np.zeros((32, 32, 4), np.uint8)
    inks[:16] = (0, 255, 255, 0)  # red
    inks[16:] = (255, 0, 0, 128)  # dark cyan
    stored = inks
    if transform == 2:
        rgb = Image.fromarray(inks[..., :3]).convert("YCbCr")  # the complement's complement
        stored = np.dstack([255 - np.asarray(rgb), inks[..., 3:]])
    data = encode(Image.fromarray(stored, "CMYK"), "JPEG", quality=100, subsampling=0)
    place = data.index(b"Adobe")
    data = data[: place + 11] + bytes([transform]) + data[place + 12 :]
    image = decode(data)
    assert np.abs(image[4, 4].astype(int) - (255, 0, 0)).max() <= 4
    assert np.abs(image[28, 28].astype(int) - (0, 127, 127)).max() <= 4


def test_an_mpo_photo_without_the_end_of_its_second_picture():
    data = encode(COLOR, "MPO", save_all=True, append_images=[Image.new("RGB", (300, 300))])
    assert np.array_equal(decode(data[:-2]), decode(data))


@pytest.mark.parametrize("missing", [1, 8, 12, 14, 16, 20])
def test_a_png_without_its_end_is_read(missing: int):
    data = encode(NOISE)  # 12 bytes of the end, 4 of the chunk's checksum, 4 of the stream's
    assert np.array_equal(decode(data[:-missing]), NOISE)


def test_a_png_with_something_else_in_place_of_its_end():
    data = encode(NOISE)[:-12]
    text = chunk(b"tEXt", b"Comment\0none")
    for end in (b"\0" * 50, b"<!-- cached -->", text, text[:-2], struct.pack(">I", 50) + b"IENDabc"):
        assert np.array_equal(decode(data + end), NOISE), end


def test_a_png_that_lacks_pixels_is_refused():
    data = encode(NOISE)
    for missing in (21, 25, 100, 1000):
        assert code_of(data[:-missing]) == "image_truncated", missing


@pytest.mark.parametrize(
    ("mode", "bits"), [("L", 1), ("L", 4), ("L", 16), ("LA", 16), ("RGB", 8), ("RGB", 16), ("P", 8)]
)
@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_without_its_last_rows_is_refused(mode: str, bits: int, interlaced: bool):
    """Pillow shows missing rows as black; a picture that ends with black rows is whole."""
    channels = {"L": 1, "LA": 2, "RGB": 3, "P": 1}[mode]
    samples = np.random.default_rng(0).integers(0, 2**bits, (37, 29, channels)).astype(np.uint16)
    samples[-9:] = 0
    extra = chunk(b"PLTE", bytes(768)) if mode == "P" else b""
    data = png_file(samples, mode, bits, interlaced=interlaced, extra=extra)
    assert decode(data).shape == (37, 29, 3)
    start = data.index(b"IDAT")
    rows = zlib.decompress(data[start + 4 : -16])
    last = 1 + -(-29 * channels * bits // 8)  # of the last pass, or of the picture
    for missing in (1, last, 3 * last):
        short = chunk(b"IDAT", zlib.compress(rows[:-missing])) + chunk(b"IEND", b"")
        assert code_of(data[: start - 4] + short) == "image_truncated", missing
    longer = chunk(b"IDAT", zlib.compress(rows + bytes(5000)))
    assert np.array_equal(decode(data[: start - 4] + longer), decode(data))


def test_the_reserved_bytes_of_a_bmp_mean_nothing():
    data = bytearray(encode(COLOR, "BMP"))
    for word in (b"LEAD", b"\xff\xff\xff\xff", b"\1\0\0\0"):
        data[6:10] = word
        assert np.array_equal(decode(bytes(data)), COLOR)
    assert code_of(b"BMW cars are listed in this text, which is not an image.\n" * 9) == "image_not_recognised"


@pytest.mark.parametrize("width", [33, 34, 35])
def test_a_bmp_without_the_padding_of_its_last_row(width: int):
    data = encode(COLOR[:, :width], "BMP")
    padding = -3 * width % 4
    assert np.array_equal(decode(data[:-padding]), COLOR[:, :width])
    assert code_of(data[: -padding - 1]) == "image_truncated"


def test_run_lengths_of_a_bmp_are_refused_by_name():
    data = bytearray(encode(Image.fromarray(COLOR).convert("L"), "BMP"))
    data[30:34] = struct.pack("<I", 1)
    with pytest.raises(ImageError, match="run-length compression"):
        decode(bytes(data))


def test_a_webp_that_ends_in_its_metadata_is_read():
    data = encode(COLOR, "WEBP", lossless=True, exif=oriented(1), xmp=b"<x/>" * 30)
    place = data.index(b"EXIF")
    for end in (place, place + 4, place + 12, len(data) - 1):
        assert np.array_equal(decode(data[:end]), COLOR)
    assert code_of(data[: place - 8]) == "image_truncated"


def test_animations_of_one_picture_are_pictures():
    frames = [Image.fromarray(np.roll(COLOR, shift, 0)) for shift in (0, 9)]
    for kind in ("WEBP", "PNG"):
        several = encode(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert code_of(several) == "image_animated"
    both = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, kmin=0, kmax=0)
    last = both.rindex(b"ANMF")
    assert np.array_equal(decode(both[:last]), COLOR), "the film lost all frames but one"
    start = encode(COLOR)
    control = chunk(b"acTL", struct.pack(">II", 1, 0))
    assert np.array_equal(decode(start[:33] + control + start[33:]), COLOR)


THUMBNAIL = np.ascontiguousarray(255 - GRAY[::2, ::2])
REDUCED = {"subfile": {254: longs(1)}, "short subfile": {254: shorts(1)}, "old subfile": {255: shorts(2)}}


@pytest.mark.parametrize("kind", REDUCED)
def test_the_full_page_of_a_tiff_is_read(kind: str):
    small, full = Page(THUMBNAIL, tags=REDUCED[kind]), Page(GRAY)
    mask = Page(GRAY // 128 * 255, tags={254: longs(4)})
    for pages in ([small, full], [full, small], [small, full, mask], [small, small, full], [mask, full, small]):
        data = tiff_file(*pages)
        assert np.array_equal(decode(data)[..., :1], GRAY)
        assert (probe(data).width, probe(data).height) == (64, 48)


def test_the_only_page_is_read_whatever_it_calls_itself():
    assert np.array_equal(decode(tiff_file(Page(GRAY, tags={254: longs(1)})))[..., :1], GRAY)


def test_several_full_pages_are_refused():
    assert code_of(tiff_file(Page(GRAY), Page(255 - GRAY))) == "image_animated"
    assert code_of(tiff_file(*[Page(GRAY, tags={254: longs(2)})] * 3)) == "image_animated"
    assert code_of(tiff_file(Page(THUMBNAIL, tags={254: longs(1)}), Page(GRAY), Page(GRAY))) == "image_animated"


def test_the_picture_below_a_thumbnail_is_read():
    """Cameras write a thumbnail as the only page, and the picture into a directory that belongs to it."""
    data = bytearray(tiff_file(Page(THUMBNAIL, tags={254: longs(1), 330: longs(0)}), Page(GRAY)))
    first = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    second = struct.unpack_from("<I", data, first + 2 + 12 * count)[0]
    struct.pack_into("<I", data, first + 2 + 12 * count, 0)
    for position in range(first + 2, first + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, position)[0] == 330:
            struct.pack_into("<I", data, position + 8, second)
    assert np.array_equal(decode(bytes(data))[..., :1], GRAY)


@pytest.mark.parametrize("stored", [0, 1, 2**31])
def test_wrong_lengths_of_strips_do_not_matter_without_compression(stored: int):
    for page in (Page(COLOR, 2), Page(COLOR, 2, strip_rows=7), Page(COLOR, 2, planar=True, strip_rows=10)):
        count = 1 if not page.strip_rows else -(-48 // page.strip_rows) * (3 if page.planar else 1)
        data = tiff_file(Page(**{**vars(page), "tags": {279: longs(*[stored] * count)}}))
        assert np.array_equal(decode(data), COLOR)


def test_a_tiff_without_lengths_that_lacks_pixels_is_refused():
    """Its description stands before the pixels, so that it is whole; nothing else may be taken for pixels."""
    tags = {256: 64, 257: 48, 258: 8, 259: 1, 262: 1, 273: 8 + 2 + 7 * 12 + 4, 277: 1}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag == 273 else 3, 1, value) for tag, value in tags.items())
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + GRAY.tobytes()
    assert np.array_equal(decode(data)[..., :1], GRAY)
    for missing in (1, 50, 1000):
        assert code_of(data[:-missing]) == "image_truncated"


def test_raw_photos_are_refused_by_name():
    with pytest.raises(ImageError, match="raw data of a camera"):
        decode(tiff_file(Page(GRAY, 32803)))


def test_pages_in_a_ring_end():
    data = bytearray(tiff_file(Page(GRAY)))
    data[-4:] = data[4:8]  # the page after the first is the first
    assert np.array_equal(decode(bytes(data))[..., :1], GRAY)


OTHERS = {
    "GIF": encode(Image.fromarray(GRAY[..., 0]), "GIF"),
    "AVIF": b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(200),
    "HEIC": b"\0\0\0\x18ftypheix\0\0\0\0mif1heic" + bytes(200),
    "HEIF": b"\0\0\0\x14ftypmif1\0\0\0\0mif1" + bytes(200),
    "JPEG XL": b"\xff\x0a" + bytes(200),
    "JPEG 2000": encode(Image.fromarray(COLOR), "JPEG2000"),
    "SVG": b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- '
    + b"a" * 900
    + b' -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "PDF": b"%PDF-1.7\n" + bytes(200),
    "MP4": b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(200),
    "BigTIFF": b"II\x2b\0\x08\0\0\0" + bytes(200),
    "PNM": b"P6\n2 2\n255\n" + bytes(200),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_types_are_refused_by_name(name: str):
    with pytest.raises(ImageError, match=rf"of type {name}.*; save the picture as one of JPEG, PNG") as refusal:
        decode(OTHERS[name])
    assert refusal.value.code == "image_type_not_supported"
