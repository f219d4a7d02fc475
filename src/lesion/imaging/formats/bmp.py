"""The header of BMP files."""

import struct

from lesion.imaging.formats.header import Header
from lesion.imaging.refusals import unsupported

# The four bytes at 6 are reserved: programs write there what they like. The size of the header at 14 is 12 to 124.
SIGNATURE = rb"BM.{12}[\x0c-\x7c]\0\0\0"

_UNCOMPRESSED = (0, 3)  # BI_RGB and BI_BITFIELDS
_COMPRESSIONS = {1: "run-length compression", 2: "run-length compression", 4: "an embedded JPEG", 5: "an embedded PNG"}


def parse_bmp(data: bytes) -> Header:
    """Parse the header of a BMP file."""
    (header_size,) = struct.unpack_from("<I", data, 14)
    if header_size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        return Header("BMP", width, height, data, pixel_bytes=4 if bits > 8 else 1)
    if not 40 <= header_size <= 124:
        raise unsupported("BMP", f"a header of {header_size:,} bytes")
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression not in _UNCOMPRESSED:  # Pillow decodes run lengths in Python: many seconds for one image
        raise unsupported("BMP", _COMPRESSIONS.get(compression, f"compression method {compression}"))
    height = abs(height)  # a negative one: stored from the top
    return Header("BMP", width, height, data, pixel_bytes=4 if bits > 8 else 1)
