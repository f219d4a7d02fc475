"""Image files as they are stored: without what identifies a person, and with the pixels that they had."""

from dataclasses import dataclass

from lesion.core.files import bytes_sha256
from lesion.identity.pseudonyms import Pseudonyms
from lesion.imaging.dicom.recognition import is_dicom
from lesion.imaging.formats.metadata_removal import without_metadata
from lesion.imaging.limits import Limits, check_bytes


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """An image file that somebody sent, as it may be stored."""

    data: bytes
    sent_hash: str  # keyed, of the file as it was sent
    patient: str = ""  # the pseudonym of the patient that the file names; empty if it names none
    text_in_pixels: str = "no"  # yes, possible or no: whether the picture itself may show a name


def deidentify(data: bytes, limits: Limits, pseudonyms: Pseudonyms) -> ReceivedFile:
    """Take from an image file what identifies a person; its pixels stay what they are.

    DICOM is written again, see `lesion.imaging.dicom.deidentification`; other files lose what is written beside the
    picture, see `lesion.imaging.formats.metadata_removal`.

    Raises:
        ImageError: The file cannot be decoded, with the codes of `lesion.imaging.decode.decode`.
    """
    sent_hash = pseudonyms.sent(bytes_sha256(data))
    check_bytes(data, limits)
    if not is_dicom(data):
        return ReceivedFile(without_metadata(data), sent_hash)
    from lesion.imaging.dicom.deidentification import deidentify as deidentify_dicom  # an optional extra

    file = deidentify_dicom(data, limits, pseudonyms.uid)
    return ReceivedFile(file.data, sent_hash, pseudonyms.patient(file.patient_id), file.text_in_pixels)
