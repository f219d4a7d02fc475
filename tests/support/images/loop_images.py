"""Catalogue rows and small datasets for tests of the loop."""

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lesion.data.inspection import ImageRecord, inspect
from lesion.data.manifest import Manifest, build_manifest
from lesion.data.scan import scan_folders
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import Generation, Image
from lesion.imaging.limits import Limits
from tests.support.images.pictures import write, write_classes

FRACTIONS = {"train": 0.4, "val": 0.2, "calibration": 0.2, "test": 0.2}


@cache
def empty_database() -> bytes:
    """An empty catalogue, whose tables take a while to make."""
    with TemporaryDirectory() as folder:
        storage = storage_in(Path(folder))
        storage.upgrade()
        storage.engine.dispose()
        return (Path(folder) / "lesion.db").read_bytes()


def storage_in(folder: Path, **options: Any) -> Storage:
    return Storage(f"sqlite:///{folder}/lesion.db", str(folder / "files"), folder / "cache", **options)


def new_storage(folder: Path, **options: Any) -> Storage:
    """An empty catalogue in a folder: SQLite and files; or the one that is there."""
    storage, file = storage_in(folder, **options), folder / "lesion.db"
    if file.exists():
        storage.upgrade()
    else:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_bytes(empty_database())
    return storage


def small_manifest(root: Path, count: int = 10, group_pattern: str | None = None) -> Manifest:
    """Two classes, ``a`` and ``b``, of different pictures with the seeds from 0 on, split by group."""
    pictures, manifest = _made(count, group_pattern)
    shutil.copytree(pictures.name, root, dirs_exist_ok=True)
    return replace(manifest, root=root, table=manifest.table.copy())


@cache
def _made(count: int, group_pattern: str | None) -> tuple["TemporaryDirectory[str]", Manifest]:
    """Make the pictures and the manifest once for each process."""
    folder = TemporaryDirectory()
    write_classes(Path(folder.name), {"a": count, "b": count})
    return folder, manifest_of(Path(folder.name), group_pattern)


def manifest_of(root: Path, group_pattern: str | None = None) -> Manifest:
    rows = scan_folders(root, group_pattern)
    return build_manifest("tiny", root, rows, fractions=FRACTIONS, progress=False)


def row_of(file: Path, label: str = "a", **fields: Any) -> Image:
    """The row of a picture file: accepted, for training, in a group of its own, unless the fields say other."""
    facts = inspect(file, Limits(min_side=1))
    assert isinstance(facts, ImageRecord)
    values = {name: getattr(facts, name) for name in ImageRecord.__slots__ if name != "thumbnail"}
    values |= {"status": "accepted", "split": "train", "group_key": facts.sha256, "source": "upload", "uploader": "ann"}
    return Image(label=label, thumbnail=facts.thumbnail.tobytes(), **(values | fields))


def storage_with_generation(folder: Path) -> Storage:
    """A storage without images, whose gate set has an open generation."""
    storage = new_storage(folder)
    with storage.session() as session:
        session.add(Generation(number=1, status="open"))
    return storage


def put_picture(
    storage: Storage, folder: Path, seed: int, label: str = "a", suffix: str = ".png", side: int = 48, **fields: Any
) -> str:
    """Bring a picture into the store and the catalogue, as the intake does; return its hash."""
    from lesion.catalogue.images import add_image

    file = write(folder / f"{seed}{suffix}", seed, side=side)
    row = row_of(file, label, **fields)
    storage.store.put(image_key(row.sha256), file.read_bytes())
    with storage.session() as session:
        assert add_image(session, row)
        return row.sha256


def put_disputed(storage: Storage, folder: Path, seed: int) -> str:
    """Bring a picture, labeled dark, into quarantine; return its hash."""
    return put_picture(storage, folder, seed, "dark", status="quarantined", reason_code="disputed", reason="Odd.")
