"""What the parsers of all formats return, and how much of a file they look at."""

from dataclasses import dataclass

from lesion.imaging.formats.sample_layout import SampleLayout

MAX_PARTS = 65_536  # chunks or segments; a 20 MB PNG in chunks of 1 KB has 20,000


@dataclass(frozen=True, slots=True)
class Header:
    """The header of an image file."""

    format: str  # JPEG, PNG, WEBP, BMP or TIFF
    width: int  # as stored, before orientation
    height: int
    picture: bytes  # the file without its metadata
    orientation: int = 1  # as in EXIF, 1 to 8; 1 where it is missing or damaged
    animated: bool = False  # whether the file contains more than one picture
    profile: bytes = b""  # the ICC color profile, unchecked
    ended: bool = True  # whether a JPEG file has its end marker
    whole: bool = True  # False: a TIFF file is too short for its size
    exif: bytes = b""  # the block of EXIF data, unchecked; a TIFF file is one itself
    layout: SampleLayout | None = None  # samples that Pillow would cut to 8 bits, and how they are read
    pixel_bytes: int = 4  # of one pixel while it is decoded, as Pillow and its codec hold it
    buffers: int = 0  # bytes that the codec holds beside the picture
