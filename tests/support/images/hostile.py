"""Bad and odd image files, made in code, with what the decoder owes for each.

Used by the tests of the decoder, the command line and the server: the same file must be refused, or decoded, alike.
"""

import hashlib
import io
import struct
import zlib
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

RED, BLUE = (255, 0, 0), (0, 0, 255)


class HostileImage(NamedTuple):
    """A file and what it must give: a refusal's code, or the shape and some pixels of the decoded array."""

    data: bytes
    code: str | None = None
    shape: tuple[int, int] | None = None
    pixels: dict[tuple[int, int], tuple[int, int, int]] | None = None
    tolerance: int = 0


def gradient(height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth colour picture whose pixel values follow from their place: uint8 (height, width, 3)."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 // (height - 1), columns * 255 // (width - 1), 255 - rows * 2], axis=-1).astype(
        np.uint8
    )


def encode(picture: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The picture as a file of the given Pillow format."""
    buffer = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(buffer, kind, **options)
    return buffer.getvalue()


def pixel_hash(image: np.ndarray) -> str:
    """What identifies decoded pixels, uint8 (H, W, 3), whatever file they are from."""
    return hashlib.sha256(f"({image.shape[0]}, {image.shape[1]}, 3)".encode() + image.tobytes()).hexdigest()


def chunk(name: bytes, body: bytes) -> bytes:
    """One PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG with a true header and whatever follows it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def tiff(entries: list[tuple[int, int, int, int]], *, body: bytes = b"", following: int = 0) -> bytes:
    """A little-endian TIFF of the given (tag, type, count, value) entries; ``body`` begins at byte 8."""
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory + struct.pack("<I", following)


def oriented(orientation: int) -> Image.Exif:
    """EXIF data with this orientation."""
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def corner(height: int = 32, width: int = 64) -> np.ndarray:
    """Blue, with a red upper left quarter."""
    picture = np.full((height, width, 3), BLUE, np.uint8)
    picture[: height // 2, : width // 2] = RED
    return picture


def _jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(encode(gradient(), "JPEG"))
    position = data.index(b"\xff\xc0")
    data[position + 5 : position + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def _grey_tiff(*extra: tuple[int, int, int, int], width: int = 32, compression: int = 1, bits: int = 8) -> bytes:
    body = bytes(range(256)) * 4
    entries = [(256, 3, 1, width), (257, 3, 1, 32), (258, 3, 1, bits), (259, 3, 1, compression), (262, 3, 1, 1)]
    entries += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 32), (279, 4, 1, 1024)]
    tags = {entry[0]: entry for entry in entries} | {entry[0]: entry for entry in extra}
    return tiff([tags[tag] for tag in sorted(tags)], body=body)


def _transparent(mode: str) -> Image.Image:
    """Left half visible red (or white), right half fully transparent white."""
    picture = np.full((32, 32, 4), 255, np.uint8)
    picture[:, :16] = (*RED, 255)
    picture[:, 16:, 3] = 0
    image = Image.fromarray(picture)
    if mode == "P":
        palette = Image.fromarray((picture[..., 3] == 0).astype(np.uint8), "L").convert("P")
        palette.putpalette([*RED, 255, 255, 255])
        palette.info["transparency"] = 1
        return palette
    return image.convert(mode)


def _refused() -> dict[str, HostileImage]:
    photo, scan = encode(gradient(), "JPEG"), encode(gradient())
    frames = [Image.new("L", (32, 32), shade) for shade in (0, 80, 160, 240)]
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    noisy = encode(noise)
    middle = noisy.index(b"IDAT") + len(noisy) // 2
    refusals: dict[str, tuple[bytes, str]] = {
        "empty.png": (b"", "image_empty"),
        "text.jpg": (b"This is no picture, whatever its name says.\n" * 20, "image_not_recognised"),
        "web_page.png": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "image_not_recognised"),
        "zeros.bmp": (bytes(5000), "image_not_recognised"),
        "jpeg_signature_only.jpg": (b"\xff\xd8\xff", "image_truncated"),
        "png_signature_only.png": (scan[:8], "image_truncated"),
        "truncated.jpg": (photo[: len(photo) // 2], "image_truncated"),
        "truncated.png": (noisy[: len(noisy) // 2], "image_truncated"),
        "truncated.webp": (encode(noise, "WEBP")[:-500], "image_truncated"),
        "truncated.bmp": (encode(noise, "BMP")[:-500], "image_truncated"),
        "truncated.tif": (_grey_tiff(width=64), "image_truncated"),
        "damaged.png": (noisy[:middle] + b"damage" + noisy[middle + 6 :], "image_corrupt"),
        "not_deflated.png": (png(32, 32, chunk(b"IDAT", b"no zlib stream at all")), "image_corrupt"),
        "without_pixels.png": (png(32, 32), "image_corrupt"),
        "zero_wide.png": (png(0, 32, chunk(b"IDAT", zlib.compress(b""))), "image_corrupt"),
        "two_sizes.png": (
            png(32, 32, chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)), chunk(b"IDAT", b"")),
            "image_corrupt",
        ),
        "50000x50000.png": (png(50_000, 50_000, chunk(b"IDAT", zlib.compress(bytes(9999)))), "image_too_many_pixels"),
        "65500x65500.jpg": (_jpeg_of_size(65_500, 65_500), "image_too_many_pixels"),
        "50000x50000.bmp": (
            encode(gradient(), "BMP")[:18] + struct.pack("<ii", 50_000, -50_000) + encode(gradient(), "BMP")[26:],
            "image_too_many_pixels",
        ),
        "16383x16383.webp": (
            b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xfe\x3f\0" * 2,
            "image_too_many_pixels",
        ),
        "6000x6000.webp": (  # 36 megapixels, of 16 bytes each
            b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\x6f\x17\0" * 2,
            "image_too_many_pixels",
        ),
        "50000x50000.tif": (_grey_tiff((257, 4, 1, 50_000), width=50_000), "image_too_many_pixels"),
        "1x1.png": (encode(gradient()[:1, :1]), "image_too_small"),
        "thin.png": (encode(np.zeros((15, 4000, 3), np.uint8)), "image_too_small"),
        "1000_frames.gif": (
            encode(Image.new("L", (32, 32)), "GIF", save_all=True, append_images=frames * 250, duration=20),
            "image_type_not_supported",
        ),
        "animated.png": (encode(frames[0], "PNG", save_all=True, append_images=frames[1:]), "image_animated"),
        "animated.webp": (encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]), "image_animated"),
        "pages.tif": (encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]), "image_animated"),
        "icon.ico": (encode(gradient(), "ICO"), "image_type_not_supported"),
        "photo.avif": (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf", "image_type_not_supported"),
        "photo.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "image_type_not_supported"),
        "layers.psd": (b"8BPS\0\1" + bytes(200), "image_type_not_supported"),
        "drawing.svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "image_type_not_supported"),
        "page.pdf": (b"%PDF-1.7\n" + bytes(200), "image_type_not_supported"),
        "drawing.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n" + bytes(200), "image_type_not_supported"),
        "volume.nii.gz": (b"\x1f\x8b\x08" + bytes(100), "image_type_not_supported"),
        "volume.nii": (struct.pack("<i", 348) + bytes(340) + b"n+1\0", "image_type_not_supported"),
        "float.tif": (encode(Image.new("F", (32, 32), 0.5), "TIFF"), "image_mode_not_supported"),
        "negative.tif": (encode(Image.new("I", (32, 32), -1000), "TIFF"), "image_mode_not_supported"),
        "unknown_codec.tif": (_grey_tiff(compression=50_000), "image_mode_not_supported"),
        "seven_bits.tif": (_grey_tiff(bits=7), "image_mode_not_supported"),
        "run_lengths.bmp": (
            encode(gradient(), "BMP")[:30] + struct.pack("<I", 1) + encode(gradient(), "BMP")[34:],
            "image_mode_not_supported",
        ),
        "lying_strip.tif": (_grey_tiff((273, 4, 1, 10**9)), "image_truncated"),
        "lying_count.tif": (_grey_tiff((273, 4, 10**9, 8)), "image_corrupt"),
        "lying_directory.tif": (b"II*\0" + struct.pack("<I", 2**31) + bytes(100), "image_truncated"),
        "many_scans.jpg": (photo[:-2] + b"\xff\xda\0\x0c\3\1\0\2\0\3\0\0\x3f\0" * 5000, "image_corrupt"),
        "lossless.jpg": (photo.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc3\0\x11\x0c"), "image_mode_not_supported"),
    }
    return {name: HostileImage(data, code=code) for name, (data, code) in refusals.items()}


