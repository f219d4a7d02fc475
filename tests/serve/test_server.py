"""A real server over HTTP: answers, refusals, bounds, batches, and how it starts, suffers and ends."""

import base64
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import psutil
import pytest
from PIL import Image

from lesion.cli.serve import main
from lesion.explanation.explanation import METHODS, Method
from lesion.imaging.heatmap import to_grayscale
from lesion.model.predictor import Prediction, Predictor
from serve.deploy.ports import free_port
from tests.support.images.hostile import encode, gradient, hostile_images
from tests.support.servers import app
from tests.support.servers.serving import SCRIPT, ServerProcess, eventually, maps

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process

STATUS = {
    "image_empty": 400,
    "image_too_many_bytes": 413,
    "image_too_many_pixels": 413,
    "image_not_recognised": 415,
    "image_type_not_supported": 415,
}
LIMIT = 2 * 2**20
FORM = "multipart/form-data; boundary=b"
BROKEN = b"--b\r\nno colon in this\x01header\r\n\r\n"
SOME = {"file": ("x", b"1")}


@pytest.fixture(scope="module")
def server(bundle_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(bundle_path, "server.workers=2", "server.api_processes=2", "server.precision=f32") as running:
        yield running


@pytest.fixture(scope="module")
def strict(bundle_path: Path) -> Iterator[ServerProcess]:
    """One worker, little room, little patience, and long batches."""
    settings = ["workers=1", "queue_size=20", "request_timeout=3.0", f"max_body_bytes={LIMIT}", "max_batch_size=16",
                "batch_timeout=0.5", f"max_held_bytes={8 * LIMIT}"]  # fmt: skip
    with ServerProcess(bundle_path, *(f"server.{setting}" for setting in settings)) as running:
        yield running


@pytest.fixture(scope="module")
def predictor(bundle_path: Path) -> Predictor:
    return Predictor.load(bundle_path, device="cpu", precision="f32")


def refusal(response: httpx.Response, status: int, code: str) -> None:
    """Check a refusal: all have the same form, and none names a file of the server."""
    app.refusal(response, status, code)
    detail = response.json()["detail"]
    assert "/" not in detail.replace("image/", "").replace("application/", "").replace("/openapi.json", "")


def post(server: ServerProcess, data: bytes, **parameters: str) -> httpx.Response:
    return server.client.post("/predict", files={"file": ("x", data)}, params=parameters)


# Answers


def test_an_answer_is_the_predictors(server: ServerProcess, predictor: Predictor) -> None:
    data = encode(gradient(300, 200), "JPEG")
    expected = predictor.predict([data])[0]
    assert isinstance(expected, Prediction)
    response = post(server, data)
    assert response.status_code == 200
    answer = response.json()
    assert set(answer) == {
        "predicted_class", "confidence", "probabilities", "inference_time_ms", "model_version", "domain_distance",
        "in_domain", "domain_p_value", "unnoticed_kinds", "request_id",
        "abstain", "abstain_reason", "prediction_set", "coverage", "similar_answers",
    }  # fmt: skip
    assert answer["predicted_class"] == expected.predicted_class
    assert answer["confidence"] == expected.confidence
    assert answer["probabilities"] == expected.probabilities
    assert list(answer["probabilities"].values()) == sorted(answer["probabilities"].values(), reverse=True)
    assert answer["model_version"] == predictor.bundle.version
    assert answer["domain_distance"] == expected.domain_distance
    assert answer["in_domain"] == expected.in_domain
    assert answer["domain_p_value"] == expected.domain_p_value
    assert tuple(answer["unnoticed_kinds"]) == expected.unnoticed_kinds
    assert answer["request_id"] == response.headers["x-request-id"]
    assert 0 < answer["inference_time_ms"] < 5000


@pytest.mark.parametrize(
    "media_type", ["image/png", "image/x-anything", "application/octet-stream", "", "IMAGE/PNG; a=b"]
)
def test_a_raw_body_is_answered_as_a_multipart_one(server: ServerProcess, media_type: str) -> None:
    data = encode(gradient())
    headers = {"content-type": media_type} if media_type else {}
    raw = server.client.post("/predict", content=data, headers=headers)
    assert raw.status_code == 200, raw.text
    assert raw.json()["probabilities"] == post(server, data).json()["probabilities"]


@pytest.mark.parametrize("method", [None, *METHODS])
def test_an_explanation_is_the_heat_map_of_its_class(
    server: ServerProcess, predictor: Predictor, method: Method | None
) -> None:
    """In parts, by several workers, and one after the other here: the same map."""
    data = encode(gradient())
    answer = predictor.predict([data])[0]
    assert isinstance(answer, Prediction)
    for name in (None, *predictor.bundle.classes):
        parameters = {"explain": "true"} | ({"class": name} if name else {}) | ({"method": method} if method else {})
        explanation = post(server, data, **parameters).json()["explanation"]
        expected = predictor.explain(answer, name, method or "occlusion")
        assert explanation["class"] == expected.class_name == (name or answer.predicted_class)
        assert explanation["method"] == (method or "occlusion")
        assert explanation["grid"] == list(expected.grid)
        assert explanation["foreground_share"] == expected.foreground_share
        assert (explanation["reliable"], explanation["doubts"]) == (expected.reliable, list(expected.doubts))
        assert explanation["probability"] == expected.probability
        assert explanation["covered_probability"] == expected.covered_probability
        overlay = base64.b64decode(explanation["overlay_png_base64"], validate=True)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(overlay))), expected.overlay(answer.image))
        layers = post(server, data, **parameters, layers="true").json()["explanation"]
        assert {key: layers[key] for key in explanation} == explanation
        image, heat = (
            np.asarray(Image.open(io.BytesIO(base64.b64decode(layers[f"{layer}_png_base64"], validate=True))))
            for layer in ("image", "heatmap")
        )
        np.testing.assert_array_equal(image, answer.image)
        np.testing.assert_array_equal(heat, to_grayscale(expected.heat))


