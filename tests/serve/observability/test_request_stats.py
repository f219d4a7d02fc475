"""Requests counted and timed: quantiles, the ring of minutes, several processes, the middleware and GET /statistics."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient

from lesion.auth import api_keys
from lesion.core.errors import ConflictError
from lesion.core.roles import ROLES
from serve.http.middleware import BodyLimits, RequestContext
from serve.observability.request_stats import BOUNDS_MS, MINUTES, RequestStats
from tests.support.bundles.lamp_bundles import lamp
from tests.support.bundles.registry_bundles import sealed
from tests.support.images.hostile import encode
from tests.support.images.loop_images import new_storage
from tests.support.images.pictures import picture
from tests.support.servers.app import bearer, client_of, make_app, refusal
from tests.support.servers.serving import ServerProcess

RATIO = 2**0.25  # of a bucket's bounds
SECONDS = 60


class Clock:
    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def counted(*milliseconds: float) -> RequestStats:
    traffic = RequestStats(1)
    for value in milliseconds:
        traffic.counter(0).count("GET", "/info", 200, value / 1000)
    return traffic


def requests(traffic: RequestStats) -> list[int]:
    return [counts.requests for _, counts in traffic.minutes()]


# Quantiles


def test_the_bounds_reach_from_less_than_a_millisecond_to_two_minutes() -> None:
    assert (BOUNDS_MS[0], BOUNDS_MS[-1]) == (0.125, 2**17)
    assert {round(high / low, 6) for low, high in pairwise(BOUNDS_MS)} == {round(RATIO, 6)}


def test_without_a_latency_there_is_no_quantile() -> None:
    traffic = RequestStats(1)
    assert traffic.totals().quantile_ms(0.5) is None
    traffic.counter(0).count("GET", "/info", 200, None)
    assert traffic.totals().requests == 1
    assert traffic.totals().quantile_ms(0.5) is None


def test_a_quantile_is_interpolated_within_its_bucket() -> None:
    """Four requests in the bucket that ends at 1 ms, four in the one that ends at 8 ms, whose bounds are included."""
    totals = counted(*[1.0] * 4, *[8.0] * 4).totals()
    assert totals.latencies[BOUNDS_MS.index(1.0)] == totals.latencies[BOUNDS_MS.index(8.0)] == 4
    assert totals.quantile_ms(0.25) == pytest.approx(RATIO**-0.5)  # half way through the first bucket
    assert totals.quantile_ms(0.5) == pytest.approx(1.0)
    assert totals.quantile_ms(0.75) == pytest.approx(8 * RATIO**-0.5)
    assert totals.quantile_ms(1.0) == pytest.approx(8.0)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 0.99, 1.0])
def test_quantiles_of_known_latencies_are_right_within_a_bucket(share: float) -> None:
    latencies = np.random.default_rng(0).lognormal(3.0, 1.2, 5000)  # about 20 ms, up to seconds
    exact = float(np.quantile(latencies, share, method="inverted_cdf"))
    found = counted(*latencies).totals().quantile_ms(share)
    assert found is not None
    assert 1 / RATIO <= found / exact <= RATIO


def test_what_is_beyond_the_bounds_is_counted_at_them() -> None:
    assert counted(0.0, 0.001).totals().quantile_ms(1.0) == pytest.approx(0.125)
    assert counted(1e6).totals().quantile_ms(0.5) == pytest.approx(2**17)


# The ring


def test_each_minute_has_its_own_counts_and_the_totals_have_all() -> None:
    clock = Clock()
    traffic = RequestStats(1, clock)
    counter = traffic.counter(0)
    counter.count("POST", "/predict", 200, 0.01)
    counter.count("GET", "/info", 404, 0.001)
    clock.now += 2 * SECONDS
    counter.count("GET", "/info", 503, 0.002)
    counter.count("GET", "/info", 0, None)
    minutes = traffic.minutes()
    assert [began.isoformat() for began, _ in minutes] == [
        "2027-01-15T08:00:00+00:00", "2027-01-15T08:01:00+00:00", "2027-01-15T08:02:00+00:00",
    ]  # fmt: skip
    shown = [(c.requests, c.client_errors, c.server_errors, c.predictions, sum(c.latencies)) for _, c in minutes]
    assert shown == [(2, 1, 0, 1, 2), (0, 0, 0, 0, 0), (2, 0, 1, 0, 1)]
    totals = traffic.totals()
    assert (totals.requests, totals.client_errors, totals.server_errors, totals.predictions) == (4, 1, 1, 1)
    assert sum(totals.latencies) == 3


def test_the_ring_wraps_and_forgets_what_is_older_than_an_hour() -> None:
    clock = Clock()
    traffic = RequestStats(1, clock)
    counter = traffic.counter(0)
    for minute in range(500):
        for _ in range(minute % 7):
            counter.count("GET", "/info", 200, 0.01)
        clock.now += SECONDS
    clock.now -= SECONDS
    assert requests(traffic) == [minute % 7 for minute in range(500 - MINUTES, 500)]
    assert traffic.totals().requests == sum(minute % 7 for minute in range(500))


@pytest.mark.parametrize("silence", [59, 60, 64, 1000])
def test_a_silent_server_shows_no_old_minutes(silence: int) -> None:
    clock = Clock()
    traffic = RequestStats(1, clock)
    traffic.counter(0).count("GET", "/info", 200, 0.01)
    clock.now += silence * SECONDS
    assert requests(traffic) == [1 if silence == 59 else 0] + [0] * (MINUTES - 1)
    traffic.counter(0).count("GET", "/info", 200, 0.01)
    assert requests(traffic)[-1] == 1
    assert sum(requests(traffic)) == (2 if silence == 59 else 1)


def test_a_clock_that_is_put_back_breaks_nothing() -> None:
    clock = Clock()
    traffic = RequestStats(1, clock)
    traffic.counter(0).count("GET", "/info", 200, 0.01)
    clock.now -= 10 * SECONDS
    traffic.counter(0).count("GET", "/info", 200, 0.01)
    assert traffic.minutes() == []
    assert traffic.totals().requests == 2


# Several processes


def work(traffic: RequestStats, process: int) -> None:
    counter = traffic.counter(process)
    for _ in range(2000):
        counter.count("POST", "/predict", 200 if process else 500, 0.001 * (process + 1))


def test_processes_that_count_at_once_lose_nothing() -> None:
    context, clock = get_context("spawn"), Clock()  # one minute, however long it takes
    traffic = RequestStats(3, clock)
    processes = [context.Process(target=work, args=(traffic, process)) for process in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    for counts in (traffic.totals(), traffic.minutes()[-1][1]):
        assert (counts.requests, counts.server_errors, counts.predictions) == (6000, 2000, 4000)
        assert [counts.latencies[BOUNDS_MS.index(bound)] for bound in (1.0, 2.0)] == [2000, 2000]
        assert sum(counts.latencies) == 6000


# The middleware


@pytest.fixture
def app() -> FastAPI:
    """Some routes of every kind behind the server's middleware."""
    made = FastAPI()
    made.add_middleware(BodyLimits, max_body_bytes=10, max_total_bytes=100, timeout=5.0)
    made.add_middleware(RequestContext)
    made.state.traffic = RequestStats(1)
    made.state.services = SimpleNamespace(request_counter=made.state.traffic.counter(0))

    @made.post("/predict")
    async def predict(request: Request) -> JSONResponse:
        await request.body()
        await asyncio.sleep(0.05)
        return JSONResponse({}, int(request.query_params.get("status", "200")))

    @made.get("/refused")
    async def refused() -> None:
        raise ConflictError("no", code="no")

    @made.get("/fails")
    async def fails() -> None:
        raise RuntimeError

    @made.get("/events")
    async def events() -> StreamingResponse:
        async def stream() -> AsyncIterator[str]:
            yield "data: 1\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")

    return made


