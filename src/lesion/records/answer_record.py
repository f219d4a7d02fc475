"""What is recorded of one answer: all that is needed to give it again, and nothing of the image but its keyed hash."""

import json
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Self

from lesion.core.errors import DataError


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """One answer to one image.

    Numbers are those of the answer: they are written with as many digits as give back the same number.
    """

    request_id: str
    at: str  # the moment in UTC, ISO 8601 with microseconds
    image: str  # keyed hash of the file as it was sent, see lesion.identity.pseudonyms.Pseudonyms.sent
    key_id: str  # id of the API key; empty where none was needed
    model_version: str
    engine: str  # the runtime and the device, such as ``openvino:cpu``
    precision: str  # ``f32``, ``bf16`` or ``f16``
    domain_level: float  # the share of images like the training images that may be called unlike them
    predicted_class: str
    probabilities: list[float]  # calibrated, in the order of the bundle's classes
    coverage: float | None  # of the prediction set
    prediction_set: list[str] | None  # None for bundles without rules for it
    in_domain: bool
    domain_distance: float
    domain_p_value: float | None
    abstain_reason: str | None

    def to_text(self) -> str:
        """Return the record as one line of JSON, always with the same members in the same order."""
        return json.dumps(asdict(self), ensure_ascii=True, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what :meth:`to_text` wrote; anything else is a DataError (``record_damaged``)."""
        try:
            values = json.loads(text)
            if set(values) != {field.name for field in fields(cls)}:
                raise ValueError("other members")
            record = cls(**values)
            if record.to_text() != text:
                raise ValueError("written in another way")
        except (TypeError, ValueError) as error:
            raise DataError(
                f"This is no record of an answer: {text[:80]!r} ({error}).", code="record_damaged"
            ) from error
        return record


def moment_text(moment: datetime) -> str:
    """Return a moment as records have it."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
