"""Images that an earlier version stored as they were sent: their files, rows, snapshots and manifests afterwards."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update

from lesion.catalogue.identity_removal import RemovalSummary, remove_identity
from lesion.catalogue.images import delete_image, find_image, images_as_sent, stored_hash
from lesion.catalogue.import_run import import_manifest
from lesion.catalogue.lineage import lineage_of_image
from lesion.catalogue.snapshot_store import image_root, materialise
from lesion.catalogue.snapshots import take_snapshot
from lesion.core.errors import ConflictError
from lesion.core.files import bytes_sha256
from lesion.data.manifest import Manifest
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import Image, Job, Snapshot
from lesion.identity import received_files
from lesion.identity.identity_key import open_pseudonyms
from lesion.identity.pseudonyms import Pseudonyms
from lesion.identity.received_files import ReceivedFile
from lesion.imaging.decode import decode
from lesion.imaging.limits import Limits
from tests.support.images.loop_images import manifest_of, new_storage
from tests.support.images.pictures import picture

pytest.importorskip("pydicom", reason="the extra lesion[dicom] is optional")
from tests.support.images.dicom_files import dicom_file

CLASSES, PER_CLASS = ("dark", "light"), 12
ALL = len(CLASSES) * PER_CLASS


def file_of(number: int, **elements: Any) -> bytes:
    """One slice; three of a patient."""
    named = {"PatientID": f"GEHEIM-{number // 3}", "PatientName": "GEHEIM^Anna", "SOPInstanceUID": f"1.2.3.{number}"}
    return dicom_file(picture(number)[..., 0].copy(), **named | elements)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    for number in range(ALL):
        path = tmp_path / "pictures" / CLASSES[number // PER_CLASS] / f"{number:02}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file_of(number))
    return manifest_of(tmp_path / "pictures")


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and groups are stored as they are sent, as version 0.1.0 did."""
    monkeypatch.setattr(
        "lesion.catalogue.import_run.deidentify", lambda data, limits, pseudonyms: ReceivedFile(data, "")
    )
    monkeypatch.setattr(Pseudonyms, "patient", lambda self, name: name)


@pytest.fixture
def old(tmp_path: Path, manifest: Manifest, as_before: None, monkeypatch: pytest.MonkeyPatch) -> Storage:
    storage = new_storage(tmp_path / "loop")
    import_manifest(storage, manifest, progress=False)
    take_snapshot(storage, "job1", renew_images=100)
    monkeypatch.undo()
    assert b"GEHEIM" in everything(storage)
    return storage


def everything(storage: Storage) -> bytes:
    files = [path for path in storage.cache.parent.rglob("*") if path.is_file()]
    return b"".join(str(path).encode() + path.read_bytes() for path in files)


def images_of(storage: Storage) -> list[Image]:
    with storage.session() as session:
        return list(session.scalars(select(Image).order_by(Image.id)))


# Folders, and imports of this version


def test_images_of_one_patient_id_are_one_group_of_a_folder(manifest: Manifest, tmp_path: Path) -> None:
    table = manifest.table.sort_values("path")
    assert table["patient"].tolist() == [f"DICOM patient {1 + number // 3}" for number in range(ALL)]
    assert (table.groupby("patient")["group"].nunique() == 1).all()
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    saved = manifest.save(tmp_path / "manifest.parquet")
    assert b"GEHEIM" not in saved.read_bytes()


def test_patients_that_a_pattern_names_stay(manifest: Manifest) -> None:
    assert set(manifest_of(manifest.root, r"\d(\d)\.dcm").table["patient"]) == set("0123456789")


def test_an_import_stores_nothing_that_identifies(manifest: Manifest, tmp_path: Path) -> None:
    storage = new_storage(tmp_path / "loop")
    import_manifest(storage, manifest, progress=False)
    made = open_pseudonyms(storage)
    assert b"GEHEIM" not in everything(storage)
    for row in images_of(storage):
        number = next(n for n in range(ALL) if made.sent(bytes_sha256(file_of(n))) == row.sent_hash)
        data = storage.store.get(image_key(row.sha256))
        assert (bytes_sha256(data), len(data)) == (row.sha256, row.bytes)
        np.testing.assert_array_equal(decode(data), decode(file_of(number)))
        assert row.patient == made.patient(f"GEHEIM-{number // 3}")
        with storage.session() as session:
            assert stored_hash(session, bytes_sha256(file_of(number)), made) == row.sha256
    loaded = Manifest.load(materialise(storage, manifest.fingerprint[:32], tmp_path / "job"), image_root(storage))
    assert loaded.fingerprint == manifest.fingerprint
    assert loaded.limits.max_bytes >= max(row.bytes for row in images_of(storage))


