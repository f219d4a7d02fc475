"""The JSON documents of the API that several modules use."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from lesion.explanation.explanation import Doubt, Method
from lesion.intake.zip_reader import ZipLimits
from lesion.registry.deployments import MAX_REASON
from serve.settings import ServerSettings

_PREDICTION: dict[str, Any] = {
    "abstain": True,  # FastAPI leaves members that are null out of examples
    "abstain_reason": "unsure",
    "predicted_class": "glioma",
    "confidence": 0.57,
    "probabilities": {"glioma": 0.57, "meningioma": 0.41, "pituitary": 0.015, "notumor": 0.005},
    "inference_time_ms": 2.6,
    "model_version": "3f9a0c41d2be",
    "domain_distance": 0.71,
    "in_domain": True,
    "domain_p_value": 0.41,
    "unnoticed_kinds": ["upside_down"],
    "prediction_set": ["glioma", "meningioma"],
    "coverage": 0.9,
    "similar_answers": {"low": 0.5, "high": 0.6, "images": 24, "right": 14},
    "request_id": "0b7e3c52b0f44f5b8a6d2f9f0c1f4f11",
}
_PROBLEM: dict[str, Any] = {
    "type": "about:blank",
    "title": "Unsupported Media Type",
    "status": 415,
    "detail": "The 5 bytes are not recognized as an image.",
    "code": "image_not_recognised",
    "request_id": "0b7e3c52b0f44f5b8a6d2f9f0c1f4f11",
}


class Explanation(BaseModel):
    """Where the answer for one class comes from."""

    model_config = ConfigDict(populate_by_name=True)

    class_name: str = Field(alias="class", description="The class that is explained.")
    method: Method = Field(
        description="`occlusion`: the heat of a place is by how much covering it lowers the odds of the class. "
        "`grad-cam`: the network's last activation, weighted for the class."
    )
    grid: tuple[int, int] = Field(description="The rows and columns of places that the map tells apart.")
    foreground_share: float | None = Field(
        description="The share of the heat on what is pictured. Null for an image without a dark background."
    )
    reliable: bool = Field(description="Whether there are no doubts.")
    doubts: list[Doubt] = Field(
        description="Why the map says little: covering no one place changes the answer much; most heat lies on the "
        "dark background; it has fewer than 7 × 7 places."
    )
    probability: float | None = Field(description="The probability of the class. Null for `grad-cam`.")
    covered_probability: float | None = Field(
        description="The same with the place covered that changes it most. Null for `grad-cam`."
    )
    overlay_png_base64: str = Field(
        description="The heat map over the image as the network received it: a PNG file in base64."
    )
    image_png_base64: str | None = Field(
        default=None, description="The image without the heat map: a PNG file. Present when layers=true."
    )
    heatmap_png_base64: str | None = Field(
        default=None,
        description="The heat map alone: a PNG file of the same size, 8 bit gray, white at its highest. Present if "
        "layers=true.",
    )


class SimilarAnswers(BaseModel):
    """How many of the test images that were answered with a confidence from `low` to below `high` were right."""

    low: float
    high: float
    images: int
    right: int


class PredictionAnswer(BaseModel):
    """The answer for one image."""

    model_config = ConfigDict(json_schema_extra={"examples": [_PREDICTION]})

    abstain: bool = Field(description="Whether the answer should be withheld.")
    abstain_reason: Literal["not_recognized", "unsure"] | None = Field(
        description="Why: the image is not in the domain, or the confidence is below 0.6 or below the one from which "
        "on the model keeps its promised share of wrong answers; see `answer_rules` of `/info`."
    )
    predicted_class: str = Field(description="The most probable class.")
    confidence: float = Field(ge=0, le=1, description="Its calibrated probability.")
    probabilities: dict[str, float] = Field(description="Calibrated probabilities, the most probable class first.")
    inference_time_ms: float = Field(ge=0, description="Milliseconds the model took for the batch with this image.")
    model_version: str = Field(description="The version of the bundle that answered.")
    domain_distance: float = Field(
        ge=0, description="The distance of the image from the training images: 1 is the border of the model's domain."
    )
    in_domain: bool = Field(
        description="Whether the image is within the border; if not, the probabilities mean little."
    )
    domain_p_value: float | None = Field(
        gt=0,
        le=1,
        description="The share of images like the training images that look as unusual as this one, from calibration "
        "images; `server.domain_level` is where the border lies. Null for models of older versions.",
    )
    unnoticed_kinds: list[str] | None = Field(
        description="Kinds of foreign images that are not reliably recognized: fewer than nine in ten were in the "
        "trial of this model, `domain_trial` of `/info`. Null for models of older versions."
    )
    prediction_set: list[str] | None = Field(
        description="The classes that the image may have, the most probable first: made so that for the share "
        "`coverage` of the images of each class, one from each group of related images, the list has the class, if "
        "they are like the images of training. Null for models that have no calibration images or are older."
    )
    coverage: float | None = Field(description="That share.")
    similar_answers: SimilarAnswers | None = Field(
        description="The test images that were answered with about this confidence. Null if they were fewer than 20, "
        "for images outside the domain and for models of older versions."
    )
    request_id: str = Field(description="The id of this request; also the header X-Request-ID.")
    explanation: Explanation | None = Field(default=None, description="Present when explain=true.")


class Workers(BaseModel):
    """The inference workers."""

    ready: int
    total: int
    versions: list[str | None] = Field(description="The model version that each inference worker serves.")


class Health(BaseModel):
    """Whether the server answers predictions."""

    status: Literal["ready", "degraded", "unavailable"]
    live: bool = Field(description="Whether the process answers at all.")
    ready: bool = Field(description="Whether predictions are answered.")
    workers: Workers
    model_version: str = Field(description="The champion, as far as this process knows.")
    ledger: Literal["none", "followed", "unreachable"] = Field(
        description="Whether changes of the champion arrive; `none` without a storage. If not, the last model is used."
    )


class ServerLimits(BaseModel):
    """The limits of requests; see :class:`serve.settings.ServerSettings`."""

    max_body_bytes: int
    max_upload_bytes: int
    max_image_bytes: int
    max_pixels: int
    min_side: int
    max_archive_entries: int = Field(description="Files and folders of an uploaded ZIP archive.")
    queue_size: int
    request_timeout_s: float

    @classmethod
    def of(cls, settings: ServerSettings) -> Self:
        """Return the limits of a server."""
        return cls(
            **settings.model_dump(include=set(cls.model_fields)),
            max_archive_entries=ZipLimits().max_entries,
            request_timeout_s=settings.request_timeout,
        )


class Info(BaseModel):
    """The model that is served, and its engine."""

    name: str
    model_version: str
    created: str | None
    classes: list[str]
    class_names: dict[str, str] = Field(description="The name by which each class is shown to persons.")
    preprocessing: dict[str, Any]
    calibration: dict[str, Any]
    answer_rules: dict[str, Any] | None = Field(
        description="The thresholds of the prediction sets, by coverage and class, and of the abstention."
    )
    domain_trial: dict[str, Any] | None = Field(
        description="How many test images were called unlike the training images, and how many images of each kind of "
        "foreign ones. Null for models of older versions."
    )
    metrics: dict[str, Any]
    notes: list[str] = Field(description="What limits the metrics, such as that patients are unknown.")
    engine: str | None = Field(description="What runs the model, such as openvino:cpu.")
    precision: str | None
    formats: list[str]
    limits: ServerLimits
    workers: Workers


class Me(BaseModel):
    """Who sent a request."""

    name: str = Field(description="The name of the key; `local` or `anonymous` where no key is needed.")
    role: str = Field(description="viewer, contributor or admin; each includes the rights of those before it.")
    keys: bool = Field(description="Whether this server requires keys.")


class Reason(BaseModel):
    """Why something is done; it is recorded."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    reason: str = Field(min_length=1, max_length=MAX_REASON, examples=["worse on the new scanner"])


