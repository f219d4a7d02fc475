"""OpenTelemetry traces, taken by a real OTLP receiver: one trace for a request's spans in both of its processes."""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from lesion.core.errors import ConfigError
from serve.observability import tracing
from serve.settings import TraceSettings
from tests.support.bundles.lamp_bundles import lamp
from tests.support.images.hostile import encode, gradient
from tests.support.servers.serving import ServerProcess, eventually

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Receiver(ThreadingHTTPServer):
    """Takes spans over HTTP, as a collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[tuple[str, Span]] = []  # the process that sent it, and the span
        self.address = f"http://127.0.0.1:{self.server_port}"

    def of(self, trace: str) -> dict[str, tuple[str, Span]]:
        """The spans of a trace by name."""
        return {span.name: (process, span) for process, span in self.spans if span.trace_id.hex() == trace}


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            facts = {each.key: each.value.string_value for each in resource.resource.attributes}
            assert facts["service.name"] == "lesion"
            for scope in resource.scope_spans:
                self.server.spans += [(facts["lesion.process"], span) for span in scope.spans]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_a_request_and_its_stages_are_one_trace(receiver: Receiver, tmp_path: Path) -> None:
    settings = ("server.workers=1", f"traces.endpoint={receiver.address}")
    with ServerProcess(lamp(tmp_path / "lamp", 0.05), *settings) as server:
        image = encode(gradient())
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": "mine"}
        assert server.client.post("/predict?explain=true", content=image, headers=headers).status_code == 200
        untraced = headers | {"traceparent": f"00-{'1' * 32}-{PARENT}-00"}  # whose sender traces nothing
        assert server.client.post("/predict", content=image, headers=untraced).status_code == 200
        own = server.client.get("/nowhere")
        names = {"POST /predict", "receive", "queue", "decode", "infer", "cover", "explain"}
        eventually(lambda: receiver.of(TRACE).keys() == names)
        eventually(lambda: any(span.name == "GET" for _, span in receiver.spans))
    found = receiver.of(TRACE)
    process, whole = found.pop("POST /predict")
    assert (process, whole.parent_span_id.hex(), whole.kind) == ("api", PARENT, Span.SPAN_KIND_SERVER)
    facts = {each.key: each.value.string_value or each.value.int_value for each in whole.attributes}
    assert facts == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/predict",
        "lesion.request_id": "mine",
    }
    assert {name: process for name, (process, _) in found.items()} == {"receive": "api"} | dict.fromkeys(
        ("queue", "decode", "infer", "cover", "explain"), "inference"
    )
    for _, span in found.values():
        assert span.parent_span_id == whole.span_id
        assert whole.start_time_unix_nano - 10**7 < span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano < whole.end_time_unix_nano + 10**7
    assert receiver.of("1" * 32) == {}
    assert own.status_code == 404


def test_without_a_collector_there_is_nothing() -> None:
    tracing.start(TraceSettings(), "api")
    with tracing.request_span("GET", {}) as span:
        assert not span.is_recording()
        assert tracing.current() == ""
    tracing.record("00-" + TRACE + "-" + PARENT + "-01", [("decode", 1, 2)])


def test_what_cannot_work_is_refused_before_a_server_starts() -> None:
    with pytest.raises(ConfigError, match="is not an address"):
        TraceSettings.from_config({"endpoint": "collector:4318"})
    for share, bound in ((2.0, "at most 1"), (-0.5, "at least 0")):
        with pytest.raises(ConfigError, match=rf"traces\.share={share} must be {bound}\."):
            TraceSettings.from_config({"endpoint": "http://127.0.0.1:4318", "share": share})
    tracing.check_installed(TraceSettings(endpoint="http://127.0.0.1:4318"))
