"""A real Prometheus that scrapes a server under a real load test sees what Locust sees."""

import json
import shutil
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.deploy.ports import free_port
from serve.observability.prometheus import REQUEST_SECONDS
from tests.support.bundles.lamp_bundles import lamp
from tests.support.paths import REPOSITORY
from tests.support.servers.serving import ServerProcess, eventually

LOCUSTFILE = REPOSITORY / "serve" / "load" / "locustfile.py"
USERS, SECONDS, SCRAPE_S = 10, 10, 0.5
pytestmark = [
    pytest.mark.alone,
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="Prometheus is not installed (apt-get install prometheus)"
    ),
]


class Prometheus:
    """A real one, that asks some servers every half a second."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def __call__(self, query: str) -> dict[str, float]:
        """The values of a query's series, by their labels as JSON; one without labels is ``{}``."""
        answer = self.client.get("/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", answer
        return {json.dumps(one["metric"], sort_keys=True): float(one["value"][1]) for one in answer["data"]["result"]}

    def one(self, query: str) -> float:
        (value,) = self(query).values()
        return value


@contextmanager
def prometheus(folder: Path, *servers: ServerProcess) -> Iterator[Prometheus]:
    folder.mkdir()
    config = {
        "global": {"scrape_interval": f"{SCRAPE_S * 1000:.0f}ms", "scrape_timeout": "500ms"},
        "scrape_configs": [
            {"job_name": "lesion", "static_configs": [{"targets": [f"127.0.0.1:{server.port}" for server in servers]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            made = Prometheus(folder, port)
            eventually(lambda: _is_up(made, len(servers)), 60)
            yield made
        finally:
            process.terminate()
            process.wait(30)


def _is_up(asked: Prometheus, servers: int) -> bool:
    try:
        return asked("sum(up)") == {"{}": servers}
    except (httpx.TransportError, json.JSONDecodeError, AssertionError):
        return False


@contextmanager
def load(host: str, seconds: int) -> Iterator[dict[str, dict[str, Any]]]:
    """Run Locust's visitors beside a block; at its end gives rows by the names of the requests, of all answers."""
    rows: dict[str, dict[str, Any]] = {}
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--json", "--users", str(USERS)]
    command += ["--spawn-rate", str(USERS), "--run-time", f"{seconds}s", "--stop-timeout", "20", "--host", host]
    process = subprocess.Popen([*command, "Visitor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield rows
        out, errors = process.communicate(timeout=180)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors[-3000:]
    rows |= {row["name"]: row for row in json.loads(out)}
    time.sleep(3 * SCRAPE_S)


def test_prometheus_and_locust_count_alike(tmp_path: Path) -> None:
    bundle = lamp(tmp_path / "bundle", 0.05)
    with (
        ServerProcess(bundle, "server.workers=2", "server.api_processes=2") as server,
        prometheus(tmp_path / "prometheus", server) as asked,
    ):
        version = server.client.get("/info").json()["model_version"]
        with load(server.url, SECONDS) as rows:
            pass
        predictions = [row for name, row in rows.items() if name.startswith("/predict")]
        sent = sum(row["num_requests"] for row in predictions)
        assert sent > 200
        assert sum(row["num_failures"] for row in rows.values()) == 0

        answered = 'lesion_requests_total{method="POST",route="/predict",status="200"}'
        assert asked.one(f"sum({answered})") == pytest.approx(sent, rel=0.01)
        assert asked.one('sum(lesion_requests_total{status!="200"}) or vector(0)') == 0
        assert asked.one('sum(lesion_request_seconds_count{route="/predict"})') == pytest.approx(sent, rel=0.01)
        assert asked.one('sum(lesion_request_seconds_count{route="/health"})') == pytest.approx(
            rows["/health"]["num_requests"], abs=5
        )
        assert asked("sum by (version) (lesion_predictions_total)") == {
            json.dumps({"version": version}): pytest.approx(sent, rel=0.01)
        }
        assert asked.one(f'lesion_workers_serving{{version="{version}"}}') == 2
        assert asked.one("lesion_batch_size_sum") == pytest.approx(sent, rel=0.01)

        # Time at the server is a part of the time at the client, whose own share is its connection and its work.
        total = sum(row["total_response_time"] for row in predictions)
        spent = 1000 * asked.one('sum(lesion_request_seconds_sum{route="/predict"})')
        assert 0.3 * total < spent < 1.01 * total
        assert 0 < asked.one("max_over_time(lesion_queue_depth[1m])") <= USERS
        assert asked.one("lesion_queue_depth") == 0
        _quantile_agrees(asked, rows)


def test_users_who_wait_are_the_queue_and_wait_as_long_as_it_says(tmp_path: Path) -> None:
    """The workers stand still, so that each of Locust's users has one request under way, all of its time there."""
    with (
        ServerProcess(lamp(tmp_path / "bundle", 0.05), "server.workers=2", "server.api_processes=2") as server,
        prometheus(tmp_path / "prometheus", server) as asked,
    ):
        workers = server.workers()
        assert len(workers) == 2
        for worker in workers:
            worker.suspend()
        with load(server.url, 3) as rows:
            eventually(lambda: asked.one("lesion_queue_depth") == USERS)
            time.sleep(16)  # past the run, so that nobody asks a second time, and long next to a client's own moments
            for worker in workers:
                worker.resume()
        predictions = [row for name, row in rows.items() if name.startswith("/predict")]
        assert sum(row["num_requests"] for row in predictions) == USERS
        assert asked.one('sum(lesion_requests_total{route="/predict",status="200"})') == USERS
        theirs = sum(row["total_response_time"] for row in predictions) / 1000
        assert theirs > 4 * USERS
        assert asked.one('sum(lesion_request_seconds_sum{route="/predict"})') == pytest.approx(theirs, rel=0.01)
        assert asked.one("lesion_queue_depth") == 0

        # Little's law: the queue summed over time is the time of all who waited in it. It stands still but for its two
        # ends, so that samples tell it; under an ordinary load 20 samples of it are wrong by a third.
        sampled = asked.one("sum_over_time(lesion_queue_depth[1m])") * SCRAPE_S  # image-seconds
        assert sampled == pytest.approx(theirs, abs=2 * USERS * SCRAPE_S)


def _quantile_agrees(asked: Prometheus, rows: dict[str, dict[str, Any]]) -> None:
    """The median by Prometheus lies within the bucket of Locust's, or the one below: the client takes longer."""
    median = asked.one('histogram_quantile(0.5, sum by (le) (lesion_request_seconds_bucket{route="/predict"}))')
    bounds = [0.0, *REQUEST_SECONDS._upper_bounds]
    times = sorted((float(ms), count) for ms, count in rows["/predict"]["response_times"].items())
    reached = list(accumulate(count for _, count in times))
    theirs = times[bisect_left(reached, reached[-1] / 2)][0] / 1000
    above = next(number for number, bound in enumerate(bounds) if theirs <= bound)
    assert bounds[max(0, above - 2)] <= median <= bounds[above]
