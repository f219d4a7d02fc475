"""The client tells a slow server from one that is away and from something else that answers in its place."""

import json
import pickle
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from lesion.client import (
    Client,
    ClientError,
    KeyMissingError,
    NoStorageError,
    NoWorkerReadyError,
    PredictionTimeoutError,
    ResponseError,
    ServerTimeoutError,
    ServerUnavailableError,
    UnexpectedResponseError,
    WaitTimeoutError,
)
from lesion.core.errors import LesionError

pytestmark = pytest.mark.slow  # most tests here need a server
SLOW_S, SHORT_S = 0.6, 0.2


class Stand(BaseHTTPRequestHandler):
    """Answers as a server, or as what may stand before one."""

    bodies: list[dict[str, Any]]

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(SLOW_S)
        page = (
            "<html>Sign in to the hospital's network</html>" if self.path == "/proxy" else json.dumps({"ready": True})
        )
        self.answer(page, **({"Content-Encoding": "gzip"} if self.path == "/garbled" else {}))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/upload_training_data":
            time.sleep(SLOW_S)
        else:
            self.bodies.append(json.loads(body))
        self.answer(json.dumps({"accepted": [], "id": 7}))

    def answer(self, text: str, **headers: str) -> None:
        self.send_response(200)
        for name, value in (headers | {"Content-Length": str(len(text))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Stand.bodies = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Stand) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def refusal(client: Client, method: str, path: str) -> ClientError:
    with pytest.raises(ClientError) as caught:
        client.call(method, path)
    return caught.value


def test_a_slow_server_is_not_away(address: str) -> None:
    with Client(address, timeout=SHORT_S) as client:
        error = refusal(client, "GET", "/slow")
        assert (type(error), error.code, error.status) == (ServerTimeoutError, "timed_out", 504)
        assert error.message == f"The server at {address} took too long over GET /slow."
        with pytest.raises(ServerTimeoutError) as caught:
            client.download("/slow")
        assert caught.value.code == "timed_out"
        assert client.call("GET", "/health") == {"ready": True}


def test_an_upload_may_take_its_time(address: str) -> None:
    with Client(address, timeout=SHORT_S) as client:
        assert client.upload([("a.png", b"a")], "glioma") == {"accepted": [], "id": 7}


@pytest.mark.parametrize(
    ("trouble", "kind", "code", "status"),
    [
        (httpx.ReadTimeout, ServerTimeoutError, "timed_out", 504),
        (httpx.WriteTimeout, ServerTimeoutError, "timed_out", 504),
        (httpx.ConnectTimeout, ServerUnavailableError, "server_away", 503),
        (httpx.ConnectError, ServerUnavailableError, "server_away", 503),
        (httpx.RemoteProtocolError, ServerUnavailableError, "server_away", 503),
    ],
)
def test_what_may_happen_on_the_way(
    trouble: type[httpx.TransportError],
    kind: type[ClientError],
    code: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def request(*_: object, **__: object) -> None:
        raise trouble("the cable was cut")

    monkeypatch.setattr(httpx.Client, "request", request)
    with Client("http://127.0.0.1:1") as client:
        error = refusal(client, "GET", "/health")
    assert (type(error), error.code, error.status) == (kind, code, status)


@pytest.mark.parametrize("path", ["/proxy", "/garbled"])
def test_something_else_that_answers_is_not_taken_for_the_server(address: str, path: str) -> None:
    with Client(address) as client:
        error = refusal(client, "GET", path)
    assert (type(error), error.code, error.status) == (UnexpectedResponseError, "answer_not_understood", 502)
    assert error.message.startswith(f"The answer to GET {path} is not understood: ")
    assert address in error.message


def test_a_rollback_says_what_was_seen(address: str) -> None:
    with Client(address) as client:
        assert client.rollback("worse", expected=6)["id"] == 7
        client.rollback("worse still")
    assert Stand.bodies == [{"reason": "worse", "expected": 6}, {"reason": "worse still", "expected": None}]


HEALTH = {"ready": False, "model_version": "a" * 12}


def answered(monkeypatch: pytest.MonkeyPatch, status: int, body: str, **headers: str) -> Client:
    """A client whose server answers everything alike."""
    client = Client("http://127.0.0.1:9")
    transport = httpx.MockTransport(lambda request: httpx.Response(status, headers=headers, text=body))
    monkeypatch.setattr(client, "_http", httpx.Client(base_url="http://127.0.0.1:9", transport=transport))
    return client


@pytest.mark.parametrize("status", [200, 503])
def test_health_is_told_of_a_server_that_cannot_predict_as_well(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    with answered(monkeypatch, status, json.dumps(HEALTH)) as client:
        assert client.health() == HEALTH


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (503, "<html>Bad gateway</html>", "http_error"),
        (503, json.dumps({"detail": "Full.", "code": "server_busy"}), "server_busy"),
        (500, json.dumps(HEALTH), "http_error"),
        (200, "<html>Sign in</html>", "answer_not_understood"),
    ],
)
def test_what_is_no_health_is_refused(monkeypatch: pytest.MonkeyPatch, status: int, body: str, code: str) -> None:
    with answered(monkeypatch, status, body) as client, pytest.raises(ClientError) as caught:
        client.health()
    assert (caught.value.code, caught.value.status) == (code, status if status != 200 else 502)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "key_missing", KeyMissingError),
        (404, "no_storage", NoStorageError),
        (503, "no_worker_ready", NoWorkerReadyError),
        (503, "timed_out", PredictionTimeoutError),
        (418, "of_a_newer_server", ResponseError),
    ],
)
def test_a_refusal_has_the_class_of_its_code_and_the_status_of_its_response(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str, kind: type[ResponseError]
) -> None:
    with answered(monkeypatch, status, json.dumps({"detail": "It is so.", "code": code})) as client:
        error = refusal(client, "POST", "/retrain")
    assert isinstance(error, LesionError)
    assert (type(error), error.code, error.status, error.message) == (kind, code, status, "It is so.")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.code, again.status, again.message) == (kind, code, status, "It is so.")


