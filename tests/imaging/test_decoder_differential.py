"""The decoder against ImageMagick: several hundred generated files give the same pixels, or a refusal that is listed.

Both decode 16 bits in full range here: that fewer bits in use are scaled up is Lesion's own rule, which other tests
cover. ImageMagick blends transparency with black and converts profiles to sRGB as it is told to.
"""

import io
import itertools
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageCms

from lesion.core.errors import ImageError
from lesion.imaging.decode import decode
from tests.support.images.hostile import chunk, encode, oriented
from tests.support.images.png_files import png_file
from tests.support.images.profiles import adobe_rgb, gray_gamma, wide_rgb
from tests.support.images.tiff_files import DEFLATE, LZW, NONE, PACKBITS, Page, shorts, tiff_file

HEIGHT, WIDTH = 37, 45  # no multiples of 8 or 16
# The highest difference of a pixel in gray levels of 255. Lesion reduces to 8 bits before it blends and converts.
EXACT, ROUNDED, BLENDED, LOSSY, CONVERTED = 0, 1, 2, 3, 4
# ImageMagick 6 reads no orientation of PNG and WebP; it is told there.
ORIENTATIONS = (
    "",
    "TopLeft",
    "TopRight",
    "BottomRight",
    "BottomLeft",
    "LeftTop",
    "RightTop",
    "RightBottom",
    "LeftBottom",
)


class Case(NamedTuple):
    """A file for both decoders."""

    data: bytes
    suffix: str
    tolerance: int = EXACT
    turn: int = 0  # the orientation that ImageMagick has to be told
    profiled: bool = False


