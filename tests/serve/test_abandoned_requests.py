"""A real server whose clients close their connections: what nobody waits for is not decoded."""

import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from tests.support.images.hostile import encode, gradient
from tests.support.servers.serving import ServerProcess, eventually

pytestmark = pytest.mark.slow  # every test here needs a server

ABANDONED = 40
LARGE = encode(np.zeros((1600, 1600, 3), np.uint8))
SMALL = encode(gradient())


@pytest.fixture(scope="module")
def server(bundle_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(bundle_path, "server.workers=1", "server.precision=f32") as running:
        yield running


def post(server: ServerProcess, data: bytes = SMALL) -> httpx.Response:
    return httpx.post(f"{server.url}/predict", content=data, headers={"content-type": "image/png"}, timeout=60)


def ask(server: ServerProcess, data: bytes, query: str = "") -> socket.socket:
    """Send a request, and leave its answer unread."""
    connection = socket.create_connection(("127.0.0.1", server.port), 10)
    head = f"POST /predict{query} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: image/png\r\n"
    head += f"Content-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def metric(server: ServerProcess, name: str) -> float:
    """The sum of a metric's series, whatever their labels."""
    text = server.client.get("/metrics").text
    return sum(float(value) for value in re.findall(rf"^{name}(?:\{{.*\}})? ([0-9.e+]+)$", text, re.MULTILINE))


def decoded(server: ServerProcess) -> float:
    return metric(server, "lesion_batch_size_sum")


def without_answer(server: ServerProcess) -> float:
    return metric(server, r'lesion_requests_total\{method="POST",route="/predict",status="0"\}')


def waiting(server: ServerProcess) -> float:
    return metric(server, "lesion_queue_depth")


def decoding_process(server: ServerProcess) -> psutil.Process:
    (found,) = (process for process in server.family() if "serve.inference.large_images" in process.cmdline())
    return found


def close(server: ServerProcess, connections: list[socket.socket]) -> None:
    """Close connections, and wait until the server has noticed."""
    ports = {connection.getsockname()[1] for connection in connections}
    for connection in connections:
        connection.close()

    def open_ports() -> set[int]:
        found = [each for process in server.family() for each in process.net_connections("tcp")]
        return {each.raddr.port for each in found if each.raddr and each.status == "ESTABLISHED"}

    eventually(lambda: not ports & open_ports())
    server.client.get("/health")  # the event loop has had its turn


@pytest.mark.parametrize("query", ["", "?explain=true"])
def test_images_whose_senders_left_are_not_decoded(server: ServerProcess, query: str) -> None:
    assert post(server).status_code == 200
    before, left = decoded(server), without_answer(server)
    (worker,) = server.workers()
    count = ABANDONED if not query else 8
    with ThreadPoolExecutor(1) as pool:
        worker.suspend()
        try:
            connections = [ask(server, SMALL, query) for _ in range(count)]
            eventually(lambda: waiting(server) == count)
            close(server, connections)
            answer = pool.submit(post, server)
            eventually(lambda: waiting(server) == count + 1)
        finally:
            worker.resume()
        assert answer.result().status_code == 200
    eventually(lambda: waiting(server) == 0)
    assert decoded(server) - before == 1, "the one whose sender waits"
    eventually(lambda: without_answer(server) - left == count)


def test_large_images_whose_senders_left_are_not_decoded(server: ServerProcess) -> None:
    assert post(server, LARGE).status_code == 200
    before, left = decoded(server), without_answer(server)
    process = decoding_process(server)
    with ThreadPoolExecutor(1) as pool:
        process.suspend()
        try:
            connections = [ask(server, LARGE) for _ in range(8)]
            eventually(lambda: decoded(server) - before == 8)  # a worker has found out that they are large
            eventually(lambda: waiting(server) == 0)
            close(server, connections)
            answer = pool.submit(post, server, LARGE)
            eventually(lambda: decoded(server) - before == 9)
        finally:
            process.resume()
        assert answer.result().status_code == 200
    eventually(lambda: without_answer(server) - left == 8)
    assert decoded(server) - before == 10, "again, as the pixels that the network needs: only the last one"


def test_an_answer_that_somebody_waits_for_is_given_on_a_connection_that_stays(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for _ in range(3):
            response = client.post("/predict", content=SMALL, headers={"content-type": "image/png"})
            assert response.status_code == 200
