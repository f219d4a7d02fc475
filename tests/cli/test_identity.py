"""``lesion identity``: what it prints, and what it changes."""

from pathlib import Path

import pytest

from lesion.catalogue.images import add_image, images_as_sent
from lesion.cli.storage import identity
from lesion.database.audit import entries
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.identity.identity_key import key_file, open_pseudonyms
from tests.support.images.loop_images import new_storage, row_of
from tests.support.images.pictures import write


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """With one photo, stored as an earlier version did."""
    made = new_storage(tmp_path)
    photo = write(tmp_path / "photo.jpg", 1, comment=b"taken by Quillfeather")
    row = row_of(photo, status="quarantined")
    made.store.put(image_key(row.sha256), photo.read_bytes())
    photo.unlink()
    with made.session() as session:
        assert add_image(session, row)
    return made


def run(storage: Storage, verb: str) -> int:
    return identity.main([verb, "storage=local", f"storage_root={storage.cache.parent}"])


def test_what_is_stored_is_freed_by_one_command(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(storage, "remove") == 0
    printed = capsys.readouterr().out
    counts = dict(line.split() for line in printed.splitlines() if len(line.split()) == 2)
    assert counts == {"checked": "1", "rewritten": "1", "unreadable": "0", "manifests": "0"}
    assert "Backups that were made before" in printed
    with storage.session() as session:
        assert images_as_sent(session) == []
        [*_, change] = entries(session)
    assert (change.action, change.actor.partition(":")[0]) == ("image.deidentified", "cli")
    files = [path for path in storage.cache.parent.rglob("*") if path.is_file()]
    assert not [path for path in files if b"Quillfeather" in path.read_bytes()]


def test_the_key_is_checked_and_can_be_replaced(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(storage, "check") == 0
    before = open_pseudonyms(storage).check
    key_file(storage).unlink()
    with pytest.raises(SystemExit) as ended:
        run(storage, "check")
    assert ended.value.code not in (0, None)
    assert "identity_key_missing" in capsys.readouterr().err
    assert run(storage, "replace-key") == 0
    assert "Later images\nare safe among themselves." in capsys.readouterr().out
    assert open_pseudonyms(storage).check != before
