"""Gives a recorded answer again, and tells whether it is the same to the last bit."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesion.core.errors import ConflictError, ImageError
from lesion.core.files import bytes_sha256
from lesion.identity.pseudonyms import Pseudonyms
from lesion.model.engines import Precision
from lesion.model.predictor import Prediction, Predictor
from lesion.records.answer_record import AnswerRecord


class OtherImageError(ConflictError):
    """The image is not the one that the record is about."""

    default_code = "record_image_differs"


@dataclass(frozen=True, slots=True)
class Reproduction:
    """How a recorded answer differs from what the same model answers now."""

    same: bool  # whether all that was recorded of the answer is the same to the last bit
    largest_difference: float  # of a probability
    engine: str  # of the answer now
    differing: tuple[str, ...]  # names of what is not the same


def check_image(record: AnswerRecord, data: bytes, pseudonyms: Pseudonyms) -> None:
    """Raise an OtherImageError if a file is not the one that was sent with a record's request."""
    if pseudonyms.sent(bytes_sha256(data)) != record.image:
        raise OtherImageError("This is not the file that was sent with this request. Give that file, unchanged.")


def reproduce(record: AnswerRecord, bundle: Path, data: bytes) -> Reproduction:
    """Answer again, with a record's model version, engine and settings.

    The engine on a CPU gives the same bits on the same kind of processor; on a GPU they may depend on what else was in
    the batch.

    Args:
        record: The record.
        bundle: The folder of the bundle that answered.
        data: The image file.

    Raises:
        BundleError: The bundle is not whole.
        ConfigError: The engine that answered is not available here.
        ImageError: The file is refused.
    """
    device = {"openvino:cpu": "cpu", "torch:cpu": "torch"}.get(record.engine, record.engine.removeprefix("torch:"))
    precision: Precision = record.precision  # type: ignore[assignment]
    predictor = Predictor.load(bundle, device=device, precision=precision, domain_level=record.domain_level)
    [prediction] = predictor.predict([data])
    if isinstance(prediction, ImageError):
        raise prediction
    now = answer_facts(prediction, record.coverage)
    differing = tuple(name for name, value in now.items() if getattr(record, name) != value)
    before = np.array(record.probabilities)
    differences = np.abs(before - np.array(list(prediction.probabilities.values())))
    return Reproduction(not differing, float(differences.max()), predictor.engine.name, differing)


def answer_facts(prediction: Prediction, coverage: float | None) -> dict[str, object]:
    """Return what a record has of a prediction, by name."""
    members = None if coverage is None else prediction.prediction_set(coverage)
    return {
        "model_version": prediction.model_version,
        "predicted_class": prediction.predicted_class,
        "probabilities": list(prediction.probabilities.values()),
        "prediction_set": None if members is None else list(members),
        "in_domain": prediction.in_domain,
        "domain_distance": prediction.domain_distance,
        "domain_p_value": prediction.domain_p_value,
        "abstain_reason": prediction.abstention,
    }