def _decoded() -> dict[str, HostileImage]:
    picture, grey = gradient(), np.arange(32 * 32, dtype=np.uint16).reshape(32, 32)
    bomb = zlib.compress(bytes(50 * 2**20))  # 50 MB of zeros in 50 KB
    ends: dict[tuple[int, int], tuple[int, int, int]] = {}
    for place in ((0, 0), (47, 63)):
        red, green, blue = picture[place].tolist()
        ends[place] = (red, green, blue)
    cmyk = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    files: dict[str, HostileImage] = {
        "plain.png": HostileImage(encode(picture), None, (48, 64), ends),
        "plain.bmp": HostileImage(encode(picture, "BMP"), None, (48, 64), ends),
        "plain.tif": HostileImage(encode(picture, "TIFF", compression="tiff_lzw"), None, (48, 64), ends),
        "plain.webp": HostileImage(encode(picture, "WEBP", lossless=True), None, (48, 64), ends),
        "plain.jpg": HostileImage(encode(picture, "JPEG", quality=95), None, (48, 64), ends, tolerance=12),
        "progressive.jpg": HostileImage(encode(picture, "JPEG", progressive=True), None, (48, 64), ends, tolerance=16),
        "png_named.jpg": HostileImage(encode(picture), None, (48, 64), ends),
        "cmyk.jpg": HostileImage(encode(cmyk, "JPEG", quality=95), None, (32, 32), {(9, 9): RED}, tolerance=3),
        "cmyk.tif": HostileImage(encode(cmyk, "TIFF"), None, (32, 32), {(9, 9): RED}),
        "one_bit.png": HostileImage(encode(Image.new("1", (32, 32), 1)), None, (32, 32), {(0, 0): (255, 255, 255)}),
        "grey.jpg": HostileImage(encode(Image.new("L", (32, 32), 99), "JPEG"), None, (32, 32), {(5, 5): (99, 99, 99)}),
        # 1023 is the highest value, so the picture is one of 10 bits: 512 · 255 / 1023 = 127.6
        "16_bit.png": HostileImage(encode(grey), None, (32, 32), {(31, 31): (255,) * 3, (16, 0): (128,) * 3}),
        "16_bit.tif": HostileImage(encode(grey, "TIFF"), None, (32, 32), {(31, 31): (255,) * 3, (16, 0): (128,) * 3}),
        "grey_alpha.png": HostileImage(
            encode(_transparent("LA")), None, (32, 32), {(0, 0): (76, 76, 76), (0, 31): (0, 0, 0)}
        ),
        "palette_alpha.png": HostileImage(encode(_transparent("P")), None, (32, 32), {(0, 0): RED, (0, 31): (0, 0, 0)}),
        "alpha.webp": HostileImage(
            encode(_transparent("RGBA"), "WEBP", lossless=True), None, (32, 32), {(0, 0): RED, (0, 31): (0, 0, 0)}
        ),
        "corrupt_exif.jpg": HostileImage(
            encode(picture, "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
            None, (48, 64), ends, tolerance=12,
        ),
        "text_bomb.png": HostileImage(
            png(32, 32, chunk(b"zTXt", b"a\0\0" + bomb), chunk(b"iCCP", b"a\0\0" + bomb),
                chunk(b"IDAT", zlib.compress((b"\0" + bytes(RED) * 32) * 32))),
            None, (32, 32), {(31, 31): RED},
        ),
        "tag_bomb.tif": HostileImage(
            _grey_tiff(*[(tag, 7, 1000, 8) for tag in range(1000, 60_000) if tag != 32_932]),
            None, (32, 32), {(0, 5): (5, 5, 5)},
        ),
    }  # fmt: skip
    corners = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}
    for orientation, (row, column) in corners.items():  # where the stored first pixel is seen (Exif 3.0, tag 274)
        height, width = (32, 64) if orientation < 5 else (64, 32)
        places = {(r * (height - 1), c * (width - 1)): BLUE for r in (0, 1) for c in (0, 1)}
        places[row * (height - 1), column * (width - 1)] = RED
        for kind in ("jpeg", "png", "webp", "tiff"):
            options = {"quality": 100} if kind in ("jpeg", "webp") else {}
            data = encode(corner(), kind.upper(), exif=oriented(orientation), **options)
            files[f"turned_{orientation}.{kind}"] = HostileImage(data, None, (height, width), places, tolerance=4)
    return files


@cache
def hostile_images() -> dict[str, HostileImage]:
    """Every file by name; the suffix is the one it would come with, not always the true one."""
    return _refused() | _decoded()


def with_checksums(data: bytes) -> bytes:
    """Make the checksums of a changed PNG right again."""
    position, parts = 8, [data[:8]]
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if position + 12 + length > len(data):
            break
        parts.append(chunk(data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        position += 12 + length
    return b"".join([*parts, data[position:]])


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip, cut, double, drop or overwrite some bytes."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        start = int(rng.integers(len(changed)))
        length = int(rng.integers(1, 24))
        match rng.integers(6):
            case 0:
                changed[start] ^= 1 << int(rng.integers(8))
            case 1:
                del changed[start + 1 :]
            case 2:
                changed[start:start] = changed[start : start + length]
            case 3:
                del changed[start : start + length]
            case 4:
                changed[start : start + length] = rng.integers(0, 256, length, np.uint8).tobytes()
            case 5:
                changed[start : start + 4] = bytes([255]) * 4
        if not changed:
            return b""
    return bytes(changed)
