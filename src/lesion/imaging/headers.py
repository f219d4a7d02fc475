"""Headers of image files, parsed by hand so that third-party decoders only ever get pixels.

Each parser returns the size, the orientation, the color profile and the *picture*: the same file without its metadata.
Text, EXIF, XMP and private tags are where decompression bombs and decoder warnings come from. Every parser is linear in
the number of bytes and decodes nothing.
"""

import re
import struct
from collections.abc import Callable

from lesion.core.errors import ImageError
from lesion.imaging.formats import bmp, jpeg, png, tiff, webp
from lesion.imaging.formats.header import Header
from lesion.imaging.refusals import corrupt, truncated

_PARSERS: dict[str, tuple[bytes, Callable[[bytes], Header]]] = {
    "JPEG": (jpeg.SIGNATURE, jpeg.parse_jpeg),
    "PNG": (png.SIGNATURE, png.parse_png),
    "WEBP": (webp.SIGNATURE, webp.parse_webp),
    "BMP": (bmp.SIGNATURE, bmp.parse_bmp),
    "TIFF": (tiff.SIGNATURE, tiff.parse_tiff),
}


def read_header(data: bytes) -> Header | None:
    """Parse the header of a whole image file; return None if the first bytes belong to no supported format.

    The codes of the ImageError are image_truncated, image_corrupt and image_mode_not_supported.
    """
    for format_name, (signature, parse) in _PARSERS.items():
        if re.match(signature, data, re.DOTALL):
            try:
                return parse(data)
            except ImageError:
                raise
            except (struct.error, IndexError) as error:  # a fixed field lies beyond the end
                raise truncated(format_name, data) from error
            except Exception as error:  # no fault of a parser may take a request or a training down
                raise corrupt(format_name, "its header is damaged") from error
    return None
