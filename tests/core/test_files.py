"""Files that appear whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lesion.core import files
from lesion.core.files import PART_PREFIX, atomic_path, bytes_sha256, file_sha256, write_atomically

OLD, NEW = b"old content\n", b"new content, which is longer\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    path.write_bytes(OLD)
    return path


@pytest.fixture
def _umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def assert_untouched(path: Path) -> None:
    assert path.read_bytes() == OLD
    assert [file.name for file in path.parent.iterdir()] == [path.name], "an unfinished file was left"


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_new_file_replaces_the_old_one_only_at_the_end(path: Path) -> None:
    with atomic_path(path) as unfinished:
        unfinished.write_bytes(NEW)
        assert path.read_bytes() == OLD
        assert unfinished.parent == path.parent, "a rename between disks is not atomic"
        assert unfinished.name.startswith(PART_PREFIX)
        assert unfinished.suffix == ".json"
    assert path.read_bytes() == NEW
    assert list(path.parent.iterdir()) == [path]


def test_an_open_reader_keeps_the_old_content(path: Path) -> None:
    with path.open("rb") as reader:
        write_atomically(path, NEW)
        assert reader.read() == OLD
    assert path.read_bytes() == NEW


@pytest.mark.parametrize("error", [RuntimeError("a mistake"), KeyboardInterrupt(), SystemExit(1)])
def test_an_error_in_the_block_keeps_the_old_file(path: Path, error: BaseException) -> None:
    def write_a_part_and_fail() -> None:
        with atomic_path(path) as unfinished:
            unfinished.write_bytes(NEW[:5])
            raise error

    with pytest.raises(type(error)):
        write_a_part_and_fail()
    assert_untouched(path)


def test_a_disk_that_is_full_while_writing_keeps_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_a_part(unfinished: Path, content: bytes) -> None:
        with unfinished.open("wb") as file:
            file.write(content[:5])
        full_disk()

    monkeypatch.setattr(Path, "write_bytes", write_a_part)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, NEW)
    monkeypatch.undo()
    assert_untouched(path)


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_disk_that_is_full_at_the_sync_or_at_the_start_keeps_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, NEW)
    monkeypatch.undo()
    assert_untouched(path)


def test_a_new_file_that_fails_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "new.txt"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_can_be_made_again_is_replaced_without_waiting_for_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync", synced.append)
    files.write_atomically(path, "new", durable=False)
    assert (path.read_text(), synced) == ("new", [])


def test_the_content_and_the_name_are_synced_around_the_rename(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the first sync, a power failure could leave an empty file under the name; without the second, the old."""
    events: list[object] = []
    replace = Path.replace

    def record_sync(synced: Path) -> None:
        events.append(synced.read_bytes() if synced.is_file() else synced)

    def record_replace(unfinished: Path, target: Path) -> Path:
        events.append("rename")
        return replace(unfinished, target)

    monkeypatch.setattr(files, "sync", record_sync)
    monkeypatch.setattr(Path, "replace", record_replace)
    write_atomically(path, NEW)
    assert events == [NEW, "rename", path.parent]


@pytest.mark.usefixtures("_umask")
@pytest.mark.parametrize(("mode", "expected"), [(0o666, 0o640), (0o600, 0o600), (0o777, 0o750)])
def test_permissions_are_the_mode_less_the_umask(tmp_path: Path, mode: int, expected: int) -> None:
    path = tmp_path / "file"
    with atomic_path(path, mode=mode) as unfinished:
        assert unfinished.stat().st_mode & 0o777 == expected, "a secret must not be readable while it is written either"
    assert path.stat().st_mode & 0o777 == expected
    write_atomically(path, NEW, mode=mode)
    assert path.stat().st_mode & 0o777 == expected


def test_two_writers_do_not_share_an_unfinished_file(path: Path) -> None:
    with atomic_path(path) as first, atomic_path(path) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert path.read_bytes() == b"first", "the block that ended last"


def test_text_is_utf_8_with_its_line_breaks(path: Path) -> None:
    write_atomically(path, "Läsion\r\n\n")
    assert path.read_bytes() == b"L\xc3\xa4sion\r\n\n"


KILLED = """
import os, signal, sys
from pathlib import Path
from lesion.core import files
path, moment = Path(sys.argv[1]), sys.argv[2]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if moment == "before the rename":
    Path.replace = die
with files.atomic_path(path) as unfinished:
    with unfinished.open("wb") as file:
        file.write(b"new content"[:5])
        file.flush()
        if moment == "while writing":
            die()
"""


@pytest.mark.parametrize("moment", ["while writing", "before the rename"])
def test_a_killed_process_leaves_the_old_content(path: Path, moment: str) -> None:
    command = [sys.executable, "-c", KILLED, str(path), moment]
    assert subprocess.run(command, timeout=60, check=False).returncode == -signal.SIGKILL
    assert path.read_bytes() == OLD
    [unfinished] = [file for file in path.parent.iterdir() if file != path]
    assert unfinished.name.startswith(PART_PREFIX), "a name that readers of the folder recognize"
    write_atomically(path, NEW)
    assert path.read_bytes() == NEW


def test_hashes_of_bytes_and_of_files_are_equal(path: Path) -> None:
    assert bytes_sha256(b"lesion") == "cd5f70ca8d37802a502d296b42bedf5c4f2aba1bf69461031c9509a559d6a937"
    assert file_sha256(path) == bytes_sha256(OLD)
