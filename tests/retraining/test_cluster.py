"""Two servers and two workers on one PostgreSQL and one S3 store; nothing is shared by disk."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil
import pytest
from sqlalchemy import select

from lesion.catalogue.import_run import import_manifest
from lesion.cli.storage.storage_settings import open_storage
from lesion.database.object_store import ObjectStore, StoreError
from lesion.database.storage import Storage
from lesion.database.tables import AuditEntry, Worker
from lesion.registry.registry import Registry
from tests.support.bundles.lamp_bundles import lamp, lamp_pictures
from tests.support.images.hostile import encode
from tests.support.images.pictures import picture
from tests.support.paths import REPOSITORY, SCRIPTS
from tests.support.servers.postgresql import PASSWORD, postgresql
from tests.support.servers.seaweed import ACCESS_KEY, BUCKET, SECRET_KEY, seaweed
from tests.support.servers.serving import ServerProcess, eventually
from tests.support.training_subprocess import CONFIG, STAND_IN

pytestmark = pytest.mark.slow
NAMES = (
    "LESION_DATABASE", "LESION_FILES", "LESION_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "LESION_IDENTITY_KEY",
)  # fmt: skip
ENDED = ("promoted", "rejected", "budget_spent", "failed", "cancelled")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A database server and an object store, and the environment that names them; gives a folder."""
    folder = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        address = stack.enter_context(postgresql(folder / "pg"))
        store = stack.enter_context(seaweed(folder / "s3"))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        values = (address, f"s3://{BUCKET}/loop", store, ACCESS_KEY, SECRET_KEY, "5a" * 32)
        for name, value in zip(NAMES, values, strict=True):
            patch.setenv(name, value)
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield folder


@dataclass
class WorkerRun:
    """``scripts/worker.py`` with a disk of its own; its trainings are the stand-in's."""

    folder: Path
    log: IO[bytes] = field(default_factory=tempfile.TemporaryFile)

    def __post_init__(self) -> None:
        command = [sys.executable, str(SCRIPTS / "worker.py"), "storage=cluster"]
        command += [f"storage_root={self.folder}", f"retrain.script='{STAND_IN}'"]
        orders = {"bundle": str(self.folder.parent / "right"), "epoch_s": 0.7, "record": str(self.record)}
        self.process = subprocess.Popen(
            command,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            env=os.environ | {"LESION_STAND_IN": json.dumps(orders)},
        )

    @property
    def record(self) -> Path:
        return self.folder.with_suffix(".starts")

    def starts(self) -> list[int]:
        """After how many epochs each of its trainings began."""
        lines = self.record.read_text().splitlines() if self.record.is_file() else []
        return [int(line.split()[1]) for line in lines]

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def end(self) -> None:
        for process in (*children(self.process), self.process):
            process.kill()
        self.process.wait()


def children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    if process.poll() is not None:
        return []
    family: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
    return family


@dataclass
class Cluster:
    """What runs, and the state as a third machine would see it."""

    folder: Path
    storage: Storage
    servers: list[ServerProcess]
    workers: list[WorkerRun]
    first: str

    def job(self, job_id: str, server: int = 0) -> dict[str, Any]:
        job: dict[str, Any] = self.servers[server].client.get(f"/retrain_status/{job_id}").json()
        return job

    def versions(self) -> set[str]:
        """The versions that the inference workers and the API of both servers serve."""
        health = [server.client.get("/health").json() for server in self.servers]
        return {version for one in health for version in (*one["workers"]["versions"], one["model_version"])}

    def living(self) -> int:
        """How many workers say that they live."""
        with self.storage.session() as session:
            return len(session.scalars(select(Worker.id)).all())

    def predictions(self, data: bytes) -> list[tuple[str, str]]:
        answers = [server.client.post("/predict", content=data).json() for server in self.servers]
        return [(answer["model_version"], answer["predicted_class"]) for answer in answers]

    def actions(self, subject: str) -> list[str]:
        with self.storage.session() as session:
            entries = session.scalars(select(AuditEntry).filter_by(subject=subject).order_by(AuditEntry.id))
            return [entry.action for entry in entries]