# What is stored


def test_what_was_stored_is_freed_and_stays_what_it_is(old: Storage, manifest: Manifest, tmp_path: Path) -> None:
    before = images_of(old)
    summary = remove_identity(old, "ann", progress=False)
    assert summary == RemovalSummary(checked=ALL, rewritten=ALL, unreadable=0, manifests=2)
    assert b"GEHEIM" not in everything(old)
    made, after = open_pseudonyms(old), images_of(old)
    for was, row in zip(before, after, strict=True):
        same = ("id", "label", "status", "split", "group_key", "pixel_sha256", "width", "thumbnail", "created_at")
        assert all(getattr(was, name) == getattr(row, name) for name in same)
        assert row.sent_hash == made.sent(was.sha256)
        assert bytes_sha256(old.store.get(image_key(row.sha256))) == row.sha256 != was.sha256
        assert not old.store.has(image_key(was.sha256))
        with old.session() as session:
            assert find_image(session, was.sha256) is None
            assert stored_hash(session, was.sha256, made) == row.sha256
            assert [use["snapshot_id"] for use in lineage_of_image(session, row.sha256)] == []
    for snapshot in (manifest.fingerprint[:32], "job1"):
        loaded = Manifest.load(materialise(old, snapshot, tmp_path / snapshot), image_root(old))
        assert set(loaded.table["sha256"]) <= {row.sha256 for row in after}
        for path, sha256 in zip(loaded.table["path"], loaded.table["sha256"], strict=True):
            assert bytes_sha256((loaded.root / path).read_bytes()) == sha256
        with old.session() as session:
            assert session.get_one(Snapshot, snapshot).fingerprint == loaded.fingerprint
    with old.session() as session:
        assert images_as_sent(session) == []
    assert remove_identity(old, "ann", progress=False) == RemovalSummary(0, 0, 0, 0)


def test_an_interrupted_removal_is_finished_by_the_next(old: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def killed(data: bytes, limits: Limits, pseudonyms: Pseudonyms) -> ReceivedFile:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return received_files.deidentify(data, limits, pseudonyms)

    monkeypatch.setattr("lesion.catalogue.identity_removal.deidentify", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_identity(old, "ann", progress=False)
    assert b"GEHEIM" in everything(old)
    monkeypatch.undo()
    assert remove_identity(old, "ann", progress=False) == RemovalSummary(ALL - 5, ALL - 5, 0, 2)
    assert b"GEHEIM" not in everything(old)


def test_a_deleted_image_stays_deleted_and_an_unreadable_one_is_counted(old: Storage) -> None:
    gone, broken, *_ = images_of(old)
    delete_image(old, gone.sha256, "eve", "asked for")
    old.store.delete(image_key(broken.sha256))
    old.store.put(image_key(broken.sha256), file_of(3)[:-300])
    assert remove_identity(old, "ann", progress=False) == RemovalSummary(ALL - 1, ALL - 2, 1, 2)
    with old.session() as session:
        assert images_as_sent(session) == [broken.sha256]
        assert find_image(session, gone.sha256) is not None


def test_two_files_that_differed_only_in_what_was_removed_become_one(tmp_path: Path, old: Storage) -> None:
    first, second, *_ = images_of(old)
    twin = file_of(0, PatientName="GEHEIM^Berta", PatientID="GEHEIM-0")
    old.store.put(image_key(bytes_sha256(twin)), twin)
    with old.session() as session:
        assert first.sha256 == bytes_sha256(file_of(0))
        values = {column.key: getattr(first, column.key) for column in Image.__table__.columns if column.key != "id"}
        session.add(Image(**values | {"sha256": bytes_sha256(twin)}))
    assert remove_identity(old, "ann", progress=False).rewritten == ALL + 1
    assert b"GEHEIM" not in everything(old)
    assert [image.status for image in images_of(old)].count("deleted") == 1
    assert second.status == "accepted"


def test_it_is_refused_while_a_retraining_reads_the_files(old: Storage) -> None:
    with old.session() as session:
        session.add(Job(id="job2", active=1, metrics=[], request={}, requested_by="ann"))
    with pytest.raises(ConflictError) as refused:
        remove_identity(old, "ann", progress=False)
    assert refused.value.code == "job_active"
    assert b"GEHEIM" in everything(old)
    with old.session() as session:
        session.execute(update(Job).values(active=None))
    assert replace(remove_identity(old, "ann", progress=False), manifests=0).rewritten == ALL