@pytest.mark.parametrize(
    ("method", "url", "status", "expected"),
    [
        ("POST", "/predict", 200, (1, 0, 0, 1, 1)),
        ("POST", "/predict?status=422", 422, (1, 1, 0, 0, 1)),
        ("POST", "/predict?status=503", 503, (1, 0, 1, 0, 1)),
        ("GET", "/predict", 405, (1, 1, 0, 0, 1)),
        ("GET", "/nothing", 404, (1, 1, 0, 0, 1)),
        ("GET", "/openapi.json", 200, (1, 0, 0, 0, 1)),
        ("GET", "/refused", 409, (1, 1, 0, 0, 1)),
        ("GET", "/fails", 500, (1, 0, 1, 0, 1)),
        ("GET", "/events", 200, (1, 0, 0, 0, 0)),  # not timed: it lasts as long as somebody listens
    ],
)
def test_each_kind_of_answer_is_counted(
    app: FastAPI, method: str, url: str, status: int, expected: tuple[int, ...]
) -> None:
    assert TestClient(app).request(method, url).status_code == status
    counts = app.state.traffic.totals()
    found = (counts.requests, counts.client_errors, counts.server_errors, counts.predictions, sum(counts.latencies))
    assert found == expected


def test_a_body_that_is_refused_unread_is_counted_too(app: FastAPI) -> None:
    assert TestClient(app).post("/predict", content=bytes(11)).status_code == 413
    assert app.state.traffic.totals().client_errors == 1


