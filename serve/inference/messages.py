"""What API processes and inference workers send each other."""

import time
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """An image as it goes to an inference worker: the raw bytes, which are smaller than pixels and are decoded there.

    Attributes:
        data: The image file.
        explain: Whether to add an overlay.
        layers: Whether to add the image and the heat map of the overlay too.
        class_name: The class to explain; the predicted one when None.
        top_k: The number of probabilities in the answer; all when None.
        opinion: Whether the answer is for the intake of training data, as an :class:`OpinionAnswer`.
        trace: The trace of the request, or empty; see :func:`serve.observability.tracing.current`.
        created: When, by the monotonic clock that all processes of this machine share.
    """

    data: bytes
    explain: bool = False
    layers: bool = False
    class_name: str | None = None
    top_k: int | None = None
    opinion: bool = False
    trace: str = ""
    created: float = field(default_factory=time.monotonic)


class OpinionAnswer(TypedDict):
    """What the intake of training data needs to know of an image."""

    probabilities: dict[str, float]
    model_version: str
    in_domain: bool
    domain_distance: float


class InferenceAnswer(OpinionAnswer):
    """The members of a response of ``POST /predict``; see :class:`serve.http.schemas.PredictionAnswer`."""

    predicted_class: str
    confidence: float
    inference_time_ms: float
    explanation: NotRequired[dict[str, str]]
