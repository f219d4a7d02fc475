"""File names of images, for every command, upload and archive alike."""

from importlib.util import find_spec
from pathlib import Path, PurePath

from lesion.imaging.dicom.recognition import HEAD_BYTES, is_dicom

# The types that the decoder reads (lesion.imaging.decode.FORMATS and DICOM), with their suffixes. The suffix only
# decides which files of a folder or table are read; a file that the user names is decoded whatever its name is.
IMAGE_TYPES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "DICOM": (".dcm", ".dicom", ".ima"),
}
IMAGE_SUFFIXES = frozenset(suffix for suffixes in IMAGE_TYPES.values() for suffix in suffixes)
_DICOM_INDEX = "DICOMDIR"  # the list of files on a medium, which is a DICOM file without a picture


def readable_types() -> list[str]:
    """Return the names of the types that can be read here: DICOM needs the packages of the extra lesion[dicom]."""
    return [name for name in IMAGE_TYPES if name != "DICOM" or (find_spec("pydicom") and find_spec("imagecodecs"))]


def is_image_name(path: PurePath | str) -> bool:
    """Return whether a file name ends in one of ``IMAGE_SUFFIXES``, in upper or lower case."""
    return PurePath(path).suffix.lower() in IMAGE_SUFFIXES


def is_image(path: Path) -> bool:
    """Return whether a file is an image by its name or, without a suffix of letters, whether it is a DICOM file.

    Scanners write DICOM files without a suffix, or with the last number of an identifier in its place.
    """
    if is_image_name(path):
        return True
    if (path.suffix and not path.suffix[1:].isdigit()) or path.name.upper() == _DICOM_INDEX:
        return False
    try:
        with path.open("rb") as file:
            return is_dicom(file.read(HEAD_BYTES))
    except OSError:
        return False
