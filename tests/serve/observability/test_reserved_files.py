"""Metrics on a full disk: values with room in their file are still stored, the others are kept in memory."""

import errno
import os
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict

from serve.observability.reserved_files import ROOM, ReservedDict


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "counter_1.db")


def stored(path: str) -> dict[str, float]:
    """What another process reads."""
    return {key: value for key, value, *_ in MmapedDict.read_all_values_from_file(path)}


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)


def test_a_file_has_its_room_from_the_start(path: str) -> None:
    values = ReservedDict(path)
    assert Path(path).stat().st_size == ROOM
    assert Path(path).stat().st_blocks * 512 >= ROOM
    assert values.read_value("a") == (0.0, 0.0)
    values.write_value("a", 2.0, 3.0)
    assert values.read_value("a") == (2.0, 3.0)
    assert stored(path) == {"a": 2.0}
    values.close()


def test_more_room_is_reserved_when_it_is_needed(path: str) -> None:
    values = ReservedDict(path)
    for number in range(4000):
        values.write_value(f"{number:0100}", number, 0.0)
    assert len(stored(path)) == 4000
    assert Path(path).stat().st_blocks * 512 >= Path(path).stat().st_size > 4000 * 120
    values.close()


def test_on_a_full_disk_new_values_are_kept_and_the_others_stay_stored(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    values = ReservedDict(path)
    values.write_value("old", 1.0, 0.0)
    fill_disk(monkeypatch)
    size = Path(path).stat().st_size
    for number in range(4000):
        values.write_value(f"{number:0100}", number, 0.0)
    values.write_value("old", 5.0, 0.0)
    assert Path(path).stat().st_size == size
    assert values.read_value(f"{3999:0100}") == (3999.0, 0.0)
    assert stored(path)["old"] == 5.0
    assert 1000 < len(stored(path)) < 4000
    assert "No space left on device" in caplog.text
    values.close()


def test_a_file_without_any_room_is_not_mapped(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_disk(monkeypatch)
    values = ReservedDict(path)
    values.write_value("a", 2.0, 3.0)
    assert values.read_value("a") == (2.0, 3.0)
    assert values.read_value("b") == (0.0, 0.0)
    assert Path(path).stat().st_size == 0
    values.close()
