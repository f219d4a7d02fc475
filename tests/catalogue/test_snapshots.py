"""Snapshots: what is imported, what the next model trains on, and what the gate keeps to itself."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import func, select

from lesion.catalogue import images, snapshots
from lesion.catalogue.counts import count_new_images
from lesion.catalogue.decisions import release
from lesion.catalogue.images import CatalogueError, gate_images
from lesion.catalogue.import_run import import_manifest
from lesion.catalogue.label_corrections import correct_label
from lesion.catalogue.snapshot_store import image_root, materialise
from lesion.catalogue.snapshots import take_snapshot
from lesion.core.errors import DataError, NotFoundError
from lesion.core.files import bytes_sha256
from lesion.data.manifest import Manifest, build_manifest
from lesion.data.scan import scan_folders
from lesion.database.object_store import DamagedFileError, ObjectStore, image_key
from lesion.database.storage import Storage
from lesion.database.tables import Generation, Image, Snapshot, SnapshotImage
from tests.support.images.loop_images import FRACTIONS, manifest_of, new_storage, put_picture, small_manifest
from tests.support.images.pictures import write


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    return small_manifest(tmp_path / "data")


@pytest.fixture
def storage(tmp_path) -> Storage:
    return new_storage(tmp_path)


@pytest.fixture
def imported(storage: Storage, manifest: Manifest) -> Storage:
    import_manifest(storage, manifest, progress=False)
    return storage


@pytest.fixture
def put(imported, tmp_path):
    return lambda seed, label="a", **fields: put_picture(imported, tmp_path / "new", seed, label, **fields)


def splits(storage: Storage) -> Counter[str]:
    with storage.session() as session:
        return Counter(session.scalars(select(Image.split)))


def taken(storage: Storage, snapshot_id: str, folder: Path) -> Manifest:
    return Manifest.load(materialise(storage, snapshot_id, folder))


def split_of(manifest: Manifest, sha256: str) -> str | None:
    rows = manifest.table[manifest.table["sha256"] == sha256]
    return None if rows.empty else rows["split"].iloc[0]


class TestImport:
    def test_images_go_in_with_their_splits_and_the_test_split_becomes_the_gate(self, storage, manifest):
        snapshot_id = import_manifest(storage, manifest, progress=False)
        assert splits(storage) == {"train": 8, "val": 4, "calibration": 4, "gate": 4}
        with storage.session() as session:
            generations = session.scalars(select(Generation).order_by(Generation.number)).all()
            assert [(row.number, row.status, row.selection) for row in generations] == [
                (1, "frozen", "imported"),
                (2, "open", None),
            ]
            gate = gate_images(session, 1)
            row = images.get_image(session, manifest.table["sha256"].iloc[0])
            kept = session.get_one(Snapshot, snapshot_id)
            rows = dict(session.execute(select(SnapshotImage.sha256, SnapshotImage.split)).all())
        test = manifest.split("test")
        assert gate == [(sha, label, sha) for sha, label in zip(test["sha256"], test["label"], strict=True)]
        assert (row.source, row.uploader, row.status, row.label) == ("manifest:tiny", "import", "accepted", "a")
        assert kept.fingerprint == manifest.fingerprint
        assert kept.facts["classes"] == ["a", "b"]
        assert rows == dict(zip(manifest.table["sha256"], manifest.table["split"], strict=True))
        for path, sha in zip(manifest.table["path"], manifest.table["sha256"], strict=True):
            assert storage.store.get(image_key(sha)) == (manifest.root / path).read_bytes()

    def test_no_path_of_the_users_is_stored(self, storage, manifest, tmp_path):
        snapshot_id = import_manifest(storage, manifest, progress=False)
        with storage.session() as session:
            key = session.get_one(Snapshot, snapshot_id).manifest_key
        assert str(manifest.root).encode() not in storage.store.get(key)
        assert b"000.png" not in (tmp_path / "lesion.db").read_bytes()

    def test_again_changes_nothing(self, storage, manifest):
        first = import_manifest(storage, manifest, progress=False)
        with storage.session() as session:
            before = session.scalar(select(func.max(Image.changed_at)))
        shutil.rmtree(manifest.root)  # not even read
        assert import_manifest(storage, manifest, progress=False) == first
        with storage.session() as session:
            assert session.scalar(select(func.max(Image.changed_at))) == before
            assert session.scalar(select(func.count()).select_from(Image)) == 20

    def test_after_an_import_that_was_killed_half_way(self, storage, manifest):
        for path in manifest.table["path"][:7]:
            data = (manifest.root / path).read_bytes()
            storage.store.put(image_key(bytes_sha256(data)), data)
        import_manifest(storage, manifest, progress=False)
        assert sum(splits(storage).values()) == 20

    def test_other_data_is_refused(self, imported, tmp_path):
        other = small_manifest(tmp_path / "other", count=11)
        with pytest.raises(CatalogueError, match="already holds the data of 'tiny'") as caught:
            import_manifest(imported, other, progress=False)
        assert (caught.value.code, type(caught.value)) == ("already_imported", CatalogueError)

    def test_a_file_that_was_changed_is_refused_and_nothing_is_imported(self, storage, manifest):
        write(manifest.root / "a" / "003.png", seed=99)
        with pytest.raises(DataError, match=r"'a/003\.png' was changed"):
            import_manifest(storage, manifest, progress=False)
        assert splits(storage) == {}

    def test_copies_and_conflicts(self, storage, tmp_path):
        root = tmp_path / "data"
        small_manifest(root)
        shutil.copy(root / "a" / "000.png", root / "a" / "copy.png")
        shutil.copy(root / "a" / "001.png", root / "b" / "twin.png")
        manifest = manifest_of(root)
        snapshot_id = import_manifest(storage, manifest, progress=False)
        with storage.session() as session:
            assert session.scalar(select(func.count()).select_from(Image)) == 20
            twin = images.get_image(session, bytes_sha256((root / "b" / "twin.png").read_bytes()))
            assert (twin.split, twin.status) == ("excluded", "accepted")
            assert session.get(SnapshotImage, (snapshot_id, twin.sha256)) is None
            assert session.get_one(Snapshot, snapshot_id).fingerprint == manifest.fingerprint

    def test_groups_are_named_by_their_first_image(self, storage, tmp_path):
        root = tmp_path / "data"
        small_manifest(root)
        write(root / "a" / "recoded.jpg", seed=0, quality=60)
        manifest = manifest_of(root)
        import_manifest(storage, manifest, progress=False)
        first, copy = (bytes_sha256((root / "a" / name).read_bytes()) for name in ("000.png", "recoded.jpg"))
        with storage.session() as session:
            rows = [images.get_image(session, sha) for sha in (first, copy)]
        assert [row.group_key for row in rows] == [first, first]
        assert rows[0].split == rows[1].split

    def test_a_split_by_folder_leaves_no_relative_of_the_gate_to_train_on(self, storage, tmp_path):
        root = tmp_path / "data"
        for seed in range(20):
            write(root / ("Testing" if seed < 4 else "Training") / "ab"[seed % 2] / f"{seed}.png", seed)
        leaked = write(root / "Training" / "a" / "leaked.jpg", seed=0, quality=60)
        fractions = {"train": 0.5, "val": 0.2, "calibration": 0.3, "test": 0.0}
        manifest = build_manifest(
            "tiny", root, scan_folders(root), policy="folder", fractions=fractions, progress=False
        )
        snapshot_id = import_manifest(storage, manifest, progress=False)
        sha = bytes_sha256(leaked.read_bytes())
        with storage.session() as session:
            assert images.get_image(session, sha).split == "excluded"
            seen = session.get_one(SnapshotImage, (snapshot_id, sha)).split
        assert seen in ("train", "val", "calibration")  # what the first model saw is told as it was

    def test_without_test_images_there_is_no_gate(self, storage, manifest):
        table = manifest.table.assign(split=manifest.table["split"].replace("test", "train"))
        with pytest.raises(DataError, match="no test images"):
            import_manifest(storage, replace(manifest, table=table), progress=False)


class TestTake:
    def test_nothing_new_gives_the_same_data(self, imported, manifest, tmp_path):
        snapshot = take_snapshot(imported, "job1", renew_images=5)
        assert snapshot.fingerprint == manifest.fingerprint
        again = taken(imported, "job1", tmp_path / "job")
        table = manifest.table.set_index("sha256")
        assert dict(zip(again.table["sha256"], again.table["split"], strict=True)) == table["split"].to_dict()
        assert again.classes == manifest.classes
        assert again.table["path"].is_monotonic_increasing
        for path, sha in zip(again.table["path"], again.table["sha256"], strict=True):
            assert bytes_sha256((again.root / path).read_bytes()) == sha

    def test_new_images_of_each_kind(self, put, imported, tmp_path):
        train, val = put(100), put(101, "b", split="val")
        held, waiting = put(102, split="gate"), put(103, status="quarantined")
        deleted = put(104)
        images.delete_image(imported, deleted, "eve", "asked for")
        take_snapshot(imported, "job1", renew_images=5)
        manifest = taken(imported, "job1", tmp_path / "job")
        found = [split_of(manifest, sha) for sha in (train, val, held, waiting, deleted)]
        assert found == ["train", "val", None, None, None]
        with imported.session() as session:
            assert session.get_one(SnapshotImage, ("job1", train)).split == "train"
            assert session.get(SnapshotImage, ("job1", held)) is None
            counts = {"images": 0, "held_out": 1, "unreviewed": 0, "relabeled": 0, "splits": {"gate": {"a": 1}}}
            assert count_new_images(session, "job1") == counts

    def test_a_corrected_label_is_used_by_the_next_snapshot_and_counted_until_then(self, put, imported, tmp_path):
        def label_in(job: str, sha: str) -> str:
            table = taken(imported, job, tmp_path / job).table
            return str(table.loc[table["sha256"] == sha, "label"].item())

        sha = put(100)
        take_snapshot(imported, "job1", renew_images=5)
        with imported.session() as session:
            assert count_new_images(session, "job1")["relabeled"] == 0
            correct_label(session, sha, "eve", "b")
        with imported.session() as session:
            expected = {"images": 0, "held_out": 0, "unreviewed": 0, "relabeled": 1, "splits": {}}
            assert count_new_images(session, "job1") == expected
        take_snapshot(imported, "job2", renew_images=5)
        with imported.session() as session:
            assert count_new_images(session, "job2")["relabeled"] == 0
            correct_label(session, sha, "eve", "a")
        take_snapshot(imported, "job3", renew_images=5)
        assert [label_in(job, sha) for job in ("job1", "job2", "job3")] == ["a", "b", "a"]

    def test_a_corrected_test_image_leaves_the_frozen_gate_and_is_never_trained_on(self, put, imported, tmp_path):
        with imported.session() as session:
            (sha, label, _), *others = gate_images(session, 1)
            correct_label(session, sha, "eve", "b" if label == "a" else "a")
            assert gate_images(session, 1) == others
        take_snapshot(imported, "job1", renew_images=5)
        assert split_of(taken(imported, "job1", tmp_path / "1"), sha) is None
        for number in range(4):
            put(100 + number, "ab"[number % 2], split="gate")
        take_snapshot(imported, "job2", renew_images=5)
        manifest = taken(imported, "job2", tmp_path / "2")
        assert split_of(manifest, sha) == "test"
        with imported.session() as session:
            assert (sha, "b" if label == "a" else "a") in [row[:2] for row in gate_images(session, 2)]

    def test_enough_held_out_images_renew_the_gate(self, put, imported, tmp_path):
        held = [put(100 + number, "ab"[number % 2], split="gate") for number in range(4)]
        take_snapshot(imported, "job1", renew_images=5)
        held.append(put(110, "a", split="gate"))
        take_snapshot(imported, "job2", renew_images=5)
        with imported.session() as session:
            assert images.frozen_generations(session) == [1, 2]
            assert images.open_generation(session).number == 3
            assert session.get_one(Generation, 2).selection == "membership_first"
            assert [sha for sha, _, _ in gate_images(session, 2)] == held
            assert session.get_one(Generation, 2).frozen_at is not None
        assert len(taken(imported, "job1", tmp_path / "1").split("test")) == 4
        assert len(taken(imported, "job2", tmp_path / "2").split("test")) == 9
        later = put(120, "a", split="gate")
        with imported.session() as session:
            assert images.get_image(session, later).generation == 3

    def test_no_image_that_came_after_one_in_quarantine_is_frozen_before_that_is_reviewed(self, put, imported):
        """Or the champion, by whose errors images wait, would decide what it is compared on."""
        before = [put(100 + number, "ab"[number % 2], split="gate", group_key=f"g{number % 3}") for number in range(5)]
        waiting = put(110, "a", split="gate", status="quarantined")
        after = [put(120 + number, "ab"[number % 2], split="gate") for number in range(4)]
        brother = put(130, "a", split="gate", group_key="g0")  # of an image that came before
        put(131, "b", split="gate", status="quarantined", group_key="g1")
        train = put(140, "a", status="quarantined")  # keeps nobody waiting
        take_snapshot(imported, "job1", renew_images=5)
        with imported.session() as session:
            in_time = [sha for number, sha in enumerate(before) if number % 3 != 1]
            assert images.frozen_generations(session) == [1], "four of ten came before, without g1"
            assert images.get_image(session, waiting).generation is None
        take_snapshot(imported, "job2", renew_images=4)
        with imported.session() as session:
            assert [sha for sha, _, _ in gate_images(session, 2)] == [*in_time, brother]
            left = {before[1], before[4], *after}
            assert {sha for sha, _, _ in gate_images(session, 3)} == left
            released = release(session, waiting, "eve", "b")
            assert (released.generation, images.get_image(session, train).generation) == (3, None)
        take_snapshot(imported, "job3", renew_images=5)
        with imported.session() as session:
            assert images.frozen_generations(session) == [1, 2, 3]
            assert {sha for sha, _, _ in gate_images(session, 3)} == {waiting, *after}, "without g1"

    def test_images_of_one_class_do_not_renew_the_gate(self, put, imported):
        for number in range(6):
            put(100 + number, "a", split="gate")
        take_snapshot(imported, "job1", renew_images=5)
        with imported.session() as session:
            assert images.frozen_generations(session) == [1]

    def test_the_same_job_gets_the_same_snapshot(self, put, imported):
        first = take_snapshot(imported, "job1", renew_images=5)
        put(100)
        again = take_snapshot(imported, "job1", renew_images=5)
        assert (again.id, again.fingerprint, again.manifest_key) == (first.id, first.fingerprint, first.manifest_key)

    def test_after_a_worker_died_between_the_file_and_the_rows(self, put, imported, tmp_path, monkeypatch):
        def dies(*arguments: object, **options: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(snapshots, "add_snapshot", dies)
            with pytest.raises(KeyboardInterrupt):
                take_snapshot(imported, "job1", renew_images=5)
        new = put(100)
        take_snapshot(imported, "job1", renew_images=5)
        assert split_of(taken(imported, "job1", tmp_path / "job"), new) == "train"

    def test_a_copy_of_a_gate_image_that_came_through_another_server_is_excluded(
        self, put, imported, manifest, tmp_path
    ):
        test = manifest.split("test").iloc[0]
        seed = int(test["path"][-7:-4]) + (0 if test["label"] == "a" else 10)
        copy = put(seed, test["label"], suffix=".jpg")
        assert copy != test["sha256"]
        take_snapshot(imported, "job1", renew_images=5)
        with imported.session() as session:
            row = images.get_image(session, copy)
            assert (row.split, row.reason_code, row.group_key) == ("excluded", "group_divided", test["sha256"])
            assert session.get(SnapshotImage, ("job1", copy)) is None
            assert len(gate_images(session, 1)) == 4
        assert split_of(taken(imported, "job1", tmp_path / "job"), copy) == "excluded"

    def test_a_relative_of_a_held_out_image_is_excluded_too(self, put, imported):
        training = put(100)
        put(101, split="gate", patient="p1")
        relative = put(102, split="val", patient="p1")
        take_snapshot(imported, "job1", renew_images=5)
        with imported.session() as session:
            assert [images.get_image(session, sha).split for sha in (training, relative)] == ["train", "excluded"]

    def test_a_class_that_is_gone_is_said(self, imported, manifest):
        rows = manifest.split("val")
        for sha in rows.loc[rows["label"] == "b", "sha256"]:
            images.delete_image(imported, sha, "eve", "asked for")
        with pytest.raises(DataError, match="no image of b left for 'val'") as caught:
            take_snapshot(imported, "job1", renew_images=5)
        assert caught.value.code == "class_missing"

    def test_without_an_import(self, storage):
        with pytest.raises(CatalogueError) as caught:
            take_snapshot(storage, "job1", renew_images=5)
        assert caught.value.code == "catalogue_empty"


class TestMaterialise:
    def test_a_local_store_is_used_where_it_is(self, imported, tmp_path):
        take_snapshot(imported, "job1", renew_images=5)
        path = materialise(imported, "job1", tmp_path / "job")
        assert path == tmp_path / "job" / "manifest.parquet"
        assert image_root(imported) == tmp_path / "files"
        assert Manifest.load(path).root == tmp_path / "files"
        assert [file.name for file in path.parent.iterdir()] == ["manifest.parquet"]
        assert not imported.cache.exists()

    def test_what_was_deleted_since_is_left_out(self, put, imported, tmp_path):
        gone = put(100)
        take_snapshot(imported, "job1", renew_images=5)
        images.delete_image(imported, gone, "eve", "asked for")
        assert split_of(taken(imported, "job1", tmp_path / "job"), gone) is None

    def test_a_remote_store_is_fetched_once(self, manifest, tmp_path, monkeypatch):
        local = new_storage(tmp_path)
        storage = replace(local, files=f"memory://{tmp_path.name}/files", identity_key="5a" * 32)
        import_manifest(storage, manifest, progress=False)
        take_snapshot(storage, "job1", renew_images=5)
        fetched: list[str] = []
        get = ObjectStore.get

        def recording(store: ObjectStore, key: str) -> bytes:
            fetched.append(key)
            return get(store, key)

        monkeypatch.setattr(ObjectStore, "get", recording)
        for _ in range(2):
            loaded = taken(storage, "job1", tmp_path / "job")
        assert loaded.root == storage.cache
        for path, sha in zip(loaded.table["path"], loaded.table["sha256"], strict=True):
            assert bytes_sha256((storage.cache / path).read_bytes()) == sha
        assert Counter(key.split("/")[0] for key in fetched) == {"images": 20, "snapshots": 2}

    def test_a_remote_file_with_other_bytes_is_refused(self, manifest, tmp_path):
        storage = replace(new_storage(tmp_path), files=f"memory://{tmp_path.name}/altered", identity_key="5a" * 32)
        import_manifest(storage, manifest, progress=False)
        take_snapshot(storage, "job1", renew_images=5)
        sha = manifest.table["sha256"].iloc[3]
        storage.store.delete(image_key(sha))
        storage.store.put(image_key(sha), b"something else")
        with pytest.raises(DamagedFileError, match="does not match its hash"):
            materialise(storage, "job1", tmp_path / "job")
        assert not (storage.cache / image_key(sha)).exists()

    def test_an_unknown_snapshot(self, storage, tmp_path):
        with pytest.raises(NotFoundError, match="no snapshot 'job9'"):
            materialise(storage, "job9", tmp_path)


def test_fractions_of_the_small_manifest(manifest):
    assert manifest.table["split"].value_counts(normalize=True).round(2).to_dict() == FRACTIONS
