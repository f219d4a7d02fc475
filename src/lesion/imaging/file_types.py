"""Which file names are taken for images, by every command, upload and archive alike."""

from pathlib import PurePath

# Of the types that the decoder reads (lesion.imaging.decode.FORMATS and DICOM). A file that a person names is decoded
# whatever it is called; these decide what is picked up from a folder, a table or an archive.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".dcm", ".dicom"}
)


def is_image_name(path: PurePath | str) -> bool:
    """Return whether a file name ends in one of ``IMAGE_SUFFIXES``, in upper or lower case."""
    return PurePath(path).suffix.lower() in IMAGE_SUFFIXES