def test_a_request_is_timed_to_the_end_of_its_answer(app: FastAPI) -> None:
    TestClient(app).post("/predict")
    found = app.state.traffic.totals().quantile_ms(0.5)
    assert 50 / RATIO <= found < 2000


def test_a_sender_that_went_away_is_no_fault_of_the_servers(caplog: pytest.LogCaptureFixture) -> None:
    async def gone(scope: Any, receive: Any, send: Any) -> None:
        raise ClientDisconnect

    async def nothing(*_: Any) -> Any:
        raise AssertionError("nobody is there to be answered")

    owner = FastAPI()
    traffic = RequestStats(1)
    owner.state.services = SimpleNamespace(request_counter=traffic.counter(0))
    scope = {"type": "http", "headers": [], "method": "POST", "path": "/predict", "app": owner}
    asyncio.run(RequestContext(gone)(scope, nothing, nothing))
    counts = traffic.totals()
    assert (counts.requests, counts.client_errors, counts.server_errors, sum(counts.latencies)) == (1, 0, 0, 0)
    assert not caplog.records


# GET /statistics


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with client_of(make_app(sealed(tmp_path / "bundle"), None)) as made:
        yield made


def test_statistics_say_what_was_asked_and_how_long_it_took(client: TestClient) -> None:
    client.get("/nothing")  # 404
    client.get("/health")  # 503: no worker
    client.get("/info")
    shown = client.get("/statistics").json()
    assert set(shown) == {"started_at", "uptime_s", "minutes", "totals"}
    assert shown["uptime_s"] >= 0
    assert shown["started_at"].endswith("+00:00")
    totals = shown["totals"]
    assert [totals[name] for name in ("requests", "client_errors", "server_errors", "predictions")] == [3, 1, 1, 0]
    assert 0 < totals["p50_ms"] <= totals["p95_ms"] <= totals["p99_ms"] < 5000
    assert 1 <= len(shown["minutes"]) <= 2
    assert sum(minute["requests"] for minute in shown["minutes"]) == 3
    assert set(shown["minutes"][-1]) == {"at", *totals}


def test_quantiles_are_null_before_the_first_answer(client: TestClient) -> None:
    totals = client.get("/statistics").json()["totals"]
    assert totals == dict.fromkeys(("requests", "client_errors", "server_errors", "predictions"), 0) | dict.fromkeys(
        ("p50_ms", "p95_ms", "p99_ms")
    )


def test_statistics_are_for_admins(tmp_path: Path) -> None:
    storage = new_storage(tmp_path / "loop")
    texts = {role: api_keys.create(storage, role, role, "test") for role in reversed(ROLES)}
    with client_of(make_app(sealed(tmp_path / "bundle"), storage)) as client:
        assert client.get("/statistics", headers=bearer(texts["admin"])).status_code == 200
        for role in ("viewer", "contributor"):
            refusal(client.get("/statistics", headers=bearer(texts[role])), 403, "role_insufficient")
        refusal(client.get("/statistics"), 401, "key_missing")


@pytest.mark.slow
def test_a_server_with_several_api_processes_counts_them_together(tmp_path: Path) -> None:
    """Each request over a connection of its own, so that both processes get some."""
    image = encode(picture(0))
    with ServerProcess(lamp(tmp_path / "lamp", 1.0), "server.workers=1", "server.api_processes=2") as server:
        for _ in range(30):
            answer = server.client.post("/predict", content=image, headers={"Connection": "close"})
            assert answer.status_code == 200
        seen = [
            server.client.get("/statistics", headers={"Connection": "close"}).json()["totals"]["predictions"]
            for _ in range(10)
        ]
        totals = server.client.get("/statistics").json()["totals"]
    assert seen == [30] * 10
    assert totals["server_errors"] <= 2  # /health while the workers load
    assert totals["p50_ms"] > 0
