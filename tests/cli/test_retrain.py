"""``scripts/retrain.py`` against a real server whose worker is the test itself."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lesion.auth import api_keys
from lesion.catalogue.import_run import import_manifest
from lesion.database.storage import Storage
from lesion.database.tables import Job, Worker
from lesion.promotion.gate_levels import GateLevels
from lesion.promotion.gate_settings import GateSettings
from lesion.registry.registry import Registry
from lesion.retraining.jobs import JobState, cancel, jobs
from lesion.retraining.leases import WorkerHeartbeats, WorkerIdentity, claim, finish, record_progress
from serve.deploy.ports import free_port
from tests.support.bundles.lamp_bundles import lamp, lamp_pictures
from tests.support.images.loop_images import new_storage, put_picture
from tests.support.paths import SCRIPTS
from tests.support.servers.serving import ServerProcess, eventually

pytestmark = pytest.mark.slow


@dataclass
class Loop:
    """A storage with a champion and an admin's key, and the server that it is served by."""

    folder: Path
    storage: Storage
    key: str
    port: int
    images: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def server(self) -> ServerProcess:
        settings = ("storage=local", f"storage_root={self.folder}", "worker=false", "server.workers=1")
        return ServerProcess("null", *settings, port=self.port)

    def start(self, *arguments: str, key: str | None = None) -> subprocess.Popen[str]:
        environment = os.environ | {"LESION_API_KEY": self.key if key is None else key, "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, str(SCRIPTS / "retrain.py"), self.url, *arguments]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=self.folder
        )

    def run(self, *arguments: str, key: str | None = None) -> tuple[int, str, str]:
        process = self.start(*arguments, key=key)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def bring_image(self) -> None:
        self.images += 1
        put_picture(self.storage, self.folder, 9000 + self.images, "bright")

    def active(self) -> list[Job]:
        return [job for job in jobs(self.storage, 5) if job.active]


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    folder = tmp_path_factory.mktemp("loop")
    storage = new_storage(folder)
    snapshot = import_manifest(storage, lamp_pictures(folder / "pictures", 30), progress=False)
    registry = Registry(storage)
    registry.deploy_first(registry.register(lamp(folder / "bundle", 0.05), snapshot_id=snapshot), "ann", "the first")
    made = Loop(folder, storage, api_keys.create(storage, "schedule", "admin", "test"), free_port())
    with made.server():
        yield made
    storage.engine.dispose()


@pytest.fixture(autouse=True)
def nothing_is_left(loop: Loop) -> Iterator[None]:
    yield
    for job in loop.active():
        cancel(loop.storage, job.id, "test")
        finish(loop.storage, job.id, job.owner or "", JobState.CANCELLED, "test")


def lines_until(process: subprocess.Popen[str], start: str) -> list[str]:
    """Return the lines that are printed until one begins so; it is the last of them."""
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    while lines[-1] and not lines[-1].startswith(start):
        lines.append(process.stdout.readline())
    return lines


def test_without_new_images_nothing_is_asked_for(loop: Loop) -> None:
    before = len(jobs(loop.storage, 50))
    status, out, err = loop.run("--new-images", "1000", "--wait")
    assert (status, err) == (0, "")
    assert out.startswith("Nothing to do: ")
    assert out.endswith("and --new-images is 1000.\n")
    assert len(jobs(loop.storage, 50)) == before


def test_it_asks_once_and_then_finds_its_job(loop: Loop) -> None:
    loop.bring_image()
    status, out, err = loop.run("--epochs", "3")
    (job,) = loop.active()
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("No retraining has run to its end yet")
    assert lines[1].startswith("The next comparison decides on ")
    assert lines[2] == "What to do next:"
    assert lines[-2].startswith("This was computed with the default settings of the gate")
    assert lines[-1] == f"{job.id} is queued; {loop.images} new images wait."
    assert job.request["epochs"] == 3
    assert job.requested_by.startswith("schedule (")
    status, out, err = loop.run()
    assert (status, err) == (0, "")
    assert out == f"{job.id} is queued already, asked for by {job.requested_by}.\n"
    assert [one.id for one in loop.active()] == [job.id]


@pytest.mark.parametrize(
    ("state", "expected"), [("rejected", 0), ("promoted", 0), ("budget_spent", 0), ("failed", 1), ("cancelled", 1)]
)
def test_waiting_tells_how_it_goes_and_how_it_ended(loop: Loop, state: str, expected: int) -> None:
    loop.bring_image()
    process = loop.start("--wait", "60")
    eventually(loop.active)
    (job,) = loop.active()
    assert claim(loop.storage, job.id, "w1")
    record_progress(loop.storage, job.id, "w1", stage="train", epoch=2)
    said = lines_until(process, "train, ")
    finish(loop.storage, job.id, "w1", JobState(state), "so it was")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (expected, "")
    assert said[-1] == "train, 2 of 5 epochs\n"
    assert out.splitlines()[-1] == f"{job.id} {state}: so it was"