@pytest.fixture(scope="module")
def cluster(environment: Path) -> Iterator[Cluster]:
    """Two servers whose champion is always wrong, and two workers that have a better one."""
    folder = environment
    storage = open_storage(["storage=cluster", f"storage_root={folder}/operator"])
    snapshot = import_manifest(storage, lamp_pictures(folder / "pictures", 30), progress=False)
    registry = Registry(storage)
    first = registry.register(lamp(folder / "wrong", -0.05, config=CONFIG), snapshot_id=snapshot)
    registry.deploy_first(first, "ann", "the first")
    lamp(folder / "right", 0.05, config=CONFIG)
    with ExitStack() as stack:
        stack.callback(storage.engine.dispose)
        made = Cluster(folder, storage, [], [], first)
        for name in ("server1", "server2"):
            settings = ["storage=cluster", f"storage_root={folder / name}", "server.workers=1"]
            made.servers.append(ServerProcess("null", *settings))
            stack.push(made.servers[-1])
        for name in ("worker1", "worker2"):
            made.workers.append(WorkerRun(folder / name))
            stack.callback(end_and_show, made.workers[-1])
        for server in made.servers:
            server.__enter__()
        yield made


def end_and_show(worker: WorkerRun) -> None:
    worker.end()
    print(worker.output())
    worker.log.close()


def shade(seed: int, base: int) -> bytes:
    """A picture around some brightness."""
    return encode((picture(seed) * 0.4 + base).astype("uint8"))


def upload(server: ServerProcess, label: str, *images: bytes) -> dict[str, list[dict[str, Any]]]:
    files = [("files", (f"{number}.png", data, "image/png")) for number, data in enumerate(images)]
    response = server.client.post("/upload_training_data", data={"label": label}, files=files)
    assert response.status_code == 200, response.text
    answer: dict[str, list[dict[str, Any]]] = response.json()
    return answer


def test_what_one_server_took_the_other_knows(cluster: Cluster) -> None:
    one, other = cluster.servers
    images = [shade(700, 76), shade(701, 76), shade(702, 150), shade(703, 150)]
    taken = upload(one, "bright", *images)
    assert (len(taken["accepted"]), len(taken["quarantined"]), taken["rejected"]) == (2, 2, [])
    again = upload(other, "bright", *images)
    assert {image["code"] for judged in again.values() for image in judged} == {"already_known"}
    for label in ("dark", "bright"):  # without keys everybody on this machine may correct labels
        corrected = upload(other, label, images[0])
        assert [image["code"] for judged in corrected.values() for image in judged] == ["label_corrected"]
    waiting = {image["sha256"] for image in taken["quarantined"]}
    assert {image["sha256"] for image in other.client.get("/quarantine").json()["images"]} == waiting
    for sha256 in waiting:
        thumbnail = other.client.get(f"/quarantine/{sha256}/thumbnail")
        assert (thumbnail.status_code, thumbnail.content[:4]) == (200, b"\x89PNG")
        assert other.client.post(f"/quarantine/{sha256}/release").status_code == 200
    assert one.client.get("/quarantine").json() == {"images": []}
    assert one.client.get("/training_data").json() == other.client.get("/training_data").json()
    assert one.client.get("/training_data").json()["status"] == {
        "accepted": 64,
        "quarantined": 0,
        "dropped": 0,
        "deleted": 0,
    }


def retrained(cluster: Cluster, epochs: int, server: int) -> str:
    """Ask one server for a retraining, and the other one too while it runs; return the job's id."""
    body = {"epochs": epochs, "batch_size": 8, "learning_rate": 0.01}
    answer = cluster.servers[server].client.post("/retrain", json=body)
    assert answer.status_code == 202, answer.text
    refused = cluster.servers[1 - server].client.post("/retrain", json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "job_running")
    job_id: str = answer.json()["job_id"]
    assert refused.json()["job_id"] == job_id
    return job_id


def ended(cluster: Cluster, job_id: str) -> dict[str, Any]:
    """Wait until a job is over; both servers tell the same of it."""
    eventually(lambda: cluster.job(job_id)["state"] in ENDED, 60)
    assert cluster.job(job_id) == cluster.job(job_id, 1)
    return cluster.job(job_id)


def test_a_job_is_run_once_and_both_servers_swap_and_go_back(cluster: Cluster) -> None:
    eventually(lambda: cluster.living() == 2)
    assert cluster.versions() == {cluster.first}
    job_id = retrained(cluster, 3, server=0)
    job = ended(cluster, job_id)
    assert (job["state"], job["epoch"]) == ("promoted", 3), job["reason"]
    assert sorted(worker.starts() for worker in cluster.workers) == [[], [0]]
    assert cluster.actions(job_id) == ["job.submitted", "labels.checked", "snapshot.taken", "job.promoted"]
    assert cluster.living() == 2
    eventually(lambda: cluster.versions() == {job["version"]}, 15)
    assert cluster.predictions(shade(704, 150)) == [(job["version"], "bright")] * 2
    for name in ("server1", "server2", "worker1", "worker2"):  # who runs no job needs no bundle
        there = {entry.name for entry in (cluster.folder / name / "cache" / "bundles").glob("*")}
        assert there in ({cluster.first, job["version"]}, set()), name
        assert there or name.startswith("worker")
    rolled_back = cluster.servers[1].client.post("/rollback", json={"reason": "only a test"})
    assert rolled_back.json()["version"] == cluster.first
    eventually(lambda: cluster.versions() == {cluster.first}, 15)
    assert cluster.predictions(shade(704, 150)) == [(cluster.first, "dark")] * 2


