"""GET /metrics: counts that are right over all processes of a server, whichever of them is asked."""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from lesion.auth import api_keys
from lesion.catalogue.import_run import import_manifest
from lesion.database.storage import Storage
from lesion.registry.registry import Registry
from serve.observability.collectors import DatabaseCollector
from serve.observability.prometheus import count_request
from tests.support.bundles.lamp_bundles import lamp, lamp_pictures
from tests.support.images.hostile import encode, gradient
from tests.support.images.loop_images import new_storage
from tests.support.images.pictures import picture
from tests.support.servers.app import bearer, client_of, make_app
from tests.support.servers.serving import ServerProcess, eventually

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process


class Scrape:
    """What a server's /metrics says at a moment."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples: list[Sample] = [sample for family in self.families.values() for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the series of a name that have these labels."""
        return sum(
            one.value for one in self.samples if one.name == f"lesion_{name}" and labels.items() <= one.labels.items()
        )

    def labels(self, name: str, label: str) -> set[str]:
        return {one.labels[label] for one in self.samples if one.name == f"lesion_{name}"}


def scrape(server: ServerProcess) -> Scrape:
    answer = server.client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Scrape(answer.text)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    bundle = lamp(tmp_path_factory.mktemp("lamp") / "bundle", 0.05)
    with ServerProcess(bundle, "server.workers=2", "server.api_processes=2") as running:
        yield running


