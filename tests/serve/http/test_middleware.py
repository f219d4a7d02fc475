"""HEAD is GET without the body; bodies in odd encodings and character sets, and long JSON, are refused."""

import asyncio
import gzip
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from lesion.core.errors import TooLargeError
from serve.http.middleware import BodyLimits, HeadRequests
from serve.request_errors import BusyError, missing_file
from tests.support.bundles.registry_bundles import sealed
from tests.support.servers.app import client_of, make_app, refusal


@pytest.fixture
def client(tmp_path):
    with client_of(make_app(sealed(tmp_path / "bundle"), None)) as opened:
        yield opened


@pytest.mark.parametrize("path", ["/health/live", "/info", "/", "/health", "/openapi.json", "/metrics", "/nowhere"])
def test_head_is_get_without_the_body(client, path):
    get, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


def test_head_of_a_path_that_takes_no_get_is_refused(client):
    assert client.head("/predict").status_code == 405


def test_head_of_a_stream_ends():
    sent: list[Message] = []

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["method"] == "GET"
        scope["route"] = "found"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"event", "more_body": number < 2})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope: dict[str, Any] = {"type": "http", "method": "HEAD", "path": "/"}
    asyncio.run(HeadRequests(stream)(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert not sent[1].get("body")
    assert not sent[1].get("more_body")
    assert (scope["method"], scope["route"]) == ("HEAD", "found")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "GZIP"])
def test_a_compressed_body_is_refused_by_name(client, encoding):
    headers = {"Content-Encoding": encoding, "Content-Type": "image/png"}
    answer = client.post("/predict", content=gzip.compress(b"pixels"), headers=headers)
    refusal(answer, 415, "encoding_not_supported")
    assert f"Content-Encoding: {encoding.lower()}" in answer.json()["detail"]


def test_json_has_a_small_limit_of_its_own():
    read: list[int] = []

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        read.append(len((await receive())["body"]))

    async def receive() -> Message:
        return {"type": "http.request", "body": b"[" * 70_000, "more_body": False}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    limits = BodyLimits(route, max_body_bytes=10**6, max_total_bytes=10**7, timeout=5.0)
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/keys"}
    asyncio.run(limits(scope | {"headers": [(b"content-type", b"image/png")]}, receive, send))
    assert read == [70_000]
    for headers in (
        [(b"content-type", b"application/json")],
        [(b"content-type", b"Application/merge-patch+JSON; a=b")],
    ):
        with pytest.raises(TooLargeError, match="65,536"):
            asyncio.run(limits(scope | {"headers": headers}, receive, send))


def test_a_small_body_does_not_wait_for_the_memory_of_large_ones():
    """Large bodies hold all that there is; a small one has a reserve, of a quarter of that, and then waits as well."""
    large, small, total = 3_000_000, 1000, 10_000_000
    held, arrived = asyncio.Event(), list[int]()

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        arrived.append(len((await receive())["body"]))
        if scope["hold"]:
            await held.wait()

    async def send(message: Message) -> None:
        raise AssertionError(message)

    async def main() -> None:
        limits = BodyLimits(route, max_body_bytes=10**7, max_total_bytes=total, timeout=0.2)

        def begin(size: int, *, complete: bool = True, hold: bool = True) -> asyncio.Task[None]:
            async def receive() -> Message:
                return {"type": "http.request", "body": bytes(size), "more_body": not complete}

            scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "hold": hold}
            return asyncio.create_task(limits(scope, receive, send))

        holding = [begin(large) for _ in range(4)]
        await asyncio.sleep(0.02)
        holding.append(begin(small, complete=False))  # the first one is received in any case
        await asyncio.sleep(0.02)
        assert total < limits.held_bytes == 4 * large + small < total * 5 / 4
        await begin(small, hold=False)
        assert arrived == [*[large] * 4, small, small]
        holding.append(begin(600_000))
        await asyncio.sleep(0.02)
        assert limits.held_bytes > total * 5 / 4
        with pytest.raises(BusyError):
            await begin(small, hold=False)
        held.set()
        await asyncio.gather(*holding)
        assert limits.held_bytes == 0

    asyncio.run(main())


@pytest.mark.parametrize("charset", ["undefined", "idna", "rot13", "\xff"])
def test_a_form_in_an_odd_character_set_is_refused_by_name(client, charset):
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    answer = client.post("/predict", content=b"--x--", headers={"Content-Type": kind.encode("latin-1")})
    refusal(answer, 415, "charset_not_supported")


def test_a_form_in_a_usual_character_set_is_read(client):
    body = b'--x\r\nContent-Disposition: form-data; name="other"\r\n\r\n1\r\n--x--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x; charset=UTF-8"}
    assert client.post("/predict", content=body, headers=kind).status_code != 415


@pytest.mark.parametrize("accept", [b"application/openmetrics-text;version=\xff;q=x", b"text/plain;version=x", b";;,="])
def test_metrics_are_answered_whatever_is_accepted(client, accept):
    answer = client.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")


def test_identity_is_no_compression(client):
    answer = client.post("/predict", content=b"pixels", headers={"Content-Encoding": "identity"})
    assert answer.status_code != 415


def test_a_part_without_a_file_name_is_named():
    assert "came without a file name" in missing_file({"file": "pixels"}, "file").message
    assert "(fields: image, label)" in missing_file({"label": "a", "image": "b"}, "file").message
