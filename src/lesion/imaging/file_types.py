"""File names of images, for every command, upload and archive alike."""

from pathlib import PurePath

# The types that the decoder reads: lesion.imaging.decode.FORMATS and DICOM. The suffix only decides which files of a
# folder, table or archive are read; a file that the user names is decoded whatever its name is.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".dcm", ".dicom"}
)


def is_image_name(path: PurePath | str) -> bool:
    """Return whether a file name ends in one of ``IMAGE_SUFFIXES``, in upper or lower case."""
    return PurePath(path).suffix.lower() in IMAGE_SUFFIXES
