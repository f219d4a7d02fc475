"""``kill -9`` of each kind of process at each stage of a retraining: it ends with a verdict, and nothing is lost.

Where a stage would be over in a moment, a trigger in the database makes it slow in the middle of its transaction.
"""

import io
import json
import os
import signal
import sqlite3
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image as Picture
from sqlalchemy import select

from lesion.catalogue.import_run import import_manifest
from lesion.core.files import bytes_sha256
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import GateLook, Image
from lesion.registry.registry import Registry
from lesion.retraining.jobs import job, submit
from lesion.retraining.workflow import system_database
from tests.support.archives import zipped
from tests.support.bundles.lamp_bundles import lamp, lamp_pictures
from tests.support.images.loop_images import new_storage
from tests.support.images.pictures import picture
from tests.support.servers.serving import ServerProcess, eventually
from tests.support.servers.slow_writes import file_of, hold
from tests.support.servers.traffic import InThreads
from tests.support.servers.worker_runs import REQUEST, WorkerRun, actions
from tests.support.training_subprocess import CONFIG, STAND_IN

pytestmark = pytest.mark.slow
EPOCHS = REQUEST.epochs
BODY = {"epochs": EPOCHS, "batch_size": 8, "learning_rate": 0.01}
PATIENCE_S = 120.0  # these tests share their machine with others
HELD_S = 3.0  # at the speed of a quiet machine: long enough to be seen by a test that gets little of a busy one
LONG_HELD_S = 60.0  # where all processes are killed: reached while the server still starts, and never waited for
# Where the catalogue's transactions are held, and the table of DBOS that is written after each step.
IN_SNAPSHOT, IN_REGISTER = "INSERT ON snapshots", "INSERT ON model_versions"
IN_GATE, IN_PROMOTE = "INSERT ON gate_looks", "INSERT ON deployments"
IN_END = "UPDATE OF state ON jobs WHEN NEW.state = 'promoted'"
AFTER_STEP = "INSERT ON operation_outputs WHEN NEW.function_name IN ('begin', 'train', 'compare')"


# The state, seen without a lock


def query(database: str, statement: str) -> Sequence[Any]:
    """Read what is committed, whoever holds the database's lock."""
    with closing(sqlite3.connect(file_of(database), timeout=PATIENCE_S)) as connection:
        return connection.execute(statement).fetchall()


def stage_of(storage: Storage) -> str:
    """The stage of the only job."""
    return str(query(storage.database, "SELECT stage FROM jobs")[0][0])


def let_go(database: str, event: str) -> None:
    """Take the brake off again."""
    with closing(sqlite3.connect(file_of(database), timeout=PATIENCE_S, isolation_level=None)) as connection:
        connection.execute(f'DROP TRIGGER "{event}"')


def locked(database: str, seconds: float = 0.2) -> bool:
    """Whether somebody holds a database's lock for so long."""
    end = time.monotonic() + seconds
    with closing(sqlite3.connect(file_of(database), timeout=0, isolation_level=None)) as connection:
        while time.monotonic() < end:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
                return False
            except sqlite3.OperationalError:
                time.sleep(0.02)
    return True


def until(storage: Storage, stage: str, held: str = "", before: str | None = None) -> str | None:
    """Wait until the job is in a stage, with another worker than before.

    Args:
        storage: Where the job is, the only one.
        stage: The stage; that of training only with an epoch done.
        held: The database whose lock is held in the middle of it.
        before: The worker that was killed.

    Returns:
        Its worker.
    """

    def now() -> tuple[str, int, str | None]:
        row: tuple[str, int, str | None] = query(storage.database, "SELECT stage, epoch, owner FROM jobs")[0]
        return row

    def there() -> bool:
        found, epoch, owner = now()
        at_work = owner not in (None, before)
        return found == stage and at_work and (stage != "train" or epoch >= 1) and (not held or locked(held))

    eventually(there, PATIENCE_S)
    found, _, owner = now()
    assert found == stage
    return owner


