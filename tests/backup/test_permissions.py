"""Who can read a backup, and which folders it may be made in."""

import os
from pathlib import Path

import pytest

from lesion.backup.backup_manifest import BackupFolderError
from lesion.backup.creation import create_backup
from lesion.database.storage import Storage
from tests.support.backups import everything


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_backup_is_its_owner_s_alone(storage: Storage, tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "backup"
    folder.mkdir()
    folder.chmod(0o755)
    before = os.umask(umask)
    try:
        create_backup(storage, folder)
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
    create_backup(small, tmp_path / "backup")
    for path in (tmp_path / "backup", *(tmp_path / "backup").rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (tmp_path / "backup" / ".lock").chmod(0o600)
    create_backup(small, tmp_path / "backup")
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
        with pytest.raises(BackupFolderError, match=rf"'{folder}'.*belongs to the user who makes it") as caught:
            create_backup(small, folder)
        assert caught.value.code == "backup_folder"
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_the_storage_s_own_folder_and_a_stranger_s_are_refused(small: Storage, tmp_path: Path) -> None:
    """What a manifest does not list is removed from ``files`` and ``database``."""
    (tmp_path / "strange" / "database").mkdir(parents=True)
    (tmp_path / "strange" / "database" / "mine.txt").write_text("mine")
    before = everything(tmp_path)
    for folder in (tmp_path, tmp_path / "files" / "backup", tmp_path / "strange"):
        with pytest.raises(BackupFolderError, match="Name another folder") as caught:
            create_backup(small, folder)
        assert caught.value.code == "backup_folder"
    assert everything(tmp_path) == before