def picture(mode: str, bits: int = 8, seed: int = 0) -> np.ndarray:
    """Smooth waves with some noise that use the whole range; one of alpha begins at 0 and ends opaque."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "CMYKA": 5, "P": 1}[mode]
    waves = [0.5 + 0.5 * np.sin(rows / (5 + index) + columns / (9 - index) + index) for index in range(channels)]
    values = np.stack(waves, -1) * 0.96 + 0.04 * rng.random((HEIGHT, WIDTH, channels))
    values = (values - values.min((0, 1))) / np.ptp(values, axis=(0, 1))
    samples: np.ndarray = np.round(values * (2**bits - 1)).astype(np.uint16 if bits == 16 else np.uint8)
    return samples


def png_cases() -> Iterator[tuple[str, Case]]:
    palette = np.random.default_rng(1).integers(0, 256, 3 * 256, np.uint8).tobytes()
    kinds = [("L", 1), ("L", 2), ("L", 4), ("L", 8), ("L", 16), ("LA", 8), ("LA", 16), ("RGB", 8), ("RGB", 16)]
    kinds += [("RGBA", 8), ("RGBA", 16), ("P", 1), ("P", 2), ("P", 4), ("P", 8)]
    for (mode, bits), filtered, interlaced in itertools.product(kinds, range(5), (False, True)):
        extra = chunk(b"PLTE", palette[: 3 * 2**bits]) if mode == "P" else b""
        data = png_file(picture(mode, bits), mode, bits, filtered=filtered, interlaced=interlaced, extra=extra)
        yield (
            f"{mode}{bits} filter {filtered} interlaced {interlaced}",
            Case(data, "png", BLENDED if "A" in mode else ROUNDED),
        )
    alphas = chunk(b"PLTE", palette) + chunk(b"tRNS", bytes(range(256)))
    yield "palette with alphas", Case(png_file(picture("P"), "P", 8, extra=alphas), "png", ROUNDED)
    for mode, bits in (("L", 8), ("L", 16), ("RGB", 8), ("RGB", 16)):
        samples = picture(mode, bits)
        samples[5:20, 7:30] = samples[11, 13]
        key = chunk(b"tRNS", samples[11, 13].astype(">u2").tobytes())
        yield f"{mode}{bits} with a transparent color", Case(png_file(samples, mode, bits, extra=key), "png", ROUNDED)


def tiff_cases() -> Iterator[tuple[str, Case]]:
    kinds = [("L", 1, ()), ("L", 0, ()), ("LA", 1, (2,)), ("RGB", 2, ()), ("RGBA", 2, (2,)), ("CMYK", 5, ())]
    layouts = itertools.product(kinds, (8, 16), (NONE, LZW, DEFLATE, PACKBITS), (False, True), (0, 16), "<>")
    for (mode, photometric, extra), bits, compression, planar, tile, order in layouts:
        samples = picture(mode, bits)
        # ImageMagick 6 passes over the plane of gray's transparency; another test compares that layout.
        if (planar and mode in ("L", "LA")) or (tile and order == ">"):
            continue
        page = Page(samples, photometric, planar, compression, extra=extra, tile=tile, strip_rows=0 if tile else 11)
        name = f"{mode}{bits} photometric {photometric} compression {compression} planar {planar} tile {tile} {order}"
        yield name, Case(tiff_file(page, order=order), "tif", BLENDED)
        if compression in (LZW, DEFLATE):
            page = Page(samples, photometric, planar, compression, True, tile, 0 if tile else 11, extra)
            yield f"{name} predictor", Case(tiff_file(page, order=order), "tif", BLENDED)
    for colors, photometric in (("L", 1), ("RGB", 2)):
        for bits in (8, 16):
            samples = picture(colors + "A", bits).astype(np.int64)
            samples[..., :-1] = samples[..., :-1] * samples[..., -1:] // (2**bits - 1)  # blended with black already
            page = Page(samples.astype(np.uint16 if bits == 16 else np.uint8), photometric, extra=(1,))
            yield f"{colors}{bits} with premultiplied alpha", Case(tiff_file(page), "tif", BLENDED)
    for codec in ("group3", "group4", "packbits", "tiff_lzw"):
        data = encode(Image.fromarray(picture("L")[..., 0]).convert("1"), "TIFF", compression=codec)
        yield f"bilevel {codec}", Case(data, "tif")
    for mode in ("P", "L", "RGB"):
        data = encode(Image.fromarray(picture("RGB")).convert(mode), "TIFF", compression="tiff_lzw")
        yield f"Pillow's {mode}", Case(data, "tif", ROUNDED)
    data = encode(picture("RGB"), "TIFF", compression="jpeg", quality=90)
    yield "JPEG in TIFF", Case(data, "tif", LOSSY)


def jpeg_cases() -> Iterator[tuple[str, Case]]:
    source = Image.fromarray(picture("RGB"))
    for mode, subsampling, progressive, quality in itertools.product(
        ("L", "RGB", "CMYK"), (0, 1, 2), (False, True), (40, 95)
    ):
        options = {"progressive": progressive, "quality": quality}
        options |= {} if mode == "L" else {"subsampling": subsampling}
        data = encode(source.convert(mode), "JPEG", **options)
        yield f"{mode} {subsampling} progressive {progressive} quality {quality}", Case(data, "jpg", LOSSY)
    inks = encode(source.convert("CMYK"), "JPEG", quality=95, subsampling=0)
    place = inks.index(b"\xff\xee")
    yield "inks without Adobe's marker", Case(inks[:place] + inks[place + 16 :], "jpg", LOSSY)
    yield "YCCK", Case(inks[: place + 15] + b"\2" + inks[place + 16 :], "jpg", LOSSY)
    yield "restart markers", Case(encode(source, "JPEG", restart_marker_blocks=3), "jpg", LOSSY)


def webp_and_bmp_cases() -> Iterator[tuple[str, Case]]:
    for mode, lossless in itertools.product(("RGB", "RGBA"), (True, False)):
        data = encode(Image.fromarray(picture(mode)), "WEBP", lossless=lossless, exact=True)
        yield f"WebP {mode} lossless {lossless}", Case(data, "webp", LOSSY)
    source = Image.fromarray(picture("RGB"))
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"BMP {mode}", Case(encode(source.convert(mode), "BMP"), "bmp")
    for masks in ((0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)):  # 5 bits a channel; 6 bits of green
        values = np.random.default_rng(3).integers(0, 2**15, (HEIGHT, WIDTH + 1)).astype("<u2").tobytes()
        head = struct.pack("<IiiHHIIiiII3I", 40, WIDTH + 1, HEIGHT, 1, 16, 3, 0, 0, 0, 0, 0, *masks)
        data = b"BM" + struct.pack("<IHHI", 14 + len(head) + len(values), 0, 0, 14 + len(head)) + head + values
        yield f"BMP of 16 bits {masks[1]:x}", Case(data, "bmp", BLENDED)


def oriented_cases() -> Iterator[tuple[str, Case]]:
    samples = picture("RGB")
    deep = picture("RGB", 16)
    for turn in range(1, 9):
        exif = oriented(turn)
        yield f"PNG turned {turn}", Case(encode(samples, exif=exif), "png", turn=turn)
        yield f"JPEG turned {turn}", Case(encode(samples, "JPEG", exif=exif, quality=95), "jpg", LOSSY)
        yield f"WebP turned {turn}", Case(encode(samples, "WEBP", exif=exif, lossless=True), "webp", turn=turn)
        page = Page(deep, 2, tags={274: shorts(turn)})
        yield f"TIFF turned {turn}", Case(tiff_file(page), "tif", ROUNDED)


def refused_cases() -> Iterator[tuple[str, Case]]:
    yield "fractions", Case(encode(Image.new("F", (WIDTH, HEIGHT), 0.5), "TIFF"), "tif")
    yield "Lab", Case(encode(Image.fromarray(picture("RGB"), "LAB"), "TIFF"), "tif")
    yield (
        "7 channels",
        Case(tiff_file(Page(np.dstack([picture("RGBA"), picture("RGB")]), 2, extra=(0, 0, 0, 0))), "tif"),
    )


def profile_cases() -> Iterator[tuple[str, Case]]:
    profiles = {"Adobe RGB": adobe_rgb(), "wide": wide_rgb()}
    profiles["sRGB"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    samples = picture("RGB")
    for name, profile in profiles.items():
        yield f"PNG {name}", Case(encode(samples, icc_profile=profile), "png", CONVERTED, profiled=True)
        yield f"TIFF {name}", Case(encode(samples, "TIFF", icc_profile=profile), "tif", CONVERTED, profiled=True)
        yield (
            f"WebP {name}",
            Case(encode(samples, "WEBP", icc_profile=profile, lossless=True), "webp", CONVERTED, profiled=True),
        )
        yield (
            f"JPEG {name}",
            Case(encode(samples, "JPEG", icc_profile=profile, quality=95), "jpg", 2 * CONVERTED, profiled=True),
        )
        packed = chunk(b"iCCP", b"p\0\0" + zlib.compress(profile))
        data = png_file(picture("RGB", 16), "RGB", 16, extra=packed)
        yield f"PNG of 16 bits {name}", Case(data, "png", CONVERTED + ROUNDED, profiled=True)
    gray = Image.fromarray(picture("L")[..., 0])
    yield "gray PNG", Case(encode(gray, icc_profile=gray_gamma(1.8)), "png", CONVERTED, profiled=True)


@cache
def cases() -> dict[str, Case]:
    """All files by kind and name."""
    kinds = (png_cases, tiff_cases, jpeg_cases, webp_and_bmp_cases, oriented_cases, profile_cases, refused_cases)
    return {f"{made.__name__.removesuffix('_cases')}: {name}": case for made in kinds for name, case in made()}


# What Lesion refuses although ImageMagick reads it, and why.
REFUSED = {  # the code by the name of the case
    "refused: fractions": "image_mode_not_supported",
    "refused: Lab": "image_mode_not_supported",
    "refused: 7 channels": "image_mode_not_supported",
}


@pytest.fixture(scope="session")
def imagemagick() -> str:
    """The command; the test is skipped where it is not the real one."""
    for command in ("convert", "magick"):
        if shutil.which(command):
            said = subprocess.run([command, "-version"], capture_output=True, text=True, check=False).stdout
            if said.startswith("Version: ImageMagick"):
                return command
    pytest.skip("There is no ImageMagick (apt-get install imagemagick).")


def magick_pixels(command: str, case: Case, file: Path, srgb: Path) -> np.ndarray:
    """The file as ImageMagick shows it, (H, W, 3)."""
    turn = ["-orient", ORIENTATIONS[case.turn]] if case.turn else []
    convert = ["-black-point-compensation", "-profile", str(srgb)] if case.profiled else []
    blend = ["-background", "black", "-alpha", "remove", "-colorspace", "sRGB", "-depth", "8", "ppm:-"]
    arguments = [command, f"{file}[0]", *turn, "-auto-orient", *convert, *blend]
    done = subprocess.run(arguments, capture_output=True, check=True)
    return np.asarray(Image.open(io.BytesIO(done.stdout)).convert("RGB"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "tiff", "jpeg", "webp_and_bmp", "oriented", "profile", "refused"])
def test_the_pixels_are_those_of_imagemagick(kind: str, imagemagick: str, tmp_path: Path):
    srgb = tmp_path / "srgb.icc"
    srgb.write_bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    wrong = []
    for name, case in cases().items():
        if not name.startswith(f"{kind}: "):
            continue
        file = tmp_path / f"picture.{case.suffix}"
        file.write_bytes(case.data)
        try:
            ours = decode(case.data)
        except ImageError as error:
            wrong += [] if REFUSED.get(name) == error.code else [f"{name}: {error.code}"]
            continue
        theirs = magick_pixels(imagemagick, case, file, srgb)
        difference = np.abs(ours.astype(int) - theirs).max() if ours.shape == theirs.shape else f"{theirs.shape}"
        if isinstance(difference, str) or difference > case.tolerance:
            wrong.append(f"{name}: differs by {difference}")
    assert not wrong, "\n".join(wrong)


def test_there_are_many_cases():
    assert len(cases()) >= 200
    assert len({case.data for case in cases().values()}) > 0.95 * len(cases())
