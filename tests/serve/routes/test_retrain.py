"""The routes of retraining, and the worker that a server's launcher keeps beside it."""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from fastapi import FastAPI, Request
from hydra import compose, initialize_config_dir
from sqlalchemy import select
from starlette.testclient import TestClient
from starlette.types import Message

from lesion.database.storage import Storage
from lesion.database.tables import Worker
from lesion.model.bundle import Bundle
from lesion.registry.registry import Registry
from lesion.retraining.jobs import JobState, RetrainRequest, job, submit
from lesion.retraining.leases import WorkerHeartbeats, WorkerIdentity, claim, finish, record_progress
from lesion.retraining.stored_reports import save_report
from serve.http.middleware import RequestContext
from serve.http.problems import add_error_handlers
from serve.request_errors import BusyError
from serve.routes import retrain
from serve.worker_supervisor import WorkerSupervisor, settings_of
from tests.support.bundles.registry_bundles import sealed
from tests.support.images.loop_images import new_storage
from tests.support.paths import CONFIGS
from tests.support.servers.app import make_state
from tests.support.servers.serving import eventually

BODY = {"epochs": 3, "batch_size": 16, "learning_rate": 0.01}


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    made = new_storage(tmp_path / "it's = a {loop}, here")
    registry = Registry(made)
    registry.deploy_first(registry.register(sealed(tmp_path / "bundle")), "ann", "the first")
    yield made
    made.engine.dispose()


@pytest.fixture
def client(storage: Storage, tmp_path: Path) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(retrain.router)
    add_error_handlers(app)
    app.add_middleware(RequestContext)
    app.state.services = make_state(Bundle.open(tmp_path / "bundle"), storage)
    with TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 5000)) as made:
        yield made


