"""What the intake knows of an upload, and what it decides about it."""

import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lesion.data.inspection import ImageRecord
from lesion.database.tables import Image


@dataclass(frozen=True, slots=True)
class ModelOpinion:
    """The champion's prediction for an image."""

    probabilities: Mapping[str, float]
    in_domain: bool  # whether the image is similar to the training images
    distance: float  # the distance from the training images; 1 is the border of the domain
    version: str


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded image."""

    image: ImageRecord  # its hashes, size and thumbnail
    label: str
    uploader: str
    opinion: ModelOpinion | None = None  # the champion's prediction; None if no champion can be asked
    source: str = "upload"  # ``upload`` or ``feedback``
    patient: str = ""  # a pseudonym; images with the same one stay on the same side of the split
    sent_hash: str = ""  # keyed, of the file as it was sent
    text_in_pixels: str = "no"  # yes, possible or no: whether the picture itself may show a name
    may_correct: bool = False  # whether the uploader may change the label of an image that is stored

    @property
    def doubt(self) -> float | None:
        """The probability that the label is wrong, by the champion alone; None if no champion can be asked."""
        return None if self.opinion is None else 1 - self.opinion.probabilities.get(self.label, 0.0)


@dataclass(frozen=True, slots=True)
class RelatedImage:
    """An image of the catalogue that is related to an upload."""

    row: Image
    frozen: bool  # whether it is in a frozen gate generation
    near: bool  # whether it shows the same picture, perhaps altered; if not, it is only of the same patient


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision about an upload."""

    status: str  # ``accepted``, ``quarantined`` or ``rejected``
    code: str = ""  # the reason for programs; empty for an image that is accepted without comment
    reason: str = ""
    # ``train``, ``val``, ``calibration``, ``gate`` or ``excluded``; empty unless the image is to be stored.
    split: str = ""
    group_key: str = ""  # its group; empty unless the image is to be stored
    known_as: str = ""  # the hash of the image that it is, if it is known already
    corrected: tuple[str, ...] = ()  # the hashes of the stored images that get the label of the upload
    changes: tuple[int, ...] = ()  # of feedback that was stored, the ids of the audit log's entries about it


def match_class(name: str, classes: Collection[str]) -> str:
    """Return the class with this name, even if its accents are encoded differently; else the name, as NFC."""
    normal = unicodedata.normalize("NFC", name)
    return next((known for known in classes if unicodedata.normalize("NFC", known) == normal), normal)
