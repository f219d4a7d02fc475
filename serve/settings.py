"""The settings of a server, each declared and bounded once; ``configs/serve.yaml`` fills them."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lesion.core.errors import ConfigError
from lesion.domain.domain import LEVEL
from lesion.imaging.limits import DEFAULT_LIMITS, Limits
from lesion.model.engines import Precision

Count = Annotated[int, Field(gt=0)]
_FORM_BYTES = 2**20  # what a form may add to its file
Seconds = Annotated[float, Field(gt=0)]
_EXPECTED = {
    "int_type": "a whole number, more than 0",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
}


class Section(BaseModel):
    """A section of ``configs/serve.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    section: ClassVar[str]

    @classmethod
    def from_config(cls, values: Mapping[str, Any] | None) -> Self:
        """Read the section's settings, or raise a ConfigError if one is unknown, of a wrong type or out of bounds."""
        try:
            return cls.model_validate(dict(values or {}))
        except ValidationError as error:
            raise ConfigError(" ".join(cls._sentence(dict(fault)) for fault in error.errors())) from error

    @classmethod
    def _sentence(cls, fault: dict[str, Any]) -> str:
        name = ".".join((cls.section, *map(str, fault["loc"])))
        if fault["type"] == "value_error":
            return str(fault["ctx"]["error"])
        if fault["type"] == "extra_forbidden":
            return f"{name} is unknown. The settings are {', '.join(cls.model_fields)}."
        if fault["type"] == "literal_error":
            return f"{name}={fault['input']!r} is unknown. Use {fault['ctx']['expected']}."
        expected = _EXPECTED.get(fault["type"], fault["msg"]).format(**fault.get("ctx", {}))
        return f"{name}={fault['input']} must be {expected}."


class ServerSettings(Section):
    """How a server computes and what it refuses."""

    section = "server"

    # auto, cpu, cuda (every GPU of the machine) or torch (torch on the CPU).
    device: Literal["auto", "cpu", "cuda", "torch"] = "auto"
    precision: Precision = "auto"  # auto, f32, bf16 or f16
    # The share of images like the training images that may be called unlike them: a higher one recognizes more others.
    domain_level: Annotated[float, Field(gt=0, le=0.5)] = LEVEL
    threads: Count = 1  # CPU threads for one image in one inference worker
    workers: Count | None = None  # inference workers for the CPU, or for each GPU; one per core when None (two per GPU)
    api_processes: Count | None = None  # HTTP processes; one for every four inference workers when None
    max_batch_size: Count = 8  # the most images in one batch
    # Seconds to wait for a batch to fill; less than request_timeout.
    batch_timeout: Annotated[float, Field(ge=0)] = 0.002
    queue_size: Count = 256  # the most requests that wait or are computed at once; further ones are answered 503
    request_timeout: Seconds = 30.0  # seconds for a body to arrive, and then for its response
    max_body_bytes: Count = 21 * 2**20  # the largest request body
    max_upload_bytes: Count = 64 * 2**20  # the largest body of training data
    # About the most that all bodies being answered may hold together, in each API process; what exceeds it waits
    # unread.
    max_held_bytes: Count = 64 * 2**20
    # The limits of an image at every door; a retraining takes whatever was accepted.
    max_image_bytes: Count = DEFAULT_LIMITS.max_bytes  # the largest file
    max_pixels: Count = DEFAULT_LIMITS.max_pixels  # the largest width × height
    min_side: Count = DEFAULT_LIMITS.min_side  # the smallest side in pixels
    start_timeout: Seconds = 120.0  # seconds in which every inference worker must have loaded
    drain_timeout: Seconds = 10.0  # seconds in which open requests may still be answered when the server is stopped
    # The names by which classes are shown to persons, where the model has no or other ones.
    class_names: dict[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _make_room_for_images(cls, values: Any) -> Any:  # noqa: ANN401 - unchecked settings
        """Raise the limits of bodies where a larger image would not fit into one."""
        largest = values.get("max_image_bytes") if isinstance(values, dict) else None
        if type(largest) is not int or largest <= DEFAULT_LIMITS.max_bytes:
            return values
        least = largest + _FORM_BYTES
        fields = ("max_body_bytes", "max_upload_bytes", "max_held_bytes")
        sizes = {name: values.get(name, cls.model_fields[name].default) for name in fields}
        return values | {name: max(size, least) for name, size in sizes.items() if type(size) is int and size > 0}

    @model_validator(mode="after")
    def _check_batch_timeout(self) -> Self:
        if self.batch_timeout >= self.request_timeout:
            raise ValueError(
                f"server.batch_timeout={self.batch_timeout} must be less than "
                f"server.request_timeout={self.request_timeout}."
            )
        return self

    @property
    def image_limits(self) -> Limits:
        """The bounds of an image, which are checked before it is decoded."""
        return Limits(max_bytes=self.max_image_bytes, max_pixels=self.max_pixels, min_side=self.min_side)


class AccessSettings(Section):
    """Who may use a server."""

    section = "access"

    open_access: bool = False  # whether requests need no key as long as no key exists
    per_minute: Count | None = None  # requests per minute of a key that has no limit of its own; no limit when None
    per_day: Count | None = None  # the same for a day (UTC)


class RecordSettings(Section):
    """How a server with a storage records its answers."""

    section = "records"

    enabled: bool = True
    keep_days: Annotated[float, Field(gt=0)] | None = 365.0  # after which records are removed; None keeps them
    # Whether each record is on the disk before its answer is given: then a machine that stops loses none either.
    sync: bool = False


class TraceSettings(Section):
    """Where OpenTelemetry traces go."""

    section = "traces"

    # The collector's address for OTLP over HTTP, such as http://127.0.0.1:4318; None for no traces.
    endpoint: str | None = None
    # The share of requests that is traced, 0 to 1, among those that come without a trace of their own.
    share: Annotated[float, Field(ge=0, le=1)] = 1.0

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not endpoint.startswith(("http://", "https://")):
            raise ValueError(f"traces.endpoint={endpoint} is not an address. Use one like http://127.0.0.1:4318.")
        return endpoint