class JudgedImage(BaseModel):
    """An uploaded image that was kept."""

    name: str = Field(description="The name it was sent with, without control characters, at most 100 characters.")
    sha256: str = Field(description="Of what is stored, which may differ from what was sent: it names no person.")
    label: str
    code: str = Field(
        description="Empty, or why it waits in quarantine, or `already_known`, `label_corrected` or "
        "`burned_in_text_possible`."
    )
    reason: str = Field(description="The same as a sentence for users.")
    changes: list[int] = Field(
        default=[], description="What `POST /feedback/undo` takes back of feedback; empty if it changed nothing."
    )


class RejectedFile(BaseModel):
    """An uploaded file that was not kept."""

    name: str = Field(description="As for the images that were kept.")
    code: str = Field(description="A stable name for programs.", examples=["duplicate"])
    reason: str = Field(description="A sentence for users.")


class UploadAnswer(BaseModel):
    """The outcome of each uploaded file."""

    accepted: list[JudgedImage] = Field(
        description="The next retraining may learn from these, or is evaluated with them."
    )
    quarantined: list[JudgedImage] = Field(description="An admin must release or drop these.")
    rejected: list[RejectedFile]


class ClassPreview(BaseModel):
    """How many files of an upload would be kept under one label."""

    accepted: int = 0
    quarantined: int = 0
    rejected: int = 0


class UploadPreview(UploadAnswer):
    """What would become of each file of an upload; nothing was stored."""

    dry_run: Literal[True] = True
    classes: dict[str, ClassPreview] = Field(
        description="The labels that were found, by the folders of an archive or the field `label`, whether or not "
        "they are classes; files without a label are listed in `rejected` alone."
    )


class ProblemDetails(BaseModel):
    """An error, RFC 9457."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [_PROBLEM]})

    type: str
    title: str
    status: int
    detail: str = Field(description="A sentence for users.")
    code: str = Field(description="A stable name for programs.")
    request_id: str