def test_top_k_gives_the_most_probable(server: ServerProcess) -> None:
    everything = list(post(server, encode(gradient())).json()["probabilities"].items())
    for k in (1, 2, 99):
        assert list(post(server, encode(gradient()), top_k=str(k)).json()["probabilities"].items()) == everything[:k]


def test_many_clients_each_get_their_own_answer(server: ServerProcess, predictor: Predictor) -> None:
    images = [encode(np.full((40, 40, 3), shade, np.uint8)) for shade in range(0, 250, 5)]
    expected = predictor.predict(images)
    with ThreadPoolExecutor(25) as pool:
        responses = list(pool.map(lambda data: post(server, data), images * 4))
    for response, answer in zip(responses, expected * 4, strict=True):
        assert isinstance(answer, Prediction)
        assert response.json()["probabilities"] == answer.probabilities
    assert len({response.json()["request_id"] for response in responses}) == len(responses)


def test_health_and_info_and_index(server: ServerProcess, predictor: Predictor) -> None:
    health = server.client.get("/health")
    assert health.status_code == 200
    assert health.json() == {
        "status": "ready", "live": True, "ready": True,
        "workers": {"ready": 2, "total": 2, "versions": [predictor.bundle.version] * 2},
        "model_version": predictor.bundle.version, "ledger": "none",
    }  # fmt: skip
    info = server.client.get("/info").json()
    assert info["classes"] == list(predictor.bundle.classes)
    assert info["class_names"] == predictor.bundle.class_names
    assert info["model_version"] == predictor.bundle.version
    assert (info["engine"], info["precision"]) == ("openvino:cpu", "f32")
    assert info["metrics"] == predictor.bundle.facts["metrics"]
    assert info["notes"] == predictor.bundle.facts["notes"]
    assert info["limits"]["max_body_bytes"] == 21 * 2**20
    assert info["limits"]["max_archive_entries"] == 1000
    assert str(predictor.bundle.path) not in str(info)
    assert server.client.get("/").json()["predict"] == "/predict"


# Refusals


