"""Sound files of all formats, to be damaged: DICOM with all compressions where its packages are installed."""

import struct
import zlib

import numpy as np
from PIL import Image

from tests.support.images.hostile import chunk, encode, gradient, hostile_images, oriented
from tests.support.images.png_files import png_file
from tests.support.images.profiles import adobe_rgb, gray_gamma, gray_inks
from tests.support.images.tiff_files import DEFLATE, LZW, PACKBITS, Page, longs, shorts, tiff_file

COLOR = gradient()
GRAY = COLOR[..., :1]
DEEP = COLOR.astype(np.uint16) * 257
MAX_BYTES = 100_000


def fuzz_seeds() -> list[bytes]:
    """All seeds; files with very many bytes are left out."""
    made = [*png_seeds(), *tiff_seeds(), *other_seeds(), *dicom_seeds()]
    return [data for data in [*(file.data for file in hostile_images().values()), *made] if 40 < len(data) < MAX_BYTES]


def png_seeds() -> list[bytes]:
    icc = chunk(b"iCCP", b"a\0\0" + zlib.compress(adobe_rgb()))
    xmp = chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<a tiff:Orientation="6"/>')
    key = chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))
    alpha = np.dstack([DEEP, DEEP[..., :1]])
    files = [png_file(DEEP, "RGB", 16, filtered=4, interlaced=True, extra=icc + key)]
    files += [png_file(alpha, "RGBA", 16, filtered=3), png_file(DEEP[..., :2], "LA", 16, interlaced=True, extra=xmp)]
    files += [png_file(DEEP[..., :1], "L", 16, extra=chunk(b"tRNS", b"\0\1")), png_file(COLOR, "RGB", end=False)]
    return [*files, encode(Image.fromarray(COLOR).quantize(16), transparency=bytes(16))]


def tiff_seeds() -> list[bytes]:
    pages = [Page(DEEP, 2, planar=planar, compression=codec, predictor=codec == LZW, tile=tile)
             for planar in (False, True) for codec in (LZW, DEFLATE, PACKBITS) for tile in (0, 16)]  # fmt: skip
    pages += [
        Page(np.dstack([DEEP, DEEP[..., :1]]), 2, extra=(1,)),
        Page(DEEP[..., :1], 0),
        Page(COLOR[..., :2], 1, extra=(2,)),
    ]
    tags = {274: shorts(6), 700: (1, b"<a tiff:Orientation='3'/>"), 34675: (7, adobe_rgb())}
    pages += [Page(COLOR, 2, tags=tags), Page(np.dstack([COLOR, GRAY]), 5, tile=32)]
    several = [
        tiff_file(Page(GRAY, tags={254: longs(1)}), Page(GRAY)),
        tiff_file(Page(GRAY, tags={330: longs(8), 254: longs(1)})),
    ]
    files = [tiff_file(page, order=order) for page in pages for order in "<>"] + several
    picture = Image.fromarray(COLOR)
    files.append(encode(picture, "TIFF", compression="jpeg"))
    return [*files, encode(picture.convert("1"), "TIFF", compression="group4")]


def other_seeds() -> list[bytes]:
    picture = Image.fromarray(COLOR)
    clear = Image.fromarray(np.dstack([COLOR, GRAY]))
    options: list[dict[str, object]] = [
        {},
        {"progressive": True},
        {"restart_marker_blocks": 2},
        {"icc_profile": adobe_rgb()},
    ]
    files = [encode(picture, "JPEG", **one) for one in options]
    files += [files[0][:-2], files[1][:-2], files[2][:-2], encode(picture.convert("CMYK"), "JPEG")]
    files += [encode(picture.convert("L"), "JPEG", icc_profile=gray_gamma(1.8), exif=oriented(6))]
    files += [encode(picture.convert("CMYK"), "TIFF", icc_profile=gray_inks())]
    files += [
        encode(clear, "WEBP", xmp=b"<a/>", icc_profile=adobe_rgb(), lossless=lossless) for lossless in (True, False)
    ]
    files += [encode(picture, "WEBP", save_all=True, append_images=[clear]), encode(picture, "MPO", save_all=True)]
    return files + [encode(picture.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")]


def dicom_seeds() -> list[bytes]:
    """DICOM of gray and color, with windows and tables, plain and compressed; none without its packages."""
    try:
        import imagecodecs
        from pydicom import uid
        from pydicom.encaps import encapsulate

        from tests.support.images.dicom_files import dicom_file, table, without_preamble
    except ImportError:
        return []
    gray, deep = np.ascontiguousarray(GRAY[..., 0]), np.ascontiguousarray(DEEP[..., 0]) // 16
    window = {"WindowCenter": 2048, "WindowWidth": 4096, "PhotometricInterpretation": "MONOCHROME1"}
    files = [dicom_file(gray), dicom_file(COLOR), dicom_file(deep, **window), dicom_file(deep.astype(np.int16))]
    files += [dicom_file(deep, VOILUTSequence=[table(np.arange(256), bits=8)]), without_preamble(files[0])]
    files += [dicom_file(deep, RescaleSlope=2, RescaleIntercept=-1000, PixelPaddingValue=0)]
    files += [dicom_file(deep.byteswap(), syntax=uid.ExplicitVRBigEndian)]
    streams = [
        (uid.JPEGBaseline8Bit, encode(Image.fromarray(gray), "JPEG"), gray),
        (uid.JPEG2000Lossless, imagecodecs.jpeg2k_encode(deep, level=0, codecformat="j2k"), deep),
        (uid.JPEGLSLossless, imagecodecs.jpegls_encode(deep), deep),
        (uid.JPEGLosslessSV1, imagecodecs.jpeg8_encode(gray, lossless=True), gray),
        (uid.HTJ2KLossless, imagecodecs.htj2k_encode(gray), gray),
    ]
    for syntax, stream, like in streams:
        bits = {"BitsAllocated": 8 * like.itemsize, "BitsStored": 8 * like.itemsize, "HighBit": 8 * like.itemsize - 1}
        files.append(dicom_file(encapsulate([bytes(stream)]), shape=like.shape, syntax=syntax, **bits))
    return files