def kept(storage: Storage) -> dict[str, str]:
    """Status by hash of every image in the catalogue, each of which has its file."""
    with storage.session() as session:
        rows = list(session.scalars(select(Image)))
    for row in rows:
        assert bytes_sha256(storage.store.get(image_key(row.sha256))) == row.sha256
    assert len({row.sha256 for row in rows}) == len(rows)
    return {row.sha256: row.status for row in rows}


def assert_promoted_once(storage: Storage, job_id: str) -> None:
    ended = job(storage, job_id)
    assert (ended.state, ended.stage, ended.epoch) == ("promoted", "promoted", EPOCHS)
    assert "it is right on 12 where the model in use is wrong, and wrong on 0 where that one is right" in ended.reason
    assert [row.job_id for row in Registry(storage).history()] == [None, job_id]
    assert [model.job_id for model in Registry(storage).models()] == [None, job_id]
    with storage.session() as session:
        assert [look.number for look in session.scalars(select(GateLook))] == [1]


# What runs


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """A catalogue of bright and dark pictures, whose champion is always wrong; a retraining gives one that is right."""
    made = new_storage(tmp_path / "loop")
    snapshot = import_manifest(made, lamp_pictures(tmp_path / "pictures", 30), progress=False)
    version = Registry(made).register(lamp(tmp_path / "champion", -0.05, config=CONFIG), snapshot_id=snapshot)
    Registry(made).deploy_first(version, "ann", "the first")
    lamp(tmp_path / "right", 0.05, config=CONFIG)
    yield made
    made.engine.dispose()


def orders_of(folder: Path) -> dict[str, Any]:
    """For trainings: they wait before they do anything, after an epoch, and before they end, until they may go on.

    The first wait is for a worker that was told to end in the snapshot and comes to the training before it does.
    """
    waits = {"start": str(folder / "snapshot"), "epoch 1": str(folder / "train"), "evaluate": str(folder / "evaluate")}
    return {"bundle": str(folder / "right"), "record": str(folder / "starts"), "waits": waits}