def test_hostile_images_get_the_decoders_verdict(server: ServerProcess) -> None:
    files = hostile_images()
    before = sum(process.memory_info().rss for process in server.family())
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda file: post(server, file.data), files.values()))
    for (name, file), response in zip(files.items(), responses, strict=True):
        if file.code is None:
            assert response.status_code == 200, name
        else:
            refusal(response, STATUS.get(file.code, 422), file.code)
    after = sum(process.memory_info().rss for process in server.family())
    assert after - before < 500 * 2**20
    assert server.client.get("/health").json()["status"] == "ready"


@pytest.mark.parametrize(
    ("method", "url", "content", "status", "code"),
    [
        ("POST", "/predict", {}, 400, "image_empty"),
        ("POST", "/predict", {"files": {"file": ("x", b"")}}, 400, "image_empty"),
        ("POST", "/predict", {"files": {"image": ("x", b"abc")}}, 400, "file_missing"),
        ("POST", "/predict", {"files": {"file": (None, b"text field")}}, 400, "file_missing"),
        ("POST", "/predict", {"files": [("file", ("x", b"1")), ("file", ("y", b"2"))]}, 400, "body_malformed"),
        ("POST", "/predict", {"content": b"--x", "headers": {"content-type": FORM[:19]}}, 400, "body_malformed"),
        ("POST", "/predict", {"content": BROKEN, "headers": {"content-type": FORM}}, 400, "body_malformed"),
        ("POST", "/predict", {"json": {"file": "x"}}, 415, "media_type_not_supported"),
        ("POST", "/predict", {"data": {"file": "x"}}, 415, "media_type_not_supported"),
        ("POST", "/predict?top_k=0", {"files": SOME}, 422, "parameter_invalid"),
        ("POST", "/predict?top_k=many", {"files": SOME}, 422, "parameter_invalid"),
        ("POST", "/predict?explain=perhaps", {"files": SOME}, 422, "parameter_invalid"),
        ("POST", "/predict?explain=1&class=none", {"files": SOME}, 422, "class_unknown"),
        ("POST", "/predict?class=glioma", {"files": SOME}, 422, "class_without_explain"),
        ("POST", "/predict?method=grad-cam", {"files": SOME}, 422, "method_without_explain"),
        ("POST", "/predict?explain=true&method=lime", {"files": SOME}, 422, "parameter_invalid"),
        ("GET", "/predict", {}, 405, "method_not_allowed"),
        ("DELETE", "/health", {}, 405, "method_not_allowed"),
        ("GET", "/nothing", {}, 404, "not_found"),
        ("GET", "/docs", {}, 404, "not_found"),
        ("POST", "/shutdown", {}, 404, "not_found"),
    ],
)  # fmt: skip
def test_bad_requests(
    server: ServerProcess, method: str, url: str, content: dict[str, Any], status: int, code: str
) -> None:
    response = server.client.request(method, url, **content)
    refusal(response, status, code)
    if status == 405:
        assert response.headers["allow"]


def test_a_sane_request_id_is_kept_and_another_replaced(server: ServerProcess) -> None:
    def sent(value: str) -> str:
        return server.client.get("/health", headers={"x-request-id": value}).headers["x-request-id"]

    assert sent("trace-1.A_b") == "trace-1.A_b"
    for bad in ("a b", "<script>", "x" * 65, "-x", ""):
        made = sent(bad)
        assert made != bad
        assert len(made) == 32
    assert "server" not in server.client.get("/health").headers


def chunks(total: int, size: int = 2**16) -> Iterator[bytes]:
    for _ in range(total // size):
        yield bytes(size)


def test_a_body_over_the_limit_is_refused_with_and_without_a_length(strict: ServerProcess) -> None:
    headers = {"content-type": "image/png"}
    for content in (bytes(LIMIT + 1), chunks(4 * LIMIT)):
        response = strict.client.post("/predict", content=content, headers=headers)
        refusal(response, 413, "body_too_large")
    response = strict.client.post("/predict", files={"file": ("x", bytes(LIMIT))})
    refusal(response, 413, "body_too_large")
    almost = strict.client.post("/predict", content=bytes(LIMIT), headers=headers)
    refusal(almost, 415, "image_not_recognised")


def test_a_length_over_the_limit_is_refused_before_the_body(strict: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", strict.port), timeout=10) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99999999999\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come_is_given_up(strict: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", strict.port), timeout=10) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nabc"
        )
        begin = time.monotonic()
        answer = b"".join(iter(lambda: connection.recv(4096), b""))  # the server closes what it will not read on
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"body_timeout" in answer
        assert 2.0 < time.monotonic() - begin < 6.0


