"""A server whose disk is full: what would be written is refused and nothing half written, the rest goes on."""

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import func, select

from lesion.catalogue.import_run import import_manifest
from lesion.database.storage import Storage
from lesion.database.tables import AuditEntry, Base
from lesion.registry.registry import Registry
from tests.support.bundles.lamp_bundles import lamp, lamp_pictures
from tests.support.images.loop_images import new_storage
from tests.support.images.pictures import picture
from tests.support.paths import SCRIPTS
from tests.support.servers.serving import ServerProcess
from tests.support.small_disk import SmallDisk
from tests.support.training_subprocess import CONFIG

pytestmark = pytest.mark.slow


@pytest.fixture
def storage(disk: SmallDisk, tmp_path: Path) -> Iterator[Storage]:
    """On the small disk, a catalogue whose champion is always right, and a second version."""
    made = new_storage(disk.folder / "loop")
    snapshot = import_manifest(made, lamp_pictures(tmp_path / "pictures", 30), progress=False)
    registry = Registry(made)
    champion = registry.register(lamp(tmp_path / "champion", 0.05, config=CONFIG), snapshot_id=snapshot)
    registry.deploy_first(champion, "ann", "the first")
    registry.register(lamp(tmp_path / "second", 0.04, config=CONFIG), snapshot_id=snapshot)
    yield made
    made.engine.dispose()


@pytest.fixture
def server(
    storage: Storage, disk: SmallDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServerProcess]:
    """Its temporary files are on the small disk too."""
    (disk.folder / "tmp").mkdir()
    short = tempfile.TemporaryDirectory()  # the name of a socket there has at most 107 characters
    link = Path(short.name) / "tmp"
    link.symlink_to(disk.folder / "tmp")
    monkeypatch.setenv("TMPDIR", str(link))
    settings = ("storage=local", f"storage_root={storage.cache.parent}", "worker=false", "server.workers=1")
    with ServerProcess(tmp_path / "champion", *settings) as started:
        yield started
    short.cleanup()


def photo(seed: int, side: int = 64) -> bytes:
    """A bright picture."""
    buffer = io.BytesIO()
    values = (
        picture(seed) * 0.4 + 150 if side == 64 else np.random.default_rng(seed).integers(150, 255, (side, side, 3))
    )
    Picture.fromarray(values.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(storage: Storage) -> dict[str, int]:
    """The number of rows of each table; a request counts as used whatever becomes of it."""
    with storage.reading() as session:
        tables = [table for table in Base.metadata.sorted_tables if table.name != "usage"]
        return {table.name: session.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


def files(storage: Storage) -> set[str]:
    return {str(path) for path in Path(storage.files).rglob("*") if path.is_file()}


def test_what_would_be_written_is_refused_and_leaves_nothing(
    storage: Storage, server: ServerProcess, disk: SmallDisk
) -> None:
    client = server.client

    def upload(seed: int, label: str = "bright", side: int = 64) -> httpx.Response:
        return client.post("/upload_training_data", files={"files": photo(seed, side)}, data={"label": label})

    waiting = [upload(seed, "dark").json()["quarantined"][0]["sha256"] for seed in (901, 902)]
    second = Registry(storage).models()[1].version
    doors: dict[str, Callable[[], httpx.Response]] = {
        "upload": lambda: upload(903),
        "upload of a large image": lambda: upload(904, side=800),
        "feedback": lambda: client.post("/feedback", files={"file": photo(905)}, data={"label": "bright"}),
        "release": lambda: client.post(f"/quarantine/{waiting[0]}/release", json={}),
        "drop": lambda: client.post(f"/quarantine/{waiting[1]}/drop", json={"reason": "blurred"}),
        "promote": lambda: client.post(f"/models/{second}/promote", json={"reason": "by hand"}),
        "rollback": lambda: client.post("/rollback", json={"reason": "by hand"}),
        "retrain": lambda: client.post("/retrain", json={"epochs": 1}),
        "key": lambda: client.post("/keys", json={"name": "ann", "role": "admin"}),
    }
    before = rows(storage), files(storage)
    disk.fill()
    for name, ask in doors.items():
        if name != "rollback":  # there is nothing to roll back yet
            answer = ask()
            assert (answer.status_code, answer.json().get("code")) == (507, "storage_full"), (name, answer.text)
    assert client.post("/predict", content=photo(1)).json()["predicted_class"] == "bright"
    for path in ("/health", "/training_data", "/models", "/retrain_jobs", "/quarantine", "/deployments", "/keys"):
        assert client.get(path).status_code == 200, path
    assert (rows(storage), files(storage)) == before
    disk.free()
    statuses = {name: ask().status_code for name, ask in doors.items()}
    assert statuses == dict.fromkeys(doors, 200) | {"retrain": 202, "key": 201}
    with storage.reading() as session:
        actions = [entry.action for entry in session.scalars(select(AuditEntry).order_by(AuditEntry.id))]
    assert len(actions) > before[0]["audit_log"]
    assert server.stop() == 0


@pytest.mark.parametrize("command", ["keys create ann --role admin", "backup create {disk}/backup"])
def test_a_command_says_so_in_a_sentence(storage: Storage, disk: SmallDisk, command: str) -> None:
    script, *arguments = command.format(disk=disk.folder).split()
    places = [f"storage_root={storage.cache.parent}"]
    storage.engine.dispose()
    disk.fill()
    before = {path for path in disk.folder.rglob("*") if path.is_file()}
    run = subprocess.run(
        [sys.executable, str(SCRIPTS / f"{script}.py"), *arguments, *places],
        capture_output=True,
        text=True,
        env=os.environ | {"TMPDIR": "/tmp"},
    )
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    [sentence] = run.stderr.splitlines()
    assert sentence.startswith("error (")
    left = {path.name for path in disk.folder.rglob("*") if path.is_file() and path not in before}
    assert left <= {"lesion.db-shm", "lesion.db-wal", ".lock"}