def test_every_request_counts_once_whichever_process_answers(server: ServerProcess) -> None:
    before = scrape(server)
    images = [encode(picture(number)) for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda image: server.client.post("/predict", content=image), images * 5))
    assert [answer.status_code for answer in answers] == [200] * 60
    assert server.client.post("/predict", content=b"nothing").status_code == 415
    assert server.client.post("/predict", params={"explain": True}, content=images[0]).status_code == 200
    after = scrape(server)

    def more(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    assert more("requests_total", method="POST", route="/predict", status="200") == 61
    assert more("requests_total", route="/predict", status="415") == 1
    assert more("request_seconds_count", route="/predict") == 62
    assert more("stage_seconds_count", stage="receive") == 62
    assert more("stage_seconds_count", stage="queue") == 62
    assert more("stage_seconds_count", stage="explain") == 1
    assert more("stage_seconds_count", stage="cover") == 3  # the image itself, large squares, small squares
    assert more("batch_size_sum") == 62
    assert more("batch_size_count") == more("stage_seconds_count", stage="decode")
    assert more("stage_seconds_count", stage="infer") <= more("batch_size_count")
    assert more("predictions_total") == more("prediction_confidence_count") == 61
    sure = [answer.json()["confidence"] for answer in answers]
    assert more("prediction_confidence_sum") == pytest.approx(sum(sure) + sure[0])
    bright = sum(answer.json()["predicted_class"] == "bright" for answer in answers)
    alike = answers[0].json()["predicted_class"] == "bright"
    assert more("predictions_total", predicted_class="bright") == bright + alike
    assert after.labels("predictions_total", "version") == {answers[0].json()["model_version"]}
    assert after.labels("predictions_total", "in_domain") <= {"true", "false"}
    for stage in ("receive", "queue", "decode", "infer"):
        spent = more("stage_seconds_sum", stage=stage)
        assert 0 < spent < more("request_seconds_sum", route="/predict")


def test_the_board_is_shown(server: ServerProcess) -> None:
    shown = scrape(server)
    assert (shown("workers"), shown("workers_ready"), shown("queue_depth"), shown("queue_limit")) == (2, 2, 0, 256)
    version = server.client.get("/info").json()["model_version"]
    assert shown("workers_serving", version=version, engine="openvino:cpu") == 2
    assert shown("start_time_seconds") == pytest.approx(psutil.Process(server.process.pid).create_time(), abs=30)
    assert not {"lesion_database_up", "lesion_ledger_followed", "lesion_jobs"} & shown.families.keys()


def test_strangers_make_no_new_series(server: ServerProcess) -> None:
    known = len(scrape(server).samples)
    server.client.get("/nowhere")
    server.client.request("BREW", "/nowhere")
    once = scrape(server)
    assert once("requests_total", route="other", status="404") >= 1
    for number in range(20):
        server.client.get(f"/nowhere{number}")
        server.client.request(f"BREW{number}", "/predict")
        server.client.get(f"/models/{number:012x}")
    again = scrape(server)
    assert "BREW1" not in again.labels("requests_total", "method")
    assert not any("nowhere" in route for route in again.labels("requests_total", "route"))
    assert len(again.samples) - known < 80


def test_a_body_that_is_too_large_is_counted_under_its_route(server: ServerProcess) -> None:
    refused = {"route": "/predict", "status": "413"}
    before = scrape(server)("requests_total", **refused)
    assert server.client.post("/predict", content=bytes(22 * 2**20)).status_code == 413
    assert scrape(server)("requests_total", **refused) == before + 1


def test_no_count_falls_when_a_worker_dies(server: ServerProcess) -> None:
    image = encode(gradient())
    for _ in range(8):
        assert server.client.post("/predict", content=image).status_code == 200
    before = scrape(server)
    for worker in server.workers()[:1]:
        worker.send_signal(signal.SIGKILL)
    eventually(lambda: scrape(server)("workers_ready") == 1, 10)
    eventually(lambda: scrape(server)("workers_ready") == 2)
    assert server.client.post("/predict", content=image).status_code == 200
    after = scrape(server)
    assert after("batch_size_sum") == before("batch_size_sum") + 1
    counts = [one for one in before.samples if one.name.endswith(("_total", "_count", "_bucket"))]
    assert len(counts) > 50
    fallen = [one for one in counts if after(one.name.removeprefix("lesion_"), **one.labels) < one.value]
    assert fallen == []


def test_uploads_jobs_and_swaps_of_a_server_with_a_storage(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    snapshot = import_manifest(storage, lamp_pictures(tmp_path / "pictures", 20), progress=False)
    registry = Registry(storage)
    first, second = (
        registry.register(lamp(tmp_path / f"lamp{gain}", gain), snapshot_id=snapshot) for gain in (0.05, 0.04)
    )
    registry.deploy_first(first, "test", "the first")
    settings = ("storage=local", f"storage_root={tmp_path}", "worker=false", "server.workers=2")
    with ServerProcess("null", *settings) as server:
        shown = scrape(server)
        assert (shown("database_up"), shown("ledger_followed"), shown("retraining_workers")) == (1, 1, 0)
        ended = {"promoted", "rejected", "budget_spent", "failed", "cancelled"}
        assert shown.labels("jobs", "state") == {"queued", "running"} | ended
        assert (shown("deployments_total", action="first"), shown("deployments_total", action="promote")) == (1, 0)

        dark, bright = (encode((picture(seed) * 0.4 + lift).astype(np.uint8)) for seed, lift in ((901, 0), (902, 150)))
        files = [("files", ("a.png", dark)), ("files", ("b.png", b"no image")), ("files", ("c.png", bright))]
        answer = server.client.post("/upload_training_data", data={"label": "dark"}, files=files).json()
        before, shown = shown, scrape(server)
        assert answer["accepted"]
        assert answer["rejected"]
        for outcome in ("accepted", "quarantined", "rejected"):
            assert shown("uploads_total", outcome=outcome) == len(answer[outcome])
        assert shown("uploads_total") == 3
        assert shown("uploads_total", outcome="rejected", code=answer["rejected"][0]["code"]) == 1
        for status in ("accepted", "quarantined"):
            assert shown("images", status=status) == before("images", status=status) + len(answer[status])

        assert server.client.post("/retrain", json={"epochs": 1}).status_code == 202
        shown = scrape(server)
        assert (shown("jobs", state="queued"), shown("job_active_seconds") >= 0) == (1, True)
        assert shown("gate_verdicts", verdict="promote") == 0

        assert server.client.post(f"/models/{second}/promote", json={"reason": "a test"}).status_code == 200
        eventually(lambda: scrape(server)("workers_serving", version=second) == 2)
        shown = scrape(server)
        assert shown("swaps_total", outcome="swapped") == shown("swap_seconds_count") == 2
        assert 0 < shown("swap_seconds_sum") < 60
        assert shown("deployments_total", action="promote") == 1


def test_a_key_is_asked_for_and_a_viewers_is_enough(tmp_path: Path) -> None:
    storage = new_storage(tmp_path / "loop")
    api_keys.create(storage, "anna", "admin", "test")
    viewer = api_keys.create(storage, "prometheus", "viewer", "test")
    with client_of(make_app(lamp(tmp_path / "lamp", 1.0), storage)) as client:
        assert client.get("/metrics").status_code == 401
        answer = client.get(
            "/metrics", headers=bearer(viewer) | {"Accept": "application/openmetrics-text;version=1.0.0"}
        )
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")


def only(collector: DatabaseCollector) -> SimpleNamespace:
    """What a server has with a storage, as far as GET /metrics needs it, without a follower."""
    return SimpleNamespace(collector=collector, follower=None)


def test_a_database_that_is_away_is_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    storage = Storage(f"sqlite:///{tmp_path}/none/lesion.db", f"{tmp_path}/files", tmp_path / "cache")
    (tmp_path / "none").mkdir()
    app = make_app(lamp(tmp_path / "lamp", 1.0), None)
    app.state.services.stored = only(DatabaseCollector(storage))  # of a database without tables
    with client_of(app) as client:
        shown = Scrape(client.get("/metrics").text)
    assert shown("database_up") == 0
    assert shown("workers") == 1
    assert "lesion_jobs" not in shown.families


def test_what_nobody_waited_for_is_counted_without_a_time(tmp_path: Path) -> None:
    with client_of(make_app(lamp(tmp_path / "lamp", 1.0), None)) as client:
        before = Scrape(client.get("/metrics").text)
        count_request("GET", "/test", 0, None)
        after = Scrape(client.get("/metrics").text)
    assert after("requests_total", route="/test", status="0") == before("requests_total", route="/test", status="0") + 1
    assert after("request_seconds_count", route="/test") == 0


def test_a_database_that_does_not_answer_holds_up_no_scrape(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked, free = [], threading.Event()

    def hang(storage: Storage) -> None:
        asked.append(storage)
        free.wait(30)

    monkeypatch.setattr("serve.observability.collectors.database_metrics", hang)
    app = make_app(lamp(tmp_path / "lamp", 1.0), None)
    app.state.services.stored = only(DatabaseCollector(new_storage(tmp_path / "loop"), patience=0.1))
    try:
        with client_of(app) as client:
            assert [Scrape(client.get("/metrics").text)("database_up") for _ in range(3)] == [0, 0, 0]
    finally:
        free.set()
    assert len(asked) == 1  # the others waited for the first one's answer