# OpenAPI


def test_openapi_describes_what_is_there(server: ServerProcess) -> None:
    document = server.client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert {"/", "/predict", "/health", "/info", "/upload_training_data", "/retrain", "/rollback"} <= set(
        document["paths"]
    )
    predict = document["paths"]["/predict"]["post"]
    content = predict["requestBody"]["content"]
    assert content["multipart/form-data"]["schema"]["properties"]["file"]["format"] == "binary"
    assert content["multipart/form-data"]["schema"]["required"] == ["file"]
    assert {"image/*", "application/octet-stream"} <= set(content)
    assert {parameter["name"] for parameter in predict["parameters"]} == {
        "explain", "method", "layers", "class", "top_k", "coverage",
    }  # fmt: skip
    refused = {"400", "401", "403", "408", "413", "415", "422", "429", "500", "503", "507"}
    assert set(predict["responses"]) == {"200", *refused}
    for status, response in predict["responses"].items():
        assert list(response["content"]) == ["application/json" if status == "200" else "application/problem+json"]
    assert predict["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/PredictionAnswer")
    assert document["components"]["schemas"]["PredictionAnswer"]["examples"]
    assert "HTTPValidationError" not in str(document)


def test_answers_are_what_openapi_says(server: ServerProcess) -> None:
    document = server.client.get("/openapi.json").json()
    good = post(server, encode(gradient()), explain="true").json()
    answers = {
        "PredictionAnswer": [good, *document["components"]["schemas"]["PredictionAnswer"]["examples"]],
        "ProblemDetails": [post(server, b"").json(), *document["components"]["schemas"]["ProblemDetails"]["examples"]],
        "Health": [server.client.get("/health").json()],
        "Info": [server.client.get("/info").json()],
    }
    for name, instances in answers.items():
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator.check_schema(document["components"]["schemas"][name])
        for instance in instances:
            jsonschema.validate(instance, schema, jsonschema.Draft202012Validator)
    for reference in _references(document):
        value = document
        for part in reference.removeprefix("#/").split("/"):
            value = value[part]


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


# Batches, queues, workers


def test_a_bad_image_among_15_good_ones_in_a_batch_fails_alone(strict: ServerProcess) -> None:
    good = [encode(gradient(40 + index, 60)) for index in range(15)]
    alone = [post(strict, data).json()["probabilities"] for data in good]
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda data: post(strict, data), [*good[:8], b"no image at all", *good[8:]]))
    refusal(responses.pop(8), 415, "image_not_recognised")
    assert [response.json()["probabilities"] for response in responses] == alone
    # The engine's time of the batch is in each of its answers: one time, one batch.
    assert len({response.json()["inference_time_ms"] for response in responses}) == 1


def test_more_than_the_queue_holds_is_answered_503(strict: ServerProcess) -> None:
    (worker,) = strict.workers()
    worker.suspend()
    try:
        with ThreadPoolExecutor(30) as pool:
            waiting = [pool.submit(post, strict, encode(gradient())) for _ in range(30)]
            eventually(lambda: sum(each.done() for each in waiting) == 10, 2.5)
            for each in waiting:
                if each.done():
                    refusal(each.result(), 503, "queue_full")
            worker.resume()
            statuses = [each.result().status_code for each in waiting]
    finally:
        worker.resume()
    assert statuses.count(200) == 20


def test_a_request_that_takes_too_long_is_given_up(strict: ServerProcess) -> None:
    (worker,) = strict.workers()
    worker.suspend()
    try:
        begin = time.monotonic()
        response = post(strict, encode(gradient()))
        seconds = time.monotonic() - begin
    finally:
        worker.resume()
    refusal(response, 503, "timed_out")
    assert 2.5 < seconds < 5.0
    assert post(strict, encode(gradient())).status_code == 200