def test_what_to_do_next_is_told_at_the_end(loop: Loop) -> None:
    loop.bring_image()
    process = loop.start("--wait", "60")
    eventually(loop.active)
    (job,) = loop.active()
    assert claim(loop.storage, job.id, "w1")
    verdict = {"summary": {"why": "It was not proved better.", "next_steps": ["Upload more.", "Then retrain."]}}
    record_progress(loop.storage, job.id, "w1", stage="gate", verdict=verdict)
    finish(loop.storage, job.id, "w1", JobState.REJECTED, "It was not proved better.")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-4:] == [
        f"{job.id} rejected: It was not proved better.",
        "What to do next:",
        "- Upload more.",
        "- Then retrain.",
    ]


def test_an_estimate_asks_for_nothing(loop: Loop) -> None:
    status, out, err = loop.run("--estimate", "--json", "--epochs", "3")
    assert (status, err) == (0, "")
    estimate = json.loads(out)
    assert (estimate["epochs"], estimate["would_train"], estimate["gate_settings"]) == (3, True, "default")
    status, out, err = loop.run("--estimate")
    assert (status, err) == (0, "")
    assert estimate["summary"]["why"] in out.splitlines()
    assert [f"- {step}" for step in estimate["summary"]["next_steps"]] == out.splitlines()[3:-1]
    status, out, err = loop.run("--json")
    assert (status, out) == (2, "")
    assert "--json needs --estimate" in err
    assert loop.active() == []


def test_nothing_is_asked_for_that_could_prove_nothing(loop: Loop) -> None:
    """By the settings of the worker, no number of errors that the few images of the gate may have is enough."""
    loop.bring_image()
    strict = GateSettings(levels=GateLevels(lifetime_rate=1e-6, min_alpha=1e-9))
    WorkerHeartbeats(loop.storage, WorkerIdentity("w", "elsewhere", 1), gate=strict).beat()
    status, out, err = loop.run("--wait")
    with loop.storage.session() as session:  # without a trace, which another test would find
        session.delete(session.get_one(Worker, "w"))
    assert (status, err) == (0, "")
    assert "The gate set is too small to prove anything" in out
    assert out.splitlines()[-1] == "Nothing is asked for: no new model could be promoted now."
    assert loop.active() == []


def test_waiting_tells_that_no_worker_runs(loop: Loop) -> None:
    loop.bring_image()
    process = loop.start("--wait", "60")
    eventually(loop.active)
    (job,) = loop.active()
    said = lines_until(process, "No worker is running;")
    assert said[-2:] == ["queued, 0 of 5 epochs\n", "No worker is running; the job waits until one is started.\n"]
    cancel(loop.storage, job.id, "ann")
    process.communicate(timeout=30)


def test_it_does_not_wait_for_ever(loop: Loop) -> None:
    loop.bring_image()
    status, _, err = loop.run("--wait", "0.5")
    (job,) = loop.active()
    assert status == 2
    assert err == f"error (timed_out): Job {job.id} did not end within 0.5 s.\n"


def test_refusals_are_told(loop: Loop) -> None:
    viewer = api_keys.create(loop.storage, "viewer", "viewer", "test")
    time.sleep(2.5)  # the server reads the keys once a second
    for key, code in ((viewer, "role_insufficient"), ("", "key_missing")):
        status, out, err = loop.run(key=key)
        assert (status, out) == (2, "")
        assert err.startswith(f"error ({code}): ")
    assert loop.active() == []


def test_a_server_that_is_replaced_is_waited_for(loop: Loop, tmp_path: Path) -> None:
    loop = Loop(loop.folder, loop.storage, loop.key, free_port(), loop.images + 100)
    loop.bring_image()
    first = loop.server()
    with first:
        process = loop.start("--wait", "120")
        said = lines_until(process, "queued, ")
        assert "is queued" in said[-2]
        assert said[-1] == "queued, 0 of 5 epochs\n"
        first.stop()
    time.sleep(3)  # it asks and gets no answer
    assert process.poll() is None
    (job,) = loop.active()
    assert claim(loop.storage, job.id, "w1")
    finish(loop.storage, job.id, "w1", JobState.REJECTED, "not better")
    with loop.server():
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1] == f"{job.id} rejected: not better"


def test_a_server_that_is_away_is_an_error_at_the_start(loop: Loop) -> None:
    nobody = Loop(loop.folder, loop.storage, loop.key, free_port())
    status, _, err = nobody.run("--wait", "60")
    assert status == 2
    assert err.startswith("error (server_away): ")
