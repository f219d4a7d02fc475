"""Backups that are restored: on SQLite with a folder, and on a real PostgreSQL with a real S3 store."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from lesion.backup import backup_manifest
from lesion.backup.backup_manifest import BackupError, verify_backup
from lesion.backup.creation import create_backup
from lesion.backup.restore import restore_backup
from lesion.catalogue.images import delete_image
from lesion.core.errors import BundleError
from lesion.database.object_store import ObjectStore, image_key
from lesion.database.storage import Storage
from lesion.database.tables import DELETED, AuditEntry
from tests.support.backups import Folders, filled, golden_answers, interrupt, objects, pending, rows, wiped
from tests.support.bundles.registry_bundles import retempered
from tests.support.images.loop_images import put_picture


def test_after_backup_wipe_and_restore_the_same_champion_gives_the_same_answers(
    storage: Storage, tmp_path: Path
) -> None:
    champion, answers = golden_answers(storage)
    before, files, jobs = rows(storage), objects(storage), pending(storage)
    assert (len(before["images"]), len(jobs)) == (20, 1)
    manifest = create_backup(storage, tmp_path / "backup")
    assert manifest["counts"] == {"images": 20, "versions": 1, "snapshots": 1, "jobs": 1, "keys": 1}
    wiped(storage)
    assert not storage.store.names()
    assert restore_backup(storage, tmp_path / "backup", "ann") == manifest
    again, same = golden_answers(storage)
    assert again == champion == manifest["champion"]
    np.testing.assert_array_equal(same, answers)
    assert (rows(storage), objects(storage), pending(storage)) == (before, files, jobs)
    with storage.session() as session:
        last = session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc())).first()
        assert last is not None
        assert (last.action, last.actor, last.subject) == ("storage.restored", "ann", manifest["sha256"])
    put_picture(storage, tmp_path, 900, "bright")  # numbers of new rows go on after the old ones


def test_what_is_there_is_kept_unless_wipe_is_said(storage: Storage, place: Any, tmp_path: Path, parts: Any) -> None:
    create_backup(storage, tmp_path / "backup")
    late = put_picture(storage, tmp_path, 900, "bright")
    gone = rows(storage)["images"][0].sha256
    delete_image(storage, gone, "ann", "asked for")
    before, files = rows(storage), objects(storage)
    with pytest.raises(BackupError, match=r"not empty: .*21 images.* --wipe") as caught:
        restore_backup(storage, tmp_path / "backup", "ann")
    assert caught.value.code == "not_empty"
    assert image_key(late) in caught.value.message
    assert (rows(storage), objects(storage)) == (before, files)
    restore_backup(storage, tmp_path / "backup", "ann", wipe=True)
    assert late not in {row.sha256 for row in rows(storage)["images"]}
    assert image_key(late) not in objects(storage)
    deleted = {row.sha256 for row in rows(storage)["images"] if row.status == DELETED}
    assert deleted == {gone}  # a request to delete outlives the backup before it
    assert not storage.store.has(image_key(gone))


def test_an_empty_database_does_not_excuse_a_store_with_other_content(
    storage: Storage, place: Any, tmp_path: Path
) -> None:
    create_backup(storage, tmp_path / "backup")
    other = place("other", upgrade=True)  # tables without rows are as good as none
    other.store.put("images/aa/strange", b"other")
    with pytest.raises(BackupError, match=r"1 files .*'images/aa/strange'"):
        restore_backup(other, tmp_path / "backup", "ann")
    other.store.delete("images/aa/strange")
    restore_backup(other, tmp_path / "backup", "ann")
    assert rows(other) == rows(storage)


@pytest.mark.parametrize("where", ["files", "database", "champion"])
def test_a_restore_that_was_killed_goes_on_when_it_is_called_again(
    storage: Storage, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    manifest = create_backup(storage, tmp_path / "backup")
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
            restore_backup(target, tmp_path / "backup", "ann")
    assert restore_backup(target, tmp_path / "backup", "ann") == manifest
    assert (rows(target), objects(target)) == (rows(storage), objects(storage))
    assert golden_answers(target)[0] == manifest["champion"]


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


@pytest.mark.parametrize("which", ["files", "database"])
@pytest.mark.parametrize("how", ["altered", "truncated", "gone"])
def test_a_corrupt_file_is_named_and_nothing_is_touched(small: Storage, tmp_path: Path, which: str, how: str) -> None:
    manifest = create_backup(small, tmp_path / "backup")
    name = next(name for name in manifest["files"] if name.startswith(which))
    path = tmp_path / "backup" / name
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if how == "altered" else data[:-1])
    if how == "gone":
        path.unlink()
    target = Folders(tmp_path)("other")
    for call in (
        lambda: verify_backup(tmp_path / "backup"),
        lambda: restore_backup(target, tmp_path / "backup", "ann", wipe=True),
    ):
        with pytest.raises(BackupError, match=f"'{name}'") as caught:
            call()
        assert caught.value.code == "backup_altered"
    assert list(target.cache.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"champion": "x"}, "backup_altered"),
        ({"format": 2}, "backup_newer"),
        ({"files": {"files/../../etc/passwd": {}}}, "backup_altered"),
    ],
)
def test_an_edited_manifest_is_refused(small: Storage, tmp_path: Path, change: dict[str, Any], code: str) -> None:
    manifest = create_backup(small, tmp_path / "backup") | change
    if "files" in change:
        manifest["sha256"] = backup_manifest._seal(manifest)
    (tmp_path / "backup" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BackupError) as caught:
        verify_backup(tmp_path / "backup")
    assert caught.value.code == code


def test_a_newer_backup_is_refused_and_an_older_one_is_upgraded(
    small: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_backup(small, tmp_path / "backup")
    target = Folders(tmp_path)("other")
    with monkeypatch.context() as patch:
        patch.setattr("lesion.backup.restore.known_revisions", lambda: {"0000"})
        with pytest.raises(BackupError, match="Update Lesion") as caught:
            restore_backup(target, tmp_path / "backup", "ann")
    assert caught.value.code == "backup_newer"
    upgraded: list[str] = []
    monkeypatch.setattr(Storage, "upgrade", lambda self: upgraded.append(self.database))
    restore_backup(target, tmp_path / "backup", "ann")
    assert len(upgraded) == 1
    assert not list(target.cache.parent.glob(".*restoring*"))


def test_a_damaged_database_is_replaced_when_wipe_is_said(small: Storage, tmp_path: Path) -> None:
    create_backup(small, tmp_path / "backup")
    small.engine.dispose()
    (tmp_path / "lesion.db").write_bytes(b"no database" * 1000)
    with pytest.raises(BackupError, match="not a readable database"):
        restore_backup(small, tmp_path / "backup", "ann")
    restore_backup(small, tmp_path / "backup", "ann", wipe=True)
    assert len(rows(small)["images"]) == 1


def test_a_champion_that_answers_otherwise_is_an_error(tmp_path: Path, parts: tuple[Path, Any]) -> None:
    bundle, manifest = parts
    wrong = retempered(bundle, tmp_path / "wrong", 2.0, broken=True)
    create_backup(filled(Folders(tmp_path)("first", upgrade=True), wrong, manifest), tmp_path / "backup")
    with pytest.raises(BundleError, match="golden answers"):
        restore_backup(Folders(tmp_path)("other"), tmp_path / "backup", "ann")