def test_a_killed_worker_s_job_is_ended_by_the_other_on_its_own_disk(cluster: Cluster) -> None:
    before = [worker.starts() for worker in cluster.workers]
    job_id = retrained(cluster, 8, server=1)
    eventually(lambda: cluster.job(job_id)["epoch"] >= 2, 60)
    began = [len(worker.starts()) - len(old) for worker, old in zip(cluster.workers, before, strict=True)]
    assert sorted(began) == [0, 1]
    killed, other = (cluster.workers[began.index(count)] for count in (1, 0))
    trainings = children(killed.process)
    killed.process.kill()
    killed.process.wait()
    job = ended(cluster, job_id)
    assert (job["state"], job["epoch"]) == ("promoted", 8), job["reason"]
    assert cluster.actions(job_id).count("job.worker_died") == 1
    assert len(other.starts()) == len(before[cluster.workers.index(other)]) + 1
    assert other.starts()[-1] >= 2  # it went on from the checkpoint in the store
    assert not [process for process in trainings if process.is_running()]
    eventually(lambda: not (other.folder / "cache" / "jobs" / job_id).exists())
    eventually(lambda: not cluster.storage.store.has(f"jobs/{job_id}/8/progress.json"))
    eventually(lambda: cluster.versions() == {job["version"]}, 15)


def test_no_secret_is_in_a_log_or_on_a_command_line(cluster: Cluster) -> None:
    pids = [process.pid for server in cluster.servers for process in server.family()]
    commands = [command_line(pid) for pid in (*pids, *(worker.process.pid for worker in cluster.workers))]
    assert sum("scripts/serve.py" in command for command in commands) >= 2
    assert sum("scripts/worker.py" in command for command in commands) >= 1
    said = [server.output() for server in cluster.servers] + [worker.output() for worker in cluster.workers]
    assert not [text for text in (*commands, *said) if PASSWORD in text or SECRET_KEY in text]


def command_line(pid: int) -> str:
    """How a process was called; nothing when it has ended."""
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return ""


def test_the_readme_names_the_commands_and_the_environment() -> None:
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    block = re.search(r"### Several machines\n.*?```sh\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    assert re.findall(r"\b([A-Z0-9_]{5,})=", block[1]) == list(NAMES)
    for command in ("lesion serve storage=cluster", "lesion worker storage=cluster"):
        assert command in block[1]


def test_machines_see_each_others_objects(environment: Path) -> None:
    address, options = f"s3://{BUCKET}/objects", {"endpoint_url": os.environ["LESION_S3"]}
    one, other = (ObjectStore(address, options | {"skip_instance_cache": True}) for _ in range(2))
    assert not other.has("a/b")
    one.put("a/b", b"first")
    other.put("a/b", b"second")
    assert (one.get("a/b"), other.get("a/b")) == (b"first", b"first")
    other.delete("a/b")
    other.delete("a/b")
    with pytest.raises(StoreError) as caught:
        one.get("a/b")
    assert caught.value.code == "file_gone"
    one.put("a/b", b"third")
    one.put("a/c/d", bytes(20_000_000))
    assert (other.get("a/b"), len(other.get("a/c/d"))) == (b"third", 20_000_000)
    other.delete_folder("a")
    other.delete_folder("a")
    assert not one.has("a/b")
    assert not one.has("a/c/d")


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": ACCESS_KEY, "secret": "guessed"},
        {"endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"total_max_attempts": 1}}},
    ],
    ids=["a wrong key", "a store that is away"],
)
def test_what_the_store_refuses_is_no_missing_file(environment: Path, wrong: dict[str, Any]) -> None:
    store = ObjectStore(f"s3://{BUCKET}/loop", {"endpoint_url": os.environ["LESION_S3"]} | wrong)
    with pytest.raises(StoreError) as caught:
        store.get("a/b")
    assert (type(caught.value), caught.value.code) == (StoreError, "store_failed")
    assert "guessed" not in caught.value.message
