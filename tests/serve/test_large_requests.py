"""A real server and large images: they are answered as by the predictor, and small ones never wait for them."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from lesion.model.predictor import Prediction, Predictor
from serve.inference.large_images import MAX_WAITING
from tests.support.images.hostile import encode, gradient
from tests.support.servers.app import refusal
from tests.support.servers.serving import ServerProcess, eventually

pytestmark = pytest.mark.slow  # every test here needs a server

LARGE = np.resize(gradient(), (1600, 1600, 3))
PHOTO = np.resize(gradient(), (6000, 4000, 3))


@pytest.fixture(scope="module")
def server(bundle_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(bundle_path, "server.workers=1", "server.precision=f32") as running:
        yield running


def post(server: ServerProcess, data: bytes) -> httpx.Response:
    return server.client.post("/predict", files={"file": ("x", data)})


def decoding_process(server: ServerProcess) -> psutil.Process:
    (found,) = (process for process in server.family() if "serve.inference.large_images" in process.cmdline())
    return found


def highest_memory(process: psutil.Process) -> int:
    """The most bytes that a process has held."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize(
    "data",
    [encode(LARGE), encode(LARGE, "TIFF"), encode(LARGE[..., 0]), encode(np.resize(LARGE, (6000, 4000, 3)), "JPEG")],
)
def test_a_large_image_is_answered_as_by_the_predictor(data: bytes, server: ServerProcess, bundle_path: Path) -> None:
    expected = Predictor.load(bundle_path, device="cpu", precision="f32").predict([data])[0]
    assert isinstance(expected, Prediction)
    answer = post(server, data).json()
    assert answer["probabilities"] == expected.probabilities
    assert answer["domain_distance"] == expected.domain_distance


def test_a_worker_holds_no_large_image(server: ServerProcess) -> None:
    assert post(server, encode(gradient())).status_code == 200
    (worker,) = server.workers()
    before = highest_memory(worker)
    for picture in (np.zeros((5000, 5000), np.uint8), np.zeros((3000, 4000, 3), np.uint8)):
        assert post(server, encode(picture)).status_code == 200
    assert highest_memory(worker) - before < 24 * 2**20
    assert highest_memory(decoding_process(server)) > 100 * 10**6, "here they were decoded"


def test_small_images_are_answered_while_large_ones_wait(server: ServerProcess) -> None:
    large, small = encode(LARGE), encode(gradient())
    assert post(server, large).status_code == 200
    process = decoding_process(server)
    with ThreadPoolExecutor(MAX_WAITING + 4) as pool:
        process.suspend()
        try:
            waiting = [pool.submit(post, server, large) for _ in range(MAX_WAITING + 4)]
            eventually(lambda: sum(each.done() for each in waiting) == 4)
            for _ in range(20):
                assert post(server, small).status_code == 200
            refused = [each.result() for each in waiting if each.done()]
            assert len(refused) == 4
            for response in refused:
                refusal(response, 503, "large_images_full")
        finally:
            process.resume()
        assert sorted(each.result().status_code for each in waiting) == [200] * MAX_WAITING + [503] * 4


def test_an_image_that_ends_the_decoding_process_ends_nothing_else(server: ServerProcess) -> None:
    large = encode(LARGE)
    assert post(server, large).status_code == 200
    process, family = decoding_process(server), {each.pid for each in server.family()}
    with ThreadPoolExecutor(1) as pool:
        process.suspend()
        waiting = pool.submit(post, server, large)
        assert post(server, encode(gradient())).status_code == 200
        process.kill()
        answer = waiting.result()
    if answer.status_code != 200:  # it had begun
        refusal(answer, 413, "image_too_many_pixels")
    assert post(server, large).status_code == 200
    assert {each.pid for each in server.family()} - {decoding_process(server).pid} == family - {process.pid}
