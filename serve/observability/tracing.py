"""OpenTelemetry traces, if a collector is configured: a span for each request, and one for each stage of it.

The stages of a request run in two processes; the inference worker receives the request's trace together with the
request. Spans hold what was requested and how long it took, and nothing of the image. What an inference worker measured
in its last second may be lost. Without a collector the tracer of OpenTelemetry's API does nothing.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import NoOpTracer, Span, SpanKind, StatusCode, Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from lesion.core.errors import ConfigError
from lesion.core.version import __version__
from serve.settings import TraceSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_SEND_EVERY_MS = 1000
_SEND_WITHIN_S = 2
_PROPAGATOR = TraceContextTextMapPropagator()
_provider: "TracerProvider | None" = None  # of this process
_tracer: Tracer = NoOpTracer()


def check_installed(settings: TraceSettings) -> None:
    """Raise a ConfigError if a collector is configured, and OpenTelemetry's exporter is not installed."""
    if settings.endpoint is None:
        return
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"traces.endpoint needs pip install 'lesion[traces]': {error}.") from error


def start(settings: TraceSettings, process: str) -> None:
    """Begin to send spans of a process, ``api`` or ``inference``.

    Each process does this for itself, since the sender's thread does not survive a fork.
    """
    global _provider, _tracer
    if settings.endpoint is None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    resource = Resource.create({"service.name": "lesion", "service.version": __version__, "lesion.process": process})
    _provider = TracerProvider(sampler=ParentBasedTraceIdRatio(settings.share), resource=resource)
    # With a timeout, since a collector that does not answer would delay the end of this process.
    exporter = OTLPSpanExporter(f"{settings.endpoint.rstrip('/')}/v1/traces", timeout=_SEND_WITHIN_S)
    _provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=_SEND_EVERY_MS))
    _tracer = _provider.get_tracer("lesion")


def stop() -> None:
    """Send the remaining spans."""
    global _provider, _tracer
    if _provider is not None:
        _provider.shutdown()
        _provider, _tracer = None, NoOpTracer()


def request_span(method: str, headers: Mapping[str, str]) -> AbstractContextManager[Span]:
    """Open a span around a request, below the one that its ``traceparent`` header names."""
    context = _PROPAGATOR.extract(headers)
    return _tracer.start_as_current_span(method, context, SpanKind.SERVER, record_exception=False)


def describe(span: Span, method: str, route: str | None, status: int, request_id: str) -> None:
    """Set the name and the outcome of a request's span, with the names of OpenTelemetry's conventions."""
    span.update_name(f"{method} {route}" if route else method)
    attributes: dict[str, Any] = {"http.request.method": method, "http.response.status_code": status}
    span.set_attributes(attributes | {"lesion.request_id": request_id} | ({"http.route": route} if route else {}))
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def current() -> str:
    """Return the ``traceparent`` of the request that is being answered; empty if it is not traced."""
    carrier: dict[str, str] = {}
    if get_current_span().is_recording():
        _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent", "")


def record(parent: str, intervals: Iterable[tuple[str, int, int]]) -> None:
    """Add spans that have ended already: the name, begin and end of each, in nanoseconds since 1970.

    ``parent`` is what :func:`current` returned, perhaps in another process; if it is empty, nothing is added.
    """
    if not parent:
        return
    context = _PROPAGATOR.extract({"traceparent": parent})
    for name, begin, end in intervals:
        _tracer.start_span(name, context, start_time=begin).end(end)