def test_a_request_that_a_dying_worker_took_unseen_is_answered_by_the_next(bundle_path: Path) -> None:
    with ServerProcess(bundle_path, "server.workers=1") as server, ThreadPoolExecutor(4) as pool:
        (worker,) = server.workers()
        worker.suspend()
        waiting = [pool.submit(post, server, encode(gradient())) for _ in range(4)]
        time.sleep(0.5)
        worker.kill()
        assert [each.result().status_code for each in waiting] == [200] * 4
        eventually(lambda: server.client.get("/health").json()["status"] == "ready")
        eventually(lambda: [process.pid for process in server.workers()] not in ([], [worker.pid]))


def test_a_worker_that_dies_at_work_is_replaced_and_its_requests_are_told(bundle_path: Path) -> None:
    with ServerProcess(bundle_path, "server.workers=2") as server, ThreadPoolExecutor(8) as pool:
        work = encode(np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8))
        for _ in range(2):
            begin = time.monotonic()
            waiting = [pool.submit(post, server, work) for _ in range(16)]
            time.sleep(0.3)
            server.workers()[0].kill()
            answers = [each.result() for each in waiting]
            assert time.monotonic() - begin < 25
            for answer in answers:
                if answer.status_code != 200:
                    refusal(answer, 503, "worker_died")
            assert sum(answer.status_code == 200 for answer in answers) >= 4
            eventually(lambda: server.client.get("/health").json()["status"] == "ready")


def test_without_any_worker_the_server_says_so_at_once(bundle_path: Path) -> None:
    with ServerProcess(bundle_path, "server.workers=1") as server:
        server.workers()[0].kill()
        eventually(lambda: server.client.get("/health").status_code == 503, 5)
        assert server.client.get("/health").json()["status"] == "unavailable"
        refusal(post(server, encode(gradient())), 503, "no_worker_ready")
        eventually(lambda: server.client.get("/health").status_code == 200)


def test_no_process_has_torch(server: ServerProcess) -> None:
    post(server, encode(gradient()))
    assert len(server.workers()) == 2
    for process in server.family():
        assert "libtorch" not in maps(process)
        assert "libc10" not in maps(process)


def test_the_import_brings_no_torch() -> None:
    code = (
        "import sys, serve.server, serve.launch, serve.inference.inference_worker; "
        "sys.exit(' '.join({'torch', 'timm', 'pandas'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_idle_server_rests(server: ServerProcess) -> None:
    def used() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in server.family())

    begin = used()
    time.sleep(4)
    assert used() - begin < 0.4  # a tenth of one core, of seven processes


def test_memory_is_bounded_when_50_clients_send_20_mb_each(bundle_path: Path) -> None:
    with ServerProcess(bundle_path, "server.workers=2") as server:
        peak = 0

        def one(_: int) -> int:
            content = chunks(20 * 2**20)
            return httpx.post(
                f"{server.url}/predict", content=content, headers={"content-type": "image/png"}, timeout=120
            ).status_code

        with ThreadPoolExecutor(50) as pool:
            waiting = [pool.submit(one, index) for index in range(50)]
            while not all(each.done() for each in waiting):
                # The proportional share: the resident size counts pages that processes share once for each.
                peak = max(peak, sum(process.memory_full_info().pss for process in server.family()))
                time.sleep(0.05)
        statuses = [each.result() for each in waiting]
        print("peak", peak / 2**20, "MiB", {status: statuses.count(status) for status in set(statuses)})
        assert set(statuses) <= {415, 503}
        assert statuses.count(415) >= 10  # some are read to their end: memory is waited for, not fought over
        assert peak < 2 * 2**30
        assert post(server, encode(gradient())).status_code == 200


