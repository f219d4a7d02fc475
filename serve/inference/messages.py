"""What API processes and inference workers send each other."""

import time
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from lesion.conformal.abstention import AbstentionReason
from lesion.conformal.prediction_sets import DEFAULT_COVERAGE
from lesion.explanation.explanation import Method
from lesion.explanation.occlusion import Boxes, Odds
from lesion.imaging.limits import Limits
from lesion.imaging.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """An image as it goes to an inference worker: raw bytes, smaller than pixels, which are decoded there.

    Only a large image is decoded elsewhere, see `LargeImage`, and goes as the pixels that the network needs.
    """

    data: bytes  # the image file, or what ``fitted`` made of it
    explain: bool = False  # whether to add an overlay
    method: Method = "occlusion"  # of the overlay
    layers: bool = False  # whether to add the image and the heat map of the overlay too
    class_name: str | None = None  # the class to explain; the predicted one when None
    top_k: int | None = None  # the number of probabilities in the answer; all when None
    coverage: float = DEFAULT_COVERAGE  # of the prediction set
    record: bool = False  # whether the answer is recorded
    opinion: bool = False  # whether the answer is for the intake of training data, as a ModelOpinion
    fitted: Preprocessing | None = None  # what made ``data`` the network's input; None for an image file
    trace: str = ""  # the trace of the request, or empty; see :func:`serve.observability.tracing.current`
    # When, by the monotonic clock that all processes of this machine share.
    created: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class LargeImage:
    """The answer to an image that takes more memory than an inference worker may use: how to fit it elsewhere.

    It is also the answer to one that was fitted for another model.
    """

    preprocessing: Preprocessing  # of the model that the worker serves
    limits: Limits


class InferenceAnswer(TypedDict):
    """The members of a response of ``POST /predict``; see :class:`serve.http.schemas.PredictionAnswer`."""

    abstain: bool
    abstain_reason: AbstentionReason | None
    predicted_class: str
    confidence: float
    probabilities: dict[str, float]
    inference_time_ms: float
    model_version: str
    in_domain: bool
    domain_distance: float
    domain_p_value: float | None
    unnoticed_kinds: list[str] | None
    prediction_set: list[str] | None
    coverage: float | None
    similar_answers: dict[str, float] | None
    recorded: NotRequired[dict[str, Any]]  # for the record of the answer; it is not sent to the client
    explanation: NotRequired[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Unexplained:
    """A prediction whose heat map is still to be made, in parts, so that other requests do not wait for it."""

    answer: InferenceAnswer
    image: bytes  # (S, S, 3) uint8, as the network received it
    size: int  # S
    class_name: str  # the class to explain


@dataclass(frozen=True, slots=True)
class CoverRequest:
    """Squares of an image to cover, one after the other; the answer is the class's odds, (N, 2), under each."""

    data: bytes  # the image, (S, S, 3) uint8
    size: int
    class_name: str
    boxes: Boxes  # (N, 4); none for the odds of the uncovered image
    model_version: str  # another version must not answer
    trace: str = ""
    created: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class MapRequest:
    """All that was measured of an image, to be made a heat map; the answer is the member ``explanation``."""

    data: bytes
    size: int
    class_name: str
    before: Odds  # (1, 2)
    coarse: Odds
    boxes: Boxes  # the small squares
    fine: Odds
    layers: bool = False
    trace: str = ""
    created: float = field(default_factory=time.monotonic)


Request = InferenceRequest | CoverRequest | MapRequest
