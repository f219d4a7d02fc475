"""The cache of decoded images: same pixels with and without it, whatever happens to its files."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lesion.core.errors import DataError, ImageError
from lesion.core.files import bytes_sha256
from lesion.data.cache import PixelCache
from lesion.imaging.preprocessing import Preprocessing
from tests.support.images.hostile import hostile_images
from tests.support.images.pictures import write

SMALL = Preprocessing(32)


@pytest.fixture
def image(tmp_path) -> tuple[Path, str]:
    path = write(tmp_path / "images" / "1.png", seed=1)
    return path, bytes_sha256(path.read_bytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def expected(path: Path) -> np.ndarray:
    return SMALL.read(path.read_bytes())


def cached_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def test_the_second_time_comes_from_disk(image, folder):
    path, sha256 = image
    pixels = expected(path)
    assert np.array_equal(PixelCache(folder, SMALL).get(path, sha256), pixels)
    (file,) = cached_files(folder)
    assert file.read_bytes() == pixels.tobytes()
    path.unlink()
    again = PixelCache(folder, SMALL).get(path, sha256)
    assert np.array_equal(again, pixels)
    assert again.flags.writeable


def test_equal_files_share_one_entry(image, folder):
    path, sha256 = image
    twin = path.with_name("twin.png")
    twin.write_bytes(path.read_bytes())
    cache = PixelCache(folder, SMALL)
    assert np.array_equal(cache.get(path, sha256), cache.get(twin, sha256))
    assert len(cached_files(folder)) == 1


def test_each_preprocessing_has_its_own_entries(image, folder):
    path, sha256 = image
    for preprocessing in (SMALL, Preprocessing(16), Preprocessing(32, "crop"), Preprocessing(32, "pad", "bilinear")):
        pixels = PixelCache(folder, preprocessing).get(path, sha256)
        assert np.array_equal(pixels, preprocessing.read(path.read_bytes()))
    assert len(cached_files(folder)) == 4


@pytest.mark.parametrize("damage", [b"", b"short", bytes(32 * 32 * 3 + 1)])
def test_a_damaged_entry_is_decoded_anew(image, folder, damage):
    path, sha256 = image
    cache = PixelCache(folder, SMALL)
    cache.get(path, sha256)
    (file,) = cached_files(folder)
    file.write_bytes(damage)
    assert np.array_equal(cache.get(path, sha256), expected(path))
    assert file.read_bytes() == expected(path).tobytes()


def test_without_a_folder_nothing_is_written(image, tmp_path):
    path, sha256 = image
    before = sorted(tmp_path.rglob("*"))
    assert np.array_equal(PixelCache(None, SMALL).get(path, sha256), expected(path))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_is_said_once_and_old_entries_stay_in_use(image, folder, monkeypatch, caplog):
    path, sha256 = image
    cache = PixelCache(folder, SMALL)
    pixels = cache.get(path, sha256)

    def full_disk(file: Path, data: bytes) -> int:
        with file.open("wb") as stream:
            stream.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    for seed in (2, 3):
        other = write(path.with_name(f"{seed}.png"), seed)
        assert np.array_equal(cache.get(other, bytes_sha256(other.read_bytes())), expected(other))
    (record,) = caplog.records
    assert "No space left on device" in record.getMessage()
    assert len(cached_files(folder)) == 1  # no half file is left behind
    path.unlink()
    assert np.array_equal(cache.get(path, sha256), pixels)


def test_a_folder_that_cannot_be_made_is_no_error(image, tmp_path, caplog):
    path, sha256 = image
    (tmp_path / "file").touch()
    cache = PixelCache(tmp_path / "file", SMALL)
    assert np.array_equal(cache.get(path, sha256), expected(path))
    assert len(caplog.records) == 1


def test_a_file_that_changed_since_the_manifest_is_refused(image, folder):
    path, sha256 = image
    write(path, seed=9)
    with pytest.raises(DataError, match="changed since"):
        PixelCache(folder, SMALL).get(path, sha256)
    assert not cached_files(folder)


def test_what_cannot_be_decoded_is_refused_and_not_cached(folder, tmp_path):
    data = hostile_images()["truncated.jpg"].data
    (tmp_path / "bad.jpg").write_bytes(data)
    with pytest.raises(ImageError):
        PixelCache(folder, SMALL).get(tmp_path / "bad.jpg", bytes_sha256(data))
    assert not cached_files(folder)


def _fill(folder: Path, paths: list[Path]) -> list[str]:
    cache = PixelCache(folder, SMALL)
    return [bytes_sha256(cache.get(path, bytes_sha256(path.read_bytes())).tobytes()) for path in paths]


@pytest.mark.slow
def test_two_processes_may_fill_one_folder(folder, tmp_path):
    paths = [write(tmp_path / "images" / f"{seed}.png", seed) for seed in range(20)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        first, second = pool.map(_fill, [folder] * 2, [paths] * 2)
    assert first == second == [bytes_sha256(expected(path).tobytes()) for path in paths]
    assert len(cached_files(folder)) == 20