@dataclass
class Starter:
    """Starts servers, one after the other on one port, each with its worker; all processes are ended with the test."""

    storage: Storage
    folder: Path
    server: ServerProcess | None = None
    seen: list[psutil.Process] = field(default_factory=list)
    servers: list[ServerProcess] = field(default_factory=list)

    def start(self, workers: int = 1) -> ServerProcess:
        script = f"worker_settings=[\"retrain.script='{STAND_IN}'\"]"
        root = f"storage_root={self.storage.cache.parent}"
        port = self.server.port if self.server else None
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LESION_STAND_IN", json.dumps(orders_of(self.folder)))
            settings = ("storage=local", root, script, f"server.workers={workers}")
            self.server = ServerProcess(self.folder / "champion", *settings, port=port)
        self.seen.append(psutil.Process(self.server.process.pid))
        self.server.__enter__()
        self.servers.append(self.server)
        self.seen += self.server.family()
        return self.server

    def kill(self, everything: bool) -> None:
        """Kill the server, and at once all that it started if that is wanted; nothing may be left in the end."""
        assert self.server is not None
        family = self.server.family()
        self.seen += family
        for process in family if everything else family[:1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.server.process.wait()
        self.server.client.close()

    def gone(self, processes: Sequence[psutil.Process]) -> None:
        """Wait until processes have ended; those that nobody waited for yet have."""
        deadline = time.monotonic() + PATIENCE_S
        while alive := [process for process in processes if lives(process)]:
            assert time.monotonic() < deadline, [
                (process.pid, process.status(), process.cmdline()) for process in alive
            ]
            time.sleep(0.05)

    def close(self) -> None:
        if self.server is not None and self.server.process.poll() is None:
            self.seen += self.server.family()
        for process in self.seen:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self.server is not None:
            self.server.process.wait()
        for server in self.servers:
            print(server.output())
            server.client.close()
            server.log.close()


def lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def starter(storage: Storage, tmp_path: Path) -> Iterator[Starter]:
    made = Starter(storage, tmp_path)
    yield made
    made.close()


def starts(record: Path) -> list[tuple[int, int]]:
    """Of each training process its id, and how many epochs it went on from."""
    lines = record.read_text().splitlines() if record.is_file() else []
    return [(int(pid), int(done)) for pid, done in map(str.split, lines)]


def photo(seed: int) -> bytes:
    """A bright picture."""
    buffer = io.BytesIO()
    Picture.fromarray((picture(seed) * 0.4 + 150).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def champion_of(storage: Storage) -> str:
    row = Registry(storage).champion()
    assert row is not None
    return row.version


class Uploads(InThreads):
    """Somebody who uploads a picture after the other, until the server is gone; and what was kept of them.

    A first one is kept, or waits for a catalogue that is held, before anything else is done.
    """

    def __init__(self, url: str, first: int, database: str) -> None:
        self.kept: list[str] = []
        self._url = url
        self._database = database
        self._first = first

    def tasks(self) -> Sequence[Callable[[], None]]:
        return [self._send]

    def __enter__(self) -> Self:
        super().__enter__()
        eventually(lambda: self.kept or locked(self._database), PATIENCE_S)
        return self

    def _send(self) -> None:
        with httpx.Client(base_url=self._url, timeout=PATIENCE_S) as client, suppress(httpx.TransportError):
            for seed in range(self._first, self._first + 900):
                if self.stopped.wait(0.05):
                    return
                label = ("bright", "dark")[seed % 2]  # the champion agrees with one of them
                answer = client.post("/upload_training_data", files={"files": photo(seed)}, data={"label": label})
                if answer.status_code == 200:
                    self.kept += [
                        each["sha256"] for kind in ("accepted", "quarantined") for each in answer.json()[kind]
                    ]


# The server


# The stages, where each is held if it must be, and whether all processes are killed in the same moment or the server
# alone, whose others must then end by themselves. These go on for a moment: only where the training's waits keep them
# from the next stage may the server be killed alone.
KILLS = (
    ("snapshot", IN_SNAPSHOT, False),
    ("train", "", False),
    ("evaluate", "", False),
    ("register", IN_REGISTER, True),
    ("gate", IN_GATE, True),
    ("promote", IN_PROMOTE, True),
)


def test_a_server_killed_at_each_stage_goes_on_where_it_was(storage: Storage, starter: Starter, tmp_path: Path) -> None:
    first, server, uploaded = champion_of(storage), starter.start(), list[str]()
    hold(storage.database, *(event for _, event, everything in KILLS if event and not everything), seconds=HELD_S)
    job_id = server.client.post("/retrain", json=BODY).json()["job_id"]
    owner = None
    for number, (stage, event, everything) in enumerate(KILLS):
        with Uploads(server.url, 1000 * (number + 1), storage.database) as uploads:
            owner = until(storage, stage, storage.database if event else "", owner)
            starter.kill(everything)
        if event:
            let_go(storage.database, event)
        for _, following, all_of_them in KILLS[number + 1 : number + 2]:
            if following and all_of_them:
                starter.gone(starter.seen)  # a worker that outlives its server for a moment must not run into this
                hold(storage.database, following, seconds=LONG_HELD_S)
        assert job(storage, job_id).active == 1, stage
        before, uploaded = list(starter.seen), [*uploaded, *uploads.kept]
        server = starter.start()
        starter.gone(before)
        (tmp_path / stage).touch()
        assert set(uploaded) <= set(kept(storage))
        assert server.client.post("/predict", content=photo(1)).json()["model_version"] in (first, champion_of(storage))
    eventually(lambda: job(storage, job_id).active is None, PATIENCE_S)
    assert uploaded
    assert_promoted_once(storage, job_id)
    assert [done for _, done in starts(tmp_path / "starts")] == [0, 1, EPOCHS]
    eventually(lambda: server.client.get("/health").json()["workers"]["versions"] == [champion_of(storage)], PATIENCE_S)
    assert server.client.post("/predict", content=photo(1)).json()["predicted_class"] == "bright"
    assert set(kept(storage).values()) == {"accepted", "quarantined"}
    assert server.stop() == 0


def test_an_upload_that_the_server_was_killed_in_can_be_sent_again(
    storage: Storage, starter: Starter, tmp_path: Path
) -> None:
    """A retraining that was asked for in the moment before is not lost either."""
    photos = [photo(5000 + number) for number in range(60)]
    archive = zipped({f"dark/{number:03}.png": data for number, data in enumerate(photos)}, zipfile.ZIP_STORED)
    names = {bytes_sha256(data) for data in photos}
    server = starter.start()

    def send() -> httpx.Response:
        return httpx.post(f"{server.url}/upload_training_data", files={"files": archive}, timeout=PATIENCE_S)

    def recorded() -> int:
        return int(query(storage.database, "SELECT count(*) FROM images WHERE source = 'upload'")[0][0])

    with ThreadPoolExecutor(1) as pool:
        cut = pool.submit(send)
        eventually(lambda: recorded() >= 5, PATIENCE_S)
        job_id = server.client.post("/retrain", json=BODY).json()["job_id"]
        starter.kill(everything=True)
        assert isinstance(cut.exception(), httpx.TransportError)
    there = names & set(kept(storage))
    assert 5 <= len(there) < len(photos)
    for place in ("snapshot", "train", "evaluate"):
        (tmp_path / place).touch()
    server = starter.start()
    answer = send().json()
    assert (answer["quarantined"], answer["rejected"]) == ([], [])
    assert {each["sha256"] for each in answer["accepted"]} == names
    assert sum(each["code"] == "already_known" for each in answer["accepted"]) == len(there)
    assert names <= set(kept(storage))
    files = {path.name for path in (Path(storage.files) / "images").glob("??/*")}
    assert {name for name in files if not name.startswith(".part-")} == set(kept(storage))
    assert {each["code"] for each in send().json()["accepted"]} == {"already_known"}
    eventually(lambda: job(storage, job_id).active is None, PATIENCE_S)
    assert_promoted_once(storage, job_id)
    assert server.stop() == 0


def test_a_server_killed_at_its_first_import_leaves_nothing_and_takes_it_up_again(tmp_path: Path) -> None:
    manifest = lamp_pictures(tmp_path / "pictures", 60)
    bundle = lamp(tmp_path / "run" / "bundle", 0.05, config=CONFIG, data={"fingerprint": manifest.fingerprint})
    manifest.save(tmp_path / "run" / "manifest.parquet")
    settings = (bundle, "storage=local", "worker=false", f"storage_root={tmp_path / 'loop'}", "server.workers=1")
    killed = ServerProcess(*settings)
    eventually(lambda: list(tmp_path.glob("loop/files/images/??/*")), PATIENCE_S)
    family = killed.family()
    killed.process.kill()
    killed.process.wait()
    try:
        assert len(family) >= 2
        eventually(lambda: not any(map(lives, family)), PATIENCE_S)
    finally:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        killed.client.close()
        killed.log.close()
    with ServerProcess(*settings) as server:
        assert server.client.get("/training_data").json()["status"]["accepted"] == 120


# Its inference workers


@contextmanager
def frozen(process: psutil.Process, storage: Storage) -> Iterator[None]:
    """Stop a process while it holds no lock of the catalogue's."""
    with closing(sqlite3.connect(file_of(storage.database), timeout=PATIENCE_S, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        process.send_signal(signal.SIGSTOP)
        connection.execute("ROLLBACK")
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@dataclass
class RequestStats(InThreads):
    """Two clients that ask all along, and what they were answered: status, and version or code."""

    url: str
    answers: list[tuple[int, str]] = field(default_factory=list)

    def tasks(self) -> Sequence[Callable[[], None]]:
        return [self._ask] * 2

    def _ask(self) -> None:
        data = photo(1)
        with httpx.Client(base_url=self.url, timeout=PATIENCE_S) as client:
            while not self.stopped.wait(0.02):
                answer = client.post("/predict", content=data)
                content = answer.json()
                self.answers.append((answer.status_code, content.get("model_version") or content["code"]))


def kill_one(server: ServerProcess) -> None:
    """Kill the inference worker that has run for longest; the other one serves on, and a new one comes."""
    both = [process for process in server.workers() if any("spawn_main" in part for part in process.cmdline())]
    assert len(both) == 2
    oldest = min(both, key=lambda process: process.create_time())
    oldest.kill()
    eventually(lambda: server.client.get("/health").json()["workers"]["ready"] == 1, PATIENCE_S)
    health = server.client.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert server.client.post("/predict", content=photo(1)).status_code == 200


def whole(server: ServerProcess) -> bool:
    return bool(server.client.get("/health").json()["status"] == "ready")


def test_inference_workers_killed_at_each_stage_are_replaced(
    storage: Storage, starter: Starter, tmp_path: Path
) -> None:
    first, server = champion_of(storage), starter.start(workers=2)
    companion = next(one for one in server.family() if {"lesion", "worker"} <= set(one.cmdline()))
    eventually(lambda: "is ready" in server.output(), PATIENCE_S)
    workflows = system_database(storage)
    hold(workflows, AFTER_STEP, seconds=HELD_S)
    hold(storage.database, IN_PROMOTE, seconds=HELD_S)
    with RequestStats(server.url) as traffic, Uploads(server.url, 9000, storage.database) as uploads:
        kill_one(server)
        job_id = server.client.post("/retrain", json=BODY).json()["job_id"]
        for stage in ("snapshot", "train", "evaluate", "register", "gate"):
            lasts = stage in ("train", "evaluate")
            until(storage, stage, "" if lasts else workflows)
            with nullcontext() if lasts else frozen(companion, storage):
                eventually(lambda: whole(server), PATIENCE_S)
                assert stage_of(storage) == stage
                kill_one(server)
                eventually(lambda: whole(server), PATIENCE_S)
            (tmp_path / stage).touch()
        assert {version for status, version in traffic.answers if status == 200} == {first}
        until(storage, "promote", storage.database)
        kill_one(server)
        eventually(lambda: job(storage, job_id).active is None, PATIENCE_S)
        second = champion_of(storage)
        eventually(lambda: server.client.get("/health").json()["workers"]["versions"] == [second] * 2, PATIENCE_S)
        eventually(lambda: whole(server), PATIENCE_S)
    assert_promoted_once(storage, job_id)
    refused = [code for status, code in traffic.answers if status != 200]
    assert set(refused) <= {"worker_died"}
    assert len(refused) <= 2 * 7  # of two clients at seven kills, what the killed one had in hand
    assert {version for status, version in traffic.answers if status == 200} == {first, second}
    assert set(uploads.kept) <= set(kept(storage))
    assert actions(storage, job_id) == ["job.submitted", "job.promoted"]
    assert server.stop() == 0


# The worker for retrainings and its training process; at further stages in test_retrain


def test_a_worker_and_its_training_killed_at_each_stage_go_on(storage: Storage, tmp_path: Path) -> None:
    record, runs = tmp_path / "starts", list[WorkerRun]()
    held = (("register", IN_REGISTER), ("promote", IN_PROMOTE), ("promote", IN_END))
    hold(storage.database, *(event for _, event in held), seconds=HELD_S)
    (tmp_path / "snapshot").touch()

    def work() -> WorkerRun:
        runs.append(WorkerRun(storage, STAND_IN, **orders_of(tmp_path)))
        return runs[-1]

    owner = None
    try:
        worker = work()
        job_id = submit(storage, REQUEST, "ann")[0].id
        for stage in ("train", "evaluate"):
            until(storage, stage)
            begun = starts(record)
            os.kill(begun[-1][0], signal.SIGKILL)
            eventually(lambda before=begun: len(starts(record)) == len(before) + 1, PATIENCE_S)
        for stage, event in (("evaluate", ""), *held):
            owner = until(storage, stage, storage.database if event else "", owner)
            worker.kill()
            if event:
                let_go(storage.database, event)
            (tmp_path / stage).touch()
            assert job(storage, job_id).active == 1
            worker = work()
        eventually(lambda: job(storage, job_id).active is None, PATIENCE_S)
        assert_promoted_once(storage, job_id)
        assert worker.stop() == 0
    finally:
        for run in runs:
            if run.process.poll() is None:
                run.kill()
            print(run.output())
            run.log.close()
    assert [done for _, done in starts(record)] == [0, 1, EPOCHS, EPOCHS]
    assert actions(storage, job_id).count("job.worker_died") == 4
