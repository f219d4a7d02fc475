"""A store whose share is not mounted: nothing is written to the empty folder, and nothing counts as missing."""

import shutil
from pathlib import Path

import pytest

from lesion.backup.creation import create_backup
from lesion.backup.restore import restore_backup
from lesion.catalogue.images import delete_image
from lesion.catalogue.import_run import import_manifest
from lesion.database.object_store import ObjectNotFoundError, StoreError, image_key
from lesion.database.storage import Storage
from lesion.database.store_marker import MARKER
from lesion.retraining.patience import may_pass
from tests.support.images.loop_images import new_storage, put_picture, small_manifest


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return new_storage(tmp_path / "loop")


@pytest.fixture
def picture(storage: Storage, tmp_path: Path) -> str:
    """The hash of the catalogue's only picture."""
    return put_picture(storage, tmp_path, 0)


def unmount(storage: Storage) -> Path:
    """Leave an empty folder in place of the store's, which moves to the folder that is returned."""
    files = Path(storage.files)
    away = files.rename(files.with_name("away"))
    files.mkdir()
    return away


def mount(storage: Storage, away: Path) -> None:
    Path(storage.files).rmdir()  # fails if something was written to it
    away.rename(storage.files)


def test_a_new_store_is_marked_with_its_first_file_and_lists_only_its_own(storage: Storage, picture: str) -> None:
    marker = Path(storage.files) / MARKER
    assert marker.stat().st_mode & 0o777 == 0o644
    assert storage.store.names() == [image_key(picture)]


@pytest.mark.parametrize("removed", [False, True], ids=["an empty mount point", "no folder at all"])
def test_an_unmounted_store_takes_nothing_and_works_again_when_it_is_mounted(
    storage: Storage, picture: str, tmp_path: Path, removed: bool
) -> None:
    away = unmount(storage)
    if removed:
        Path(storage.files).rmdir()
    other = image_key("a" * 64)
    for ask in (
        lambda: storage.store.put(other, b"1"),
        lambda: storage.store.get(image_key(picture)),
        lambda: storage.store.has(other),
        lambda: storage.store.delete(image_key(picture)),
        lambda: storage.store.fetch_folder("bundles/v1", ["bundle.json"], tmp_path / "v1"),
    ):
        with pytest.raises(StoreError, match="Mount the share") as caught:
            ask()
        assert caught.value.code == "store_unmounted"
        assert may_pass(caught.value)  # a retraining waits
    assert Path(storage.files).exists() is not removed
    Path(storage.files).mkdir(exist_ok=True)
    mount(storage, away)
    storage.store.put(other, b"1")
    assert storage.store.get(other) == b"1"


def test_the_pixels_of_a_deleted_image_are_not_forgotten_while_they_cannot_be_removed(
    storage: Storage, picture: str, tmp_path: Path
) -> None:
    put_picture(storage, tmp_path, 1)
    away = unmount(storage)
    with pytest.raises(StoreError, match="Mount the share"):
        delete_image(storage, picture, "ann", "withdrawn")
    mount(storage, away)
    delete_image(storage, picture, "ann", "withdrawn")
    assert not storage.store.has(image_key(picture))


def test_a_store_of_an_earlier_version_is_known_by_its_images_and_then_marked(storage: Storage, picture: str) -> None:
    marker = Path(storage.files) / MARKER
    marker.unlink()
    with pytest.raises(ObjectNotFoundError):
        storage.store.get("reports/x.html")
    assert not marker.exists()  # who only reads may not be allowed to write
    away = unmount(storage)
    with pytest.raises(StoreError, match="Mount the share"):
        storage.store.put("reports/x.html", b"1")
    mount(storage, away)
    storage.store.put("reports/x.html", b"1")
    assert marker.exists()


def test_a_marked_store_may_lose_files(storage: Storage, picture: str) -> None:
    """A damaged store is not a store that is away: what it lacks is reported as missing."""
    (Path(storage.files) / image_key(picture)).unlink()
    with pytest.raises(ObjectNotFoundError):
        storage.store.get(image_key(picture))


def test_a_store_that_was_lost_can_be_restored(storage: Storage, tmp_path: Path) -> None:
    import_manifest(storage, small_manifest(tmp_path / "pictures", 5), progress=False)
    names = storage.store.names()
    create_backup(storage, tmp_path / "backup")
    shutil.rmtree(storage.files)
    with pytest.raises(StoreError, match="Mount the share"):
        create_backup(storage, tmp_path / "another")
    restore_backup(storage, tmp_path / "backup", "ann", wipe=True)
    assert storage.store.names() == names
