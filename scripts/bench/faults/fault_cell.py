"""A cell of the fault matrix: a server on a small disk, clients that upload and predict, and what is checked."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image as Picture
from sqlalchemy import select, text

from lesion.catalogue.import_run import import_manifest
from lesion.core.commands import quote_hydra_value
from lesion.core.files import bytes_sha256
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import GateLook, Image
from lesion.registry.registry import Registry
from lesion.retraining.jobs import job
from scripts.bench.faults.database_proxy import DatabaseProxy
from tests.support.bundles.lamp_bundles import lamp, lamp_pictures
from tests.support.images.loop_images import storage_in
from tests.support.images.pictures import picture
from tests.support.paths import SCRIPTS
from tests.support.servers.serving import ServerProcess
from tests.support.servers.slow_writes import hold
from tests.support.small_disk import SmallDisk
from tests.support.training_subprocess import CONFIG, STAND_IN

BODY = {"epochs": 3, "batch_size": 8, "learning_rate": 0.01}
PATIENCE_S = 90.0
_HELD_S = 2.0  # how long the writes of short stages take, so that they can be met
_HELD = ("INSERT ON snapshots", "INSERT ON model_versions", "INSERT ON gate_looks", "INSERT ON deployments")
_PAUSE_S = 0.1


def make_template(folder: Path, database: str | None = None) -> None:
    """Make what a cell begins with: a catalogue whose champion is always wrong, and a bundle that is always right.

    Without a ``database`` it is in an SQLite file, whose writes in short stages take 2 s.
    """
    storage = storage_of(folder / "loop", database)
    storage.cache.parent.mkdir(parents=True)
    storage.upgrade()
    snapshot = import_manifest(storage, lamp_pictures(folder / "pictures", 30), progress=False)
    registry = Registry(storage)
    champion = registry.register(lamp(folder / "champion", -0.05, config=CONFIG), snapshot_id=snapshot)
    registry.deploy_first(champion, "bench", "the first")
    registry.register(lamp(folder / "second", -0.04, config=CONFIG), snapshot_id=snapshot)
    lamp(folder / "right", 0.05, config=CONFIG)
    if database is None:
        hold(storage.database, *_HELD, seconds=_HELD_S)
    storage.engine.dispose()


def storage_of(folder: Path, database: str | None) -> Storage:
    """Return the storage in a folder, with its SQLite file or another database."""
    storage = storage_in(folder)
    return storage if database is None else replace(storage, database=database)


def photo(seed: int) -> bytes:
    """Return a bright picture."""
    buffer = io.BytesIO()
    Picture.fromarray((picture(seed) * 0.4 + 150).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


class Cell:
    """A server and its storage on a small disk, with a client that uploads and one that asks for predictions."""

    def __init__(self, template: Path, disk: SmallDisk, folder: Path, database: str | None = None) -> None:
        self.disk, self.folder, self.template = disk, folder, template
        shutil.copytree(template / "loop", disk.folder / "loop")
        self.storage = storage_of(disk.folder / "loop", database)
        self.proxy = None if database is None else DatabaseProxy(Path(str(self.storage.url.query["host"])))
        self.files = Path(self.storage.files)
        self.backup = disk.folder / "backup"
        self.kept: list[str] = []  # hashes of uploads that were answered as kept
        self.answers: list[tuple[int, str]] = []  # to predictions: status, and version or code
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._upload, self._predict)]
        self._port: int | None = None
        self._others: list[subprocess.Popen[bytes]] = []  # backups, and the worker of a shared database
        self.server = self._new_server()
        self.begin_server()
        for thread in self._threads:
            thread.start()

    def _new_server(self) -> ServerProcess:
        waits = {"epoch 1": str(self.folder / "train"), "evaluate": str(self.folder / "evaluate")}
        os.environ["LESION_STAND_IN"] = json.dumps({"bundle": str(self.template / "right"), "waits": waits})
        script = f"worker_settings=[\"retrain.script='{STAND_IN}'\"]"
        settings = ("storage=local", *self._place(), script, "server.workers=1")
        if self.proxy is not None:
            self._start("worker.py", f"retrain.script='{STAND_IN}'")
        server = ServerProcess(self.template / "champion", *settings, port=self._port)
        self._port = server.port
        return server

    def _place(self) -> list[str]:
        settings = [f"storage_root={self.disk.folder / 'loop'}"]
        if self.proxy is not None:
            url = self.storage.url.set(host="127.0.0.1", port=self.proxy.port, query={})
            settings.append(f"storage.database={quote_hydra_value(url.render_as_string(hide_password=False))}")
        return settings

    def _start(self, script: str, *arguments: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, str(SCRIPTS / script), *arguments, *self._place()]
        self._others.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return self._others[-1]

    def begin_server(self) -> None:
        """Start the server, again if it has ended."""
        if self.server.process.poll() is not None:
            self.server = self._new_server()
        self.server.__enter__()

    def processes(self) -> list[psutil.Process]:
        """Return the server's processes and those of backups."""
        found = self.server.family() if self.server.process.poll() is None else []
        others = [psutil.Process(one.pid) for one in self._others if one.poll() is None]
        return found + [each for other in others for each in (other, *other.children(recursive=True))]

    def query(self, statement: str) -> list[tuple[object, ...]]:
        """Read what is committed, also while another program holds the database's lock."""
        with self.storage.reading() as session:
            return [tuple(row) for row in session.execute(text(statement))]

    def request_retraining(self) -> None:
        self.server.client.post("/retrain", json=BODY).raise_for_status()

    def wait_for_stage(self, stage: str) -> None:
        """Wait until the job is in a stage; that of training with an epoch done."""
        least = 1 if stage == "train" else 0
        self.wait(lambda: self.query(f"SELECT 1 FROM jobs WHERE stage = '{stage}' AND epoch >= {least}"), stage)

    def let_training_go_on(self) -> None:
        for name in ("train", "evaluate"):
            (self.folder / name).touch()

    def begin_backup(self) -> "subprocess.Popen[bytes]":
        """Begin a backup onto the small disk."""
        return self._start("backup.py", "create", str(self.backup))

    def wait(self, condition: object, what: str, seconds: float = PATIENCE_S) -> float:
        """Wait until a condition holds; return the seconds that it took."""
        began = time.monotonic()
        while not condition():  # type: ignore[operator]
            if time.monotonic() - began > seconds:
                raise TimeoutError(f"{what} did not come within {seconds:.0f} s")
            time.sleep(0.01)
        return time.monotonic() - began

    def close(self) -> None:
        """End the clients and every process."""
        self._stopped.set()
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.server.process.wait()
        for thread in self._threads:
            thread.join()
        self.server.client.close()
        self.server.log.close()
        self.storage.engine.dispose()
        if self.proxy is not None:
            self.proxy.cut()

    def _upload(self) -> None:
        for seed in range(10_000, 20_000):
            if self._stopped.wait(_PAUSE_S):
                return
            label = ("bright", "dark")[seed % 2]
            with suppress(httpx.TransportError):
                files = {"files": photo(seed)}
                url = f"http://127.0.0.1:{self._port}/upload_training_data"
                answer = httpx.post(url, files=files, data={"label": label}, timeout=PATIENCE_S)
                if answer.status_code == 200:
                    content = answer.json()
                    self.kept += [each["sha256"] for kind in ("accepted", "quarantined") for each in content[kind]]

    def _predict(self) -> None:
        data = photo(1)
        while not self._stopped.wait(_PAUSE_S):
            try:
                answer = httpx.post(f"http://127.0.0.1:{self._port}/predict", content=data, timeout=PATIENCE_S)
                content = answer.json()
                self.answers.append((answer.status_code, content.get("model_version") or content["code"]))
            except httpx.TransportError as error:
                self.answers.append((0, type(error).__name__))

    # What must hold in the end

    def losses(self) -> list[str]:
        """Return what was lost or is half done; empty if nothing is."""
        found = []
        with self.storage.reading() as session:
            catalogue = {row.sha256: row.status for row in session.scalars(select(Image))}
        if missing := set(self.kept) - set(catalogue):
            found.append(f"{len(missing)} acknowledged uploads are not in the catalogue")
        for sha256 in catalogue:
            with suppress(FileNotFoundError):
                if bytes_sha256((self.files / image_key(sha256)).read_bytes()) == sha256:
                    continue
            found.append(f"the file of {sha256[:8]} is missing or damaged")
        known = {model.version for model in Registry(self.storage).models()}
        if strange := {version for status, version in self.answers if status == 200} - known:
            found.append(f"unknown versions answered: {strange}")
        if odd := {f"{status} {code}" for status, code in self.answers if status not in (0, 200, 503, 507)}:
            found.append(f"predictions were answered {odd}")
        return found

    def job_faults(self) -> list[str]:
        """Return what is wrong with the end of the only retraining: it must be promoted once, after one look."""
        job_id = str(self.query("SELECT id FROM jobs")[0][0])
        ended, found = job(self.storage, job_id), []
        if ended.state != "promoted":
            found.append(f"the job is {ended.state}: {ended.reason[:200]}")
        if [row.job_id for row in Registry(self.storage).history()].count(job_id) != 1:
            found.append("it is not in the ledger once")
        with self.storage.reading() as session:
            if len(list(session.scalars(select(GateLook)))) != 1:
                found.append("it did not use one look")
        return found

    def champion_is_served(self) -> bool:
        """Return whether the server answers with the ledger's champion."""
        row = Registry(self.storage).champion()
        with suppress(httpx.HTTPError):
            answer = self.server.client.post("/predict", content=photo(1))
            return row is not None and answer.status_code == 200 and answer.json()["model_version"] == row.version
        return False
