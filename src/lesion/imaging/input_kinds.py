"""The kinds of files that people have, and what becomes of each: the source of docs/inputs.md.

All doors decode alike, so one code says for all of them why a file is refused. What differs is which files of a folder
are looked at: see `lesion.imaging.file_types`. A test makes a file of each kind and decodes it.
"""

from typing import NamedTuple


class InputKind(NamedTuple):
    """One kind of file."""

    name: str
    code: str | None  # of the refusal; None: it is read
    remark: str  # how it is read, or what to do instead
    suffix: str = ""  # as the files of a type that is refused are usually called: a folder's are left out


_8_BITS = "save it with 8 bits a channel"
_AS_PNG = "save it as PNG or JPEG"

INPUT_KINDS = (
    InputKind("JPEG: gray, color, CMYK and YCCK; baseline, progressive, arithmetic, lossless", None, "of 8 bits"),
    InputKind("JPEG without its end marker", None, "if all its pixels are there"),
    InputKind("JPEG with 12 bits", "image_mode_not_supported", _8_BITS),
    InputKind("MPO", None, "its first picture"),
    InputKind("PNG: gray, color, palette, transparency; 1 to 16 bits; interlaced", None, ""),
    InputKind("PNG without its end, or with something else there", None, "if all its pixels are there"),
    InputKind("APNG with several pictures", "image_animated", "save the one that is meant"),
    InputKind("WebP: lossy, lossless, transparency", None, ""),
    InputKind("WebP with several pictures", "image_animated", "save the one that is meant"),
    InputKind("BMP: 1 to 32 bits, with any reserved bytes", None, ""),
    InputKind("BMP with run-length compression", "image_mode_not_supported", _AS_PNG),
    InputKind("TIFF: gray (black or white is 0), color, palette, CMYK; 1 to 16 bits; strips, tiles, planes", None,
              "no compression, CCITT, LZW, Deflate, PackBits, JPEG"),
    InputKind("TIFF with a thumbnail or a mask as a further page", None, "the page of full size"),
    InputKind("TIFF with several full pages", "image_animated", "save the page that is meant"),
    InputKind("TIFF with fractions (floating point)", "image_mode_not_supported", _8_BITS),
    InputKind("TIFF with values outside 0 to 65,535", "image_mode_not_supported", _8_BITS),
    InputKind("TIFF with a camera's raw data (DNG)", "image_mode_not_supported", f"develop it, and {_AS_PNG}"),
    InputKind("BigTIFF", "image_type_not_supported", _AS_PNG),
    InputKind("DICOM with one picture", None, "needs the extra `lesion[dicom]`"),
    InputKind("DICOM with several frames", "image_animated", "save the frame that is meant"),
    InputKind("GIF", "image_type_not_supported", _AS_PNG, ".gif"),
    InputKind("AVIF", "image_type_not_supported", _AS_PNG, ".avif"),
    InputKind("HEIC", "image_type_not_supported", _AS_PNG, ".heic"),
    InputKind("HEIF", "image_type_not_supported", _AS_PNG, ".heif"),
    InputKind("JPEG XL", "image_type_not_supported", _AS_PNG, ".jxl"),
    InputKind("JPEG 2000", "image_type_not_supported", _AS_PNG, ".jp2"),
    InputKind("SVG", "image_type_not_supported", _AS_PNG),
    InputKind("PDF", "image_type_not_supported", "save its picture as PNG or JPEG"),
    InputKind("PSD", "image_type_not_supported", _AS_PNG),
    InputKind("NIfTI", "image_type_not_supported", "save the slice that is meant as PNG"),
    InputKind("a text, a web page, random bytes", "image_not_recognised", "send a picture"),
    InputKind("an empty file", "image_empty", "send the file's content"),
    InputKind("a file that lacks pixels", "image_truncated", "send the whole file again"),
    InputKind("a file that contradicts itself", "image_corrupt", "open it in a viewer, and save it again"),
    InputKind("more bytes than `max_image_bytes`", "image_too_many_bytes", "make it smaller"),
    InputKind("more pixels than `max_pixels`", "image_too_many_pixels", "make it smaller"),
    InputKind("more than 6 bytes for each of `max_pixels` while it is decoded, such as a large WebP",
              "image_too_many_pixels", "make it smaller"),
    InputKind("a side of fewer pixels than `min_side`", "image_too_small", "send a larger one"),
)  # fmt: skip
