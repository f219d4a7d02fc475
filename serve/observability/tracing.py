"""OpenTelemetry traces, where a collector is named: a span for each request, and one for each stage of it.

A request's stages run in two processes; the worker gets the request's trace with the job. Spans say what was asked and
how long it took, and nothing of the image. What an inference worker measured in its last second may be lost.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lesion.core.errors import ConfigError
from lesion.core.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_SEND_EVERY_MS = 1000
_SEND_WITHIN_S = 2
_provider: "TracerProvider | None" = None  # of this process


@dataclass(frozen=True, slots=True)
class Traces:
    """Where traces go.

    Attributes:
        endpoint: The collector's address for OTLP over HTTP, such as ``http://127.0.0.1:4318``; None for no traces.
        share: Of the requests that come without a trace of their own, the share that is traced, 0 to 1.
    """

    endpoint: str | None = None
    share: float = 1.0

    def check(self) -> None:
        """Refuse what cannot work, before a server starts.

        Raises:
            ConfigError: A value makes no sense, or OpenTelemetry is not installed.
        """
        if self.endpoint is None:
            return
        if not self.endpoint.startswith(("http://", "https://")):
            raise ConfigError(f"traces.endpoint={self.endpoint} is no address. Use one like http://127.0.0.1:4318.")
        if not 0 <= self.share <= 1:
            raise ConfigError(f"traces.share={self.share} must lie between 0 and 1.")
        try:
            import opentelemetry.exporter.otlp.proto.http.trace_exporter
            import opentelemetry.sdk.trace  # noqa: F401
        except ImportError as error:
            raise ConfigError(f"traces.endpoint needs pip install 'lesion[traces]': {error}.") from error


def start(traces: Traces, process: str) -> None:
    """Begin to send spans from this process; its threads do not outlive a fork, so each process does it for itself.

    Args:
        traces: Where to.
        process: What this process is: ``api`` or ``inference``.
    """
    global _provider
    if traces.endpoint is None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    resource = Resource.create({"service.name": "lesion", "service.version": __version__, "lesion.process": process})
    _provider = TracerProvider(sampler=ParentBasedTraceIdRatio(traces.share), resource=resource)
    # Bounded, or a collector that is away would hold up the end of this process.
    exporter = OTLPSpanExporter(f"{traces.endpoint.rstrip('/')}/v1/traces", timeout=_SEND_WITHIN_S)
    _provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=_SEND_EVERY_MS))


def stop() -> None:
    """Send what is left."""
    global _provider
    if _provider is not None:
        _provider.shutdown()
        _provider = None


@contextmanager
def request_span(method: str, headers: Mapping[str, str]) -> "Iterator[Span | None]":
    """Open a span around a request, below the one that its ``traceparent`` header names; None without a collector."""
    if _provider is None:
        yield None
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract(headers)
    tracer = _provider.get_tracer("lesion")
    with tracer.start_as_current_span(method, context, SpanKind.SERVER, record_exception=False) as span:
        yield span


def describe(span: "Span | None", method: str, route: str | None, status: int, request_id: str) -> None:
    """Name a request's span and write down its outcome, in the terms of OpenTelemetry's conventions."""
    if span is None:
        return
    from opentelemetry.trace import StatusCode

    span.update_name(f"{method} {route}" if route else method)
    facts: dict[str, Any] = {"http.request.method": method, "http.response.status_code": status}
    span.set_attributes(facts | {"lesion.request_id": request_id} | ({"http.route": route} if route else {}))
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def current() -> str:
    """Return the ``traceparent`` of the request that is being answered; empty if it is not traced."""
    if _provider is None:
        return ""
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if not get_current_span().is_recording():
        return ""
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent", "")


def record(parent: str, intervals: Iterable[tuple[str, int, int]]) -> None:
    """Add spans that are over already.

    Args:
        parent: What :func:`current` returned, maybe in another process; nothing happens if it is empty.
        intervals: The name, begin and end of each, in nanoseconds since 1970.
    """
    if _provider is None or not parent:
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({"traceparent": parent})
    tracer = _provider.get_tracer("lesion")
    for name, begin, end in intervals:
        tracer.start_span(name, context, start_time=begin).end(end)
