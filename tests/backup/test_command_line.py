"""The commands that create, verify and restore backups."""

import subprocess
import sys
from pathlib import Path

import pytest

from lesion.cli.storage import backup
from lesion.database.storage import Storage
from tests.support.backups import Folders
from tests.support.images.loop_images import put_picture
from tests.support.paths import SCRIPTS


def test_replace_is_said_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, folder = Folders(tmp_path), tmp_path / "backup"
    put_picture(place("first", upgrade=True), tmp_path, 1)
    put_picture(place("other", upgrade=True), tmp_path, 2)
    monkeypatch.setattr(backup, "configured_storage", lambda settings: place(settings[0].partition("=")[2]))

    def command(*arguments: str) -> int:
        return backup.main(["create", str(folder), *arguments])

    assert command("storage=first") == 0
    with pytest.raises(SystemExit) as caught:
        command("storage=other")
    assert (caught.value.code, "backup_other" in capsys.readouterr().err) == (2, True)
    assert command("storage=other", "--replace") == 0
    with pytest.raises(SystemExit):
        command("storage=first")


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
