"""What the intake knows of an upload, and what it decides about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from lesion.data.inspection import ImageRecord
from lesion.database.tables import Image


@dataclass(frozen=True, slots=True)
class ModelOpinion:
    """The champion's prediction for an image.

    Attributes:
        probabilities: Calibrated probability of each class.
        in_domain: Whether the image is similar to the training images.
        distance: The distance from the training images; 1 is the border of the domain.
        version: The champion's version.
    """

    probabilities: Mapping[str, float]
    in_domain: bool
    distance: float
    version: str

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Self:
        """Read an inference worker's response to a request with ``opinion=True``."""
        return cls(answer["probabilities"], answer["in_domain"], answer["domain_distance"], answer["model_version"])


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded image.

    Attributes:
        image: Its hashes, size and thumbnail.
        label: The class that the uploader gave.
        uploader: The name of the uploader's key.
        opinion: The champion's prediction; None if no champion can be asked.
        source: ``upload`` or ``feedback``.
        patient: Images with the same non-empty text stay on the same side of the split.
    """

    image: ImageRecord
    label: str
    uploader: str
    opinion: ModelOpinion | None = None
    source: str = "upload"
    patient: str = ""


@dataclass(frozen=True, slots=True)
class RelatedImage:
    """An image of the catalogue that is related to an upload.

    Attributes:
        row: Its row.
        frozen: Whether it is in a frozen gate generation.
        near: Whether it shows the same picture, perhaps altered; if not, it is only of the same patient.
    """

    row: Image
    frozen: bool
    near: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision about an upload.

    Attributes:
        status: ``accepted``, ``quarantined`` or ``rejected``.
        code: The reason for programs; empty for an image that is accepted without comment.
        reason: The reason for users.
        split: ``train``, ``val``, ``calibration``, ``gate`` or ``excluded``; empty unless the image is to be stored.
        group_key: Its group; empty unless the image is to be stored.
    """

    status: str
    code: str = ""
    reason: str = ""
    split: str = ""
    group_key: str = ""
