"""File names of images, for every command, upload and archive alike."""

from pathlib import Path, PurePath

# The types that the decoder reads: lesion.imaging.decode.FORMATS and DICOM. The suffix only decides which files of a
# folder, table or archive are read; a file that the user names is decoded whatever its name is.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".dcm", ".dicom", ".ima"}
)
_DICOM_START = 132  # bytes: the preamble and the mark DICM


def is_image_name(path: PurePath | str) -> bool:
    """Return whether a file name ends in one of ``IMAGE_SUFFIXES``, in upper or lower case."""
    return PurePath(path).suffix.lower() in IMAGE_SUFFIXES


def is_image(path: Path) -> bool:
    """Return whether a file is an image by its name or, without a suffix of letters, whether it is a DICOM file.

    Scanners write DICOM files without a suffix, or with the last number of an identifier in its place.
    """
    if is_image_name(path):
        return True
    if path.suffix and not path.suffix[1:].isdigit():
        return False
    try:
        with path.open("rb") as file:
            return file.read(_DICOM_START)[-4:] == b"DICM"
    except OSError:
        return False
