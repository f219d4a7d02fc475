"""A folder keeps the backups of one installation."""

from pathlib import Path
from typing import Any

import pytest

from lesion.auth import api_keys
from lesion.backup.backup_manifest import BackupError, verify_backup
from lesion.backup.creation import create_backup
from lesion.backup.restore import restore_backup
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from tests.support.backups import Folders, everything, filled
from tests.support.images.loop_images import put_picture


def test_a_new_installation_does_not_take_the_old_one_s_backup(storage: Storage, place: Any, tmp_path: Path) -> None:
    """The database's volume is lost, a new database is made ready, and cron backs it up."""
    first, before = create_backup(storage, tmp_path / "backup"), everything(tmp_path / "backup")
    empty = place("empty", upgrade=True)
    with pytest.raises(BackupError, match="This database has nothing in its audit log") as caught:
        create_backup(empty, tmp_path / "backup")
    assert caught.value.code == "backup_other"
    api_keys.create(empty, "ward", "admin", "ann")
    with pytest.raises(BackupError, match=r"This database began at .* with key\.created .* by ann.* restore") as caught:
        create_backup(empty, tmp_path / "backup")
    assert first["began"] is not None
    assert (caught.value.code, first["began"]["at"] in caught.value.message) == ("backup_other", True)
    assert (verify_backup(tmp_path / "backup"), everything(tmp_path / "backup")) == (first, before)
    second = create_backup(empty, tmp_path / "backup", replace=True)
    assert second["counts"]["keys"] == 1
    assert everything(tmp_path / "backup").keys() == {*second["files"], "manifest.json", ".lock"}


def test_the_same_data_in_another_installation_is_another_one(
    storage: Storage, place: Any, parts: Any, tmp_path: Path
) -> None:
    create_backup(storage, tmp_path / "backup")
    with pytest.raises(BackupError) as caught:
        create_backup(filled(place("other", upgrade=True), *parts), tmp_path / "backup")
    assert caught.value.code == "backup_other"


def test_a_restored_installation_is_the_same(storage: Storage, place: Any, tmp_path: Path) -> None:
    first = create_backup(storage, tmp_path / "backup")
    restored = place("other")
    restore_backup(restored, tmp_path / "backup", "ann")
    late = put_picture(restored, tmp_path, 900, "bright")
    second = create_backup(restored, tmp_path / "backup")
    assert second["began"] == first["began"]
    assert f"files/{image_key(late)}" in second["files"]


def test_what_had_no_content_is_no_other_installation(tmp_path: Path) -> None:
    place = Folders(tmp_path)
    assert create_backup(place("first", upgrade=True), tmp_path / "backup")["began"] is None
    other = place("other", upgrade=True)
    put_picture(other, tmp_path, 1)
    assert create_backup(other, tmp_path / "backup")["counts"]["images"] == 1


def test_a_manifest_that_cannot_be_read_is_not_taken_for_one_s_own(small: Storage, tmp_path: Path) -> None:
    create_backup(small, tmp_path / "backup")
    path = tmp_path / "backup" / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    before = everything(tmp_path / "backup")
    with pytest.raises(BackupError, match="--replace") as caught:
        create_backup(small, tmp_path / "backup")
    assert (caught.value.code, everything(tmp_path / "backup")) == ("backup_newer", before)
    create_backup(small, tmp_path / "backup", replace=True)
    verify_backup(tmp_path / "backup")
