"""Backups: what is copied, what stays of the backup before, and what is refused."""

import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from lesion.backup import backup_manifest, creation, dumps
from lesion.backup.backup_manifest import BackupError, DiskFaultError, verify_backup
from lesion.backup.creation import create_backup
from lesion.backup.restore import restore_backup
from lesion.catalogue.images import delete_image
from lesion.core.files import write_atomically
from lesion.database.object_store import ObjectStore, StoreError, image_key
from lesion.database.storage import Storage
from lesion.database.tables import ACCEPTED, DELETED, Job
from tests.support.backups import everything, interrupt, rows
from tests.support.images.loop_images import put_picture


def test_a_second_backup_copies_what_is_new_and_drops_what_was_deleted(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = create_backup(storage, tmp_path / "backup")
    new = put_picture(storage, tmp_path, 900, "bright")
    gone = rows(storage)["images"][0].sha256
    delete_image(storage, gone, "ann", "asked for")
    read: list[str] = []
    get = ObjectStore.get

    def recording(store: ObjectStore, key: str) -> bytes:
        if store is storage.store:
            read.append(key)
        return get(store, key)

    monkeypatch.setattr(ObjectStore, "get", recording)
    second = create_backup(storage, tmp_path / "backup")
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
            manifests = [create_backup(storage, tmp_path / f"backup{number}") for number in range(3)]
        finally:
            stop.set()
        [writer.result() for writer in writers]
    for number, manifest in enumerate(manifests):
        target = place(f"other{number}")
        restore_backup(target, tmp_path / f"backup{number}", "ann")
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

    def late(source: ObjectStore, folder: Path, file: creation.StoredFile, previous: Any) -> Any:
        if file.sha256 == gone:
            delete_image(storage, gone, "ann", "asked for")
        return copy(source, folder, file, previous)

    monkeypatch.setattr(creation, "_copy", late)
    assert create_backup(storage, tmp_path / "backup")["deleted"] == [gone]
    target = place("other")
    restore_backup(target, tmp_path / "backup", "ann")
    assert {row.sha256 for row in rows(target)["images"] if row.status == DELETED} == {gone}


def test_a_missing_or_damaged_object_is_named_and_the_backup_before_stays(small: Storage, tmp_path: Path) -> None:
    first = create_backup(small, tmp_path / "backup")
    sha256 = put_picture(small, tmp_path, 2)
    path = Path(small.files) / image_key(sha256)
    data = path.read_bytes()
    for content, trouble in ((None, "missing"), (data[:-1], "damaged")):
        path.write_bytes(content) if content else path.unlink()
        with pytest.raises(BackupError, match=rf"1 files .* {trouble} in the store: '{image_key(sha256)}'") as caught:
            create_backup(small, tmp_path / "backup")
        assert caught.value.code == "store_incomplete"
    assert verify_backup(tmp_path / "backup") == first
    path.write_bytes(data)
    assert create_backup(small, tmp_path / "backup")["counts"]["images"] == 2


@pytest.mark.parametrize("when", ["before the dump", "after the dump"])
def test_a_store_that_is_away_costs_nothing_of_the_backup_before(
    storage: Storage, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    first = create_backup(storage, tmp_path / "backup")
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
            patch.setattr(dumps, "dump_database", lambda *_: away(storage.store, ""))
        with pytest.raises(StoreError, match="does not answer"):
            create_backup(storage, tmp_path / "backup")
    assert verify_backup(tmp_path / "backup") == first
    assert len(list((tmp_path / "backup" / "database").iterdir())) == len(first["database"]["files"])  # no dump is left
    restore_backup(place("other"), tmp_path / "backup", "ann")
    assert {f"files/{image_key(new)}", f"files/reports/{'0' * 32}.html"} < set(
        create_backup(storage, tmp_path / "backup")["files"]
    )
    assert (tmp_path / "backup" / "files" / "reports" / f"{submitted}.html").read_bytes() == b"<p>report</p>"


def test_a_report_that_was_altered_in_the_backup_is_there_until_the_right_one_is(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_backup(storage, tmp_path / "backup")
    report = next((tmp_path / "backup" / "files" / "reports").iterdir())
    report.write_bytes(b"altered")
    get = ObjectStore.get
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "get", lambda self, key: interrupt() if self is storage.store else get(self, key))
        with pytest.raises(KeyboardInterrupt):
            create_backup(storage, tmp_path / "backup")
    assert report.read_bytes() == b"altered"
    create_backup(storage, tmp_path / "backup")
    assert report.read_bytes() == b"<p>report</p>"


def test_nothing_is_pruned_before_the_manifest_is_there(
    small: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = create_backup(small, tmp_path / "backup")
    delete_image(small, rows(small)["images"][0].sha256, "ann", "asked for")
    with monkeypatch.context() as patch:
        patch.setattr("lesion.backup.backup_manifest.json.loads", lambda _: {})  # a disk that forgets
        with pytest.raises(BackupError) as caught:
            backup_manifest.write_manifest(tmp_path / "backup", {**first, "champion": "other"})
    assert caught.value.code == "backup_disk"
    assert verify_backup(tmp_path / "backup") == first
    with monkeypatch.context() as patch:
        patch.setattr(backup_manifest, "write_manifest", interrupt)
        with pytest.raises(KeyboardInterrupt):
            create_backup(small, tmp_path / "backup")
    assert verify_backup(tmp_path / "backup") == first


def test_files_of_interrupted_writes_are_removed(small: Storage, tmp_path: Path) -> None:
    create_backup(small, tmp_path / "backup")
    image = next((tmp_path / "backup" / "files" / "images").glob("*/*"))
    for leftover in (
        image.with_name(".part-1"),
        *((tmp_path / "backup") / f".{name}" for name in ("part-2.json", "manifest.json.part")),
    ):
        leftover.write_text("half")
    manifest = create_backup(small, tmp_path / "backup")
    assert everything(tmp_path / "backup").keys() == {*manifest["files"], "manifest.json", ".lock"}


def test_a_disk_that_keeps_other_bytes_is_noticed(
    small: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, data: bytes, mode: int) -> None:
        write_atomically(path, data[:-1] + b"?", mode=mode)

    monkeypatch.setattr(creation, "write_atomically", write)
    with pytest.raises(DiskFaultError, match="Check the disk") as caught:
        create_backup(small, tmp_path / "backup")
    assert caught.value.code == "backup_disk"


def test_an_interrupted_backup_is_none_and_goes_on(
    small: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(backup_manifest, "write_manifest", interrupt)
        with pytest.raises(KeyboardInterrupt):
            create_backup(small, tmp_path / "backup")
    for call in (
        lambda: verify_backup(tmp_path / "backup"),
        lambda: restore_backup(small, tmp_path / "backup", "ann", wipe=True),
    ):
        with pytest.raises(BackupError, match="Run create again") as caught:
            call()
        assert caught.value.code == "backup_incomplete"
    create_backup(small, tmp_path / "backup")
    assert len(list((tmp_path / "backup" / "database").iterdir())) == 1


def test_a_database_of_a_newer_lesion_is_not_backed_up(small: Storage, tmp_path: Path) -> None:
    with small.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(BackupError, match="revision 9999") as caught:
        create_backup(small, tmp_path / "backup")
    assert caught.value.code == "database_newer"


def test_a_full_disk_names_the_file(small: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device /dev/full gives what a full disk gives."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    write = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda self, data: write(full, data))
    with pytest.raises(StoreError, match=r"'images/.*No space left on device"):
        create_backup(small, tmp_path / "backup")
    assert not (tmp_path / "backup" / "manifest.json").exists()
    assert list((tmp_path / "backup").rglob(".part-*")) == []


def test_two_backups_at_once_into_one_folder_are_refused(small: Storage, tmp_path: Path) -> None:
    with backup_manifest.lock_folder(tmp_path / "backup"), pytest.raises(BackupError) as caught:
        create_backup(small, tmp_path / "backup")
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
        create_backup(small, tmp_path / "backup")