@pytest.mark.parametrize(
    ("when", "least", "most"),
    [("7", 7, 7), (" 0 ", 0, 0), (timedelta(hours=1), 3000, 3600), (timedelta(hours=-1), 0, 0)],
    ids=["seconds", "now", "later moment", "moment that is over"],
)
def test_a_refusal_tells_when_to_come_again(
    monkeypatch: pytest.MonkeyPatch, when: str | timedelta, least: float, most: float
) -> None:
    text = when if isinstance(when, str) else format_datetime(datetime.now(UTC) + when, usegmt=True)
    with answered(monkeypatch, 429, "{}", **{"Retry-After": text}) as client:
        error = refusal(client, "POST", "/predict")
    assert error.retry_after is not None
    assert least <= error.retry_after <= most
    assert pickle.loads(pickle.dumps(error)).retry_after == error.retry_after


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5", "٣", "9" * 400])
def test_an_odd_time_to_come_again_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with answered(monkeypatch, 503, "{}", **({"Retry-After": text} if text.isascii() else {})) as client:
        assert refusal(client, "POST", "/predict").retry_after is None


@pytest.mark.parametrize(
    ("status", "temporary"), [(429, True), (503, True), (401, False), (409, False), (413, False), (500, False)]
)
def test_some_refusals_pass(monkeypatch: pytest.MonkeyPatch, status: int, temporary: bool) -> None:
    with answered(monkeypatch, status, json.dumps({"detail": "It is so.", "code": "odd"})) as client:
        assert refusal(client, "POST", "/predict").temporary == temporary
    assert ServerUnavailableError("Gone.").temporary
    assert ServerTimeoutError("Slow.").temporary
    assert not UnexpectedResponseError("Odd.").temporary


def test_waiting_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        answered(monkeypatch, 200, json.dumps({"state": "running"})) as client,
        pytest.raises(WaitTimeoutError) as caught,
    ):
        client.wait_job("7", seconds=-1)
    assert (caught.value.code, caught.value.status) == ("timed_out", 504)
    assert caught.value.message == "Waited -1 s for job 7 to end."
