"""A cell of the fault matrix: a server on a small disk, clients that upload and predict, and what is checked."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image as Picture
from sqlalchemy import text

from lesion.registry.registry import Registry
from scripts.bench.faults.cell_storage import CellStorage
from tests.support.images.pictures import picture
from tests.support.paths import SCRIPTS
from tests.support.servers.serving import ServerProcess
from tests.support.small_disk import SmallDisk
from tests.support.training_subprocess import STAND_IN

BODY = {"epochs": 3, "batch_size": 8, "learning_rate": 0.01}
PATIENCE_S = 90.0
_PAUSE_S = 0.1


def photo(seed: int) -> bytes:
    """Return a bright picture."""
    buffer = io.BytesIO()
    Picture.fromarray((picture(seed) * 0.4 + 150).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


class Cell:
    """A server and its storage on a small disk, with a client that uploads and one that asks for predictions."""

    def __init__(self, place: CellStorage, disk: SmallDisk, folder: Path) -> None:
        self.place, self.disk, self.folder = place, disk, folder
        self.storage = place.storage
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

    @property
    def files(self) -> Path:
        """The folder of a local store."""
        return Path(self.storage.files)

    def _new_server(self) -> ServerProcess:
        waits = {"epoch 1": str(self.folder / "train"), "evaluate": str(self.folder / "evaluate")}
        os.environ["LESION_STAND_IN"] = json.dumps({"bundle": str(self.place.bundles / "right"), "waits": waits})
        settings = [*self.place.settings, "server.workers=1"]
        if self.place.shared:
            self._start("worker.py", f"retrain.script='{STAND_IN}'")
        else:
            settings.append(f"worker_settings=[\"retrain.script='{STAND_IN}'\"]")
        server = ServerProcess(self.place.bundles / "champion", *settings, port=self._port)
        self._port = server.port
        return server

    def _start(self, script: str, *arguments: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, str(SCRIPTS / script), *arguments, *self.place.settings]
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

    def champion_is_served(self) -> bool:
        """Return whether the server answers with the ledger's champion."""
        row = Registry(self.storage).champion()
        with suppress(httpx.HTTPError):
            answer = self.server.client.post("/predict", content=photo(1))
            return row is not None and answer.status_code == 200 and answer.json()["model_version"] == row.version
        return False