# Begin and end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_every_process_after_the_answers(bundle_path: Path, number: int) -> None:
    with ServerProcess(bundle_path, "server.workers=2") as server, ThreadPoolExecutor(12) as pool:
        work = encode(np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8))
        waiting = [pool.submit(post, server, work) for _ in range(12)]
        time.sleep(0.5)
        assert server.stop(number) == 0
        assert [each.result().status_code for each in waiting] == [200] * 12
        assert "Traceback" not in server.output()


def test_a_signal_to_the_whole_group_ends_it_too(bundle_path: Path) -> None:
    with ServerProcess(bundle_path, "server.workers=1") as server:
        family = server.family()
        os.killpg(server.process.pid, signal.SIGTERM)
        server.process.wait(30)
        assert psutil.wait_procs(family, timeout=5)[1] == []


@pytest.mark.parametrize("victim", ["parent", "api", "manager"])
def test_nothing_is_left_when_a_process_is_killed(bundle_path: Path, victim: str) -> None:
    with ServerProcess(bundle_path, "server.workers=1") as server:

        def forked() -> list[psutil.Process]:
            found = [process for process in server.family()[1:] if "-c" not in process.cmdline()]
            return sorted(found, key=lambda process: process.create_time())

        eventually(lambda: len(forked()) == 2)  # what is spawned looks like its parent for a moment
        family, (manager, api) = server.family(), forked()  # the manager is started first
        {"parent": family[0], "manager": manager, "api": api}[victim].kill()
        assert server.process.wait(60) != 0
        assert psutil.wait_procs(family, timeout=10)[1] == []


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (["bundle=/nowhere"], "bundle_missing"),
        (["port=80"], "1024"),
        (["port=abc"], "port=abc"),
        (["log_level=foo"], "log_level=foo is unknown. Use one of critical, error,"),
        (["server.threads=abc"], "threads=abc must be a whole number, more than 0."),
        (["server.workers=1.5"], "workers=1.5 must be a whole number"),
        (["server.batch_timeout=abc"], "batch_timeout=abc"),
        (["server.precision=foo"], "precision='foo' is unknown. Use 'auto', 'f32', 'bf16' or 'f16'."),
        (["host=example.org"], "host"),
        (["server.workers=-1"], "workers"),
        (["server.device=tpu"], "tpu"),
        (["server.batch_timeout=40"], "batch_timeout"),
        (["server.max_pixel=1"], "max_pixel"),
    ],
)
def test_what_cannot_run_is_refused_with_a_sentence(
    bundle_path: Path, overrides: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = [] if overrides[0].startswith("bundle=") else [f"bundle={bundle_path}"]
    with pytest.raises(SystemExit) as ended:
        main([*first, *overrides])
    assert ended.value.code not in (None, 0)
    said = capsys.readouterr().err
    assert word in said
    assert "Traceback" not in said


def test_a_port_in_use_is_refused(server: ServerProcess, bundle_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), f"bundle={bundle_path}", f"port={server.port}"],
        capture_output=True, timeout=60, check=False, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    [sentence] = done.stderr.splitlines()
    assert sentence.startswith(f"port_taken: port {server.port} is taken by another program")
    assert sentence.endswith(f"port={server.port + 1}.")


def test_a_server_that_serves_says_so_and_what_is_off(server: ServerProcess) -> None:
    words = server.output()
    assert f"on http://127.0.0.1:{server.port}\nUploads and retraining are off" in words
    assert words.count("Serving ") == 1
    assert "storage=local turns them on." in words


def test_workers_that_cannot_load_end_the_server(bundle_path: Path, tmp_path: Path) -> None:
    code = (
        "from serve.factory import create_server\n"
        "from serve.settings import ServerSettings\n"
        "from lesion.core.errors import BundleError\n"
        "if __name__ == '__main__':\n"
        f"    made = create_server({str(bundle_path)!r}, settings=ServerSettings(device='cpu', workers=2))\n"
        "    made.lit_api.bundle = made.lit_api.bundle / 'gone'\n"
        "    try:\n"
        f"        made.run(port={free_port()})\n"
        "    except BundleError as error:\n"
        "        print(error.code)\n"
    )
    script = tmp_path / "broken.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, timeout=60, check=False, text=True)
    assert done.stdout.splitlines()[-1] == "worker_failed"