def test_a_retraining_is_asked_for_watched_and_cancelled(client: TestClient, storage: Storage) -> None:
    made = client.post("/retrain", json=BODY, headers={"Idempotency-Key": "k"})
    assert made.status_code == 202
    place, shown = made.headers["Location"], made.json()
    assert place == f"/retrain_status/{shown['job_id']}"
    assert (shown["state"], shown["request"], shown["requested_by"]) == ("queued", BODY, "local")
    again = client.post("/retrain", json=BODY, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["job_id"]) == (202, shown["job_id"])
    busy = client.post("/retrain", json=BODY)
    assert (busy.status_code, busy.json()["code"], busy.json()["job_id"]) == (409, "job_running", shown["job_id"])
    assert busy.headers["Location"] == place
    assert busy.headers["Content-Type"] == "application/problem+json"
    other = client.post("/retrain", json=BODY | {"epochs": 4}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    claim(storage, shown["job_id"], "w1")
    record_progress(
        storage, shown["job_id"], "w1", stage="train", epoch=1, progress=0.3, metrics=[{"epoch": 1, "val/acc": 0.5}]
    )
    WorkerHeartbeats(storage, WorkerIdentity("w1", "elsewhere", 1)).beat()
    status = client.get(place).json()
    assert (status["stage"], status["epoch"], status["metrics"][0]["val/acc"]) == ("train", 1, 0.5)
    assert [one["job_id"] for one in client.get("/retrain_jobs").json()] == [shown["job_id"]]
    gone = client.delete(f"/retrain_jobs/{shown['job_id']}")
    assert (gone.status_code, gone.json()["cancel_requested"]) == (202, True)
    finish(storage, shown["job_id"], "w1", JobState.CANCELLED, "local cancelled it.")
    late = client.delete(f"/retrain_jobs/{shown['job_id']}")
    assert (late.status_code, late.json()["code"]) == (409, "job_over")


def test_a_missing_worker_is_told_with_the_time_and_a_cancelled_job_ends_without_it(
    client: TestClient, storage: Storage
) -> None:
    nobody = {"running": False, "seen_at": None}
    shown = client.post("/retrain", json=BODY).json()
    place = f"/retrain_status/{shown['job_id']}"
    estimate = client.get("/retrain_estimate").json()
    assert shown["worker"] == client.get(place).json()["worker"] == estimate["worker"] == nobody
    claim(storage, shown["job_id"], "w1")
    worker = WorkerHeartbeats(storage, WorkerIdentity("w1", "elsewhere", 1))
    worker.beat()
    assert client.get(place).json()["worker"] == {"running": True, "seen_at": None}
    assert client.delete(f"/retrain_jobs/{shown['job_id']}").json()["state"] == "running"
    died = datetime(2026, 11, 30, 2, 11, 5, tzinfo=UTC)
    with storage.session() as session:
        session.get_one(Worker, "w1").seen_at = died
    assert client.get("/retrain_estimate").json()["worker"] == {"running": False, "seen_at": died.isoformat()}
    for view in (client.get("/retrain_jobs?limit=1").json()[0], client.get(place).json()):
        assert (view["state"], view["reason"], view["worker"]) == ("cancelled", "local cancelled it.", None)


def test_a_running_job_whose_worker_died_says_since_when(client: TestClient, storage: Storage) -> None:
    job_id = client.post("/retrain", json=BODY).json()["job_id"]
    claim(storage, job_id, "w1")
    worker = WorkerHeartbeats(storage, WorkerIdentity("w1", "elsewhere", 1))
    worker.beat()
    died = datetime(2026, 11, 30, 2, 11, 5, tzinfo=UTC)
    with storage.session() as session:
        session.get_one(Worker, "w1").seen_at = died
    view = client.get(f"/retrain_status/{job_id}").json()
    assert (view["state"], view["worker"]) == ("running", {"running": False, "seen_at": died.isoformat()})
    listed = client.get("/retrain_jobs").json()[0]
    assert listed["worker"] == view["worker"]


def test_a_list_of_jobs_leaves_out_single_images(client: TestClient, storage: Storage) -> None:
    compared = {"generation": 1, "images": 300, "gained": 200, "lost": 0}
    changed = [{"sha256": f"{number:064x}", "label": "glioma", "gained": True} for number in range(200)]
    verdict = {"promoted": False, "reasons": ["not better"], "comparisons": [compared | {"changed": changed}]}
    job_id = submit(storage, RetrainRequest(), "ann")[0].id
    claim(storage, job_id, "w1")
    record_progress(storage, job_id, "w1", verdict=verdict)
    finish(storage, job_id, "w1", JobState.REJECTED, "not better")
    second = submit(storage, RetrainRequest(), "ann")[0].id
    listed = client.get("/retrain_jobs").json()
    assert [(one["job_id"], one["verdict"]) for one in listed] == [
        (second, None),
        (job_id, verdict | {"comparisons": [compared]}),
    ]
    whole = client.get(f"/retrain_status/{job_id}").json()
    assert whole == listed[1] | {"verdict": verdict}


@pytest.mark.parametrize(
    "body",
    [
        {"epochs": 0},
        {"epochs": 101},
        {"batch_size": 1},
        {"learning_rate": 2.0},
        {"learning_rate": "fast"},
        {"trainer": {"max_epochs": 3}},
        {"epochs": 3, "model.weights": "/etc/passwd"},
        [],
    ],
)
def test_nothing_else_can_be_chosen(client: TestClient, body: object) -> None:
    answer = client.post("/retrain", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "parameter_invalid")
    assert client.get("/retrain_jobs").json() == []


def test_a_body_may_be_left_out(client: TestClient) -> None:
    assert client.post("/retrain").json()["request"] == {"epochs": 5, "batch_size": None, "learning_rate": None}


@pytest.mark.parametrize("path", ["/retrain_status/{}", "/retrain_jobs/{}/report", "/retrain_jobs/{}/events"])
def test_unknown_jobs(client: TestClient, path: str) -> None:
    answer = client.get(path.format("0" * 32))
    assert (answer.status_code, answer.json()["code"]) == (404, "job_unknown")
    assert client.get(path.format("..%2F..%2Fetc")).status_code in (404, 422)


def test_the_report_is_a_page_that_loads_nothing(client: TestClient, storage: Storage) -> None:
    job_id = submit(storage, RetrainRequest(), "ann")[0].id
    missing = client.get(f"/retrain_jobs/{job_id}/report")
    assert (missing.status_code, missing.json()["code"]) == (404, "report_missing")
    save_report(storage, job_id, "<h1>Rejected</h1>")
    page = client.get(f"/retrain_jobs/{job_id}/report")
    assert page.text == "<h1>Rejected</h1>"
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_events_tell_what_changes_and_end_with_the_job(
    client: TestClient, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrain, "_POLL_S", 0.05)
    state = client.app.state.services  # type: ignore[attr-defined]
    job_id = submit(storage, RetrainRequest(), "ann")[0].id
    claim(storage, job_id, "w1")

    def change_job() -> None:
        eventually(lambda: state.event_streams == 1)
        record_progress(storage, job_id, "w1", stage="train", progress=0.5)
        time.sleep(1.5)  # as long as a busy machine may take to look
        finish(storage, job_id, "w1", JobState.REJECTED, "not better")

    thread = threading.Thread(target=change_job)
    thread.start()
    answer = client.get(f"/retrain_jobs/{job_id}/events")
    thread.join()
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    events = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    assert {lines[0] for lines in events} == {"event: job"}
    told = [json.loads(lines[1].removeprefix("data: ")) for lines in events]
    assert [one["progress"] for one in told] == [0.0, 0.5, 1.0]
    assert (told[-1]["state"], told[-1]["reason"]) == ("rejected", "not better")
    assert state.event_streams == 0


def test_no_more_event_streams_than_allowed_begin_at_once(
    client: TestClient, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrain, "_MAX_STREAMS", 2)
    state = client.app.state.services  # type: ignore[attr-defined]
    job_id = submit(storage, RetrainRequest(), "ann")[0].id

    async def disconnect() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        """Take a part of the answer."""

    async def begin() -> None:
        scope = {"type": "http", "method": "GET", "headers": [], "asgi": {"spec_version": "2.3"}}
        request = Request(scope, disconnect)
        waiting = [await retrain.events(request, state, storage, job_id) for _ in range(2)]
        with pytest.raises(BusyError, match="2 event streams are open"):
            await retrain.events(request, state, storage, job_id)
        for response in waiting:  # each client has left
            await response(scope, disconnect, send)
        assert state.event_streams == 0

    asyncio.run(begin())


def test_a_worker_is_given_any_path(storage: Storage) -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("worker", settings_of(storage))
    assert (cfg.storage.database, cfg.storage.files) == (storage.database, storage.files)
    assert cfg.storage.cache == str(storage.cache)


@pytest.mark.slow
def test_a_worker_is_started_again_and_ended(storage: Storage) -> None:
    def alive() -> list[int]:
        with storage.session() as session:
            return [row.pid for row in session.scalars(select(Worker)) if psutil.pid_exists(row.pid)]

    with WorkerSupervisor(storage) as supervisor:
        eventually(alive, 60)
        first = supervisor.pid
        assert first is not None
        assert alive() == [first]
        job_id = submit(storage, RetrainRequest(), "ann")[0].id
        os.kill(first, signal.SIGKILL)
        eventually(lambda: alive() and first not in alive(), 60)
        eventually(lambda: job(storage, job_id).state == "failed", 60)  # nothing was imported
        assert "no data to train on" in job(storage, job_id).reason
        second = supervisor.pid
        assert second is not None
        assert second != first
    assert not psutil.pid_exists(second)
    assert alive() == []
