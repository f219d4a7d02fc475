"""The catalogue: rows that go in once, decisions about what waits, deletion that leaves a tombstone, lineage."""

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from lesion.catalogue import decisions, images
from lesion.catalogue.counts import count_images, count_new_images
from lesion.catalogue.images import CatalogueError
from lesion.catalogue.label_corrections import correct_label
from lesion.catalogue.lineage import lineage_of_image, lineage_of_version
from lesion.core.errors import ConflictError, InvalidValueError, NotFoundError
from lesion.database import audit
from lesion.database.object_store import StoreError, image_key
from lesion.database.storage import Storage
from lesion.database.tables import Generation, Job, ModelVersion, Snapshot, SnapshotImage, now
from lesion.registry.deployments import InvalidReasonError, UnknownVersionError
from lesion.retraining.schedule import retraining_due
from tests.support.images.loop_images import new_storage, put_picture, row_of
from tests.support.images.pictures import write


@pytest.fixture
def storage(tmp_path) -> Storage:
    """A catalogue with a frozen and an open gate generation."""
    storage = new_storage(tmp_path)
    with storage.session() as session:
        session.add_all([Generation(number=1, status="frozen", frozen_at=now()), Generation(number=2, status="open")])
    return storage


@pytest.fixture
def put(storage, tmp_path):
    return lambda seed, label="a", **fields: put_picture(storage, tmp_path / "new", seed, label, **fields)


def actions(storage: Storage, subject: str) -> list[tuple[str, str]]:
    with storage.session() as session:
        return [(entry.actor, entry.action) for entry in audit.entries(session, subject=subject)]


def snapshot(storage: Storage, name: str, images: dict[str, str]) -> None:
    with storage.session() as session:
        session.add(Snapshot(id=name, fingerprint=name, manifest_key=f"snapshots/{name}", facts={}))
        session.flush()
        session.add_all(SnapshotImage(snapshot_id=name, sha256=sha, split=split) for sha, split in images.items())


def version(storage: Storage, name: str, snapshot_id: str | None, parent: str | None = None) -> None:
    with storage.session() as session:
        session.add(ModelVersion(version=name, name="tiny", parent=parent, snapshot_id=snapshot_id, facts={}, files=[]))


class TestAdding:
    def test_a_hash_goes_in_once(self, storage, tmp_path):
        file = write(tmp_path / "a.png", 1)
        with storage.session() as session:
            assert images.add_image(session, row_of(file))
        with storage.session() as session:
            assert not images.add_image(session, row_of(file, label="b"))
        with storage.session() as session:
            row = images.get_image(session, row_of(file).sha256)
            assert (row.label, row.status, row.id) == ("a", "accepted", 1)
        assert actions(storage, row.sha256) == [("ann", "image.accepted")]

    def test_another_fault_than_a_known_hash_is_raised(self, storage, tmp_path):
        row = row_of(write(tmp_path / "a.png", 1), generation=9)
        with pytest.raises(Exception, match="FOREIGN KEY"), storage.session() as session:
            images.add_image(session, row)

    def test_two_servers_that_add_one_image(self, storage, tmp_path):
        file = write(tmp_path / "a.png", 1)
        added = []

        def add() -> None:
            with storage.session() as session:
                added.append(images.add_image(session, row_of(file)))

        threads = [threading.Thread(target=add) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(added) == [False] * 5 + [True]

    def test_only_accepted_images_of_the_gate_enter_the_open_generation(self, storage, put):
        held, waiting, training = put(1, split="gate"), put(2, split="gate", status="quarantined"), put(3)
        with storage.session() as session:
            generations = [images.get_image(session, sha).generation for sha in (held, waiting, training)]
        assert generations == [2, None, None]

    def test_an_unknown_image(self, storage):
        with storage.session() as session:
            assert images.find_image(session, "0" * 64) is None
            with pytest.raises(NotFoundError, match="no image '000") as caught:
                images.get_image(session, "0" * 64)
        assert caught.value.code == "image_unknown"

    def test_without_an_import_there_is_no_gate(self, tmp_path):
        storage = new_storage(tmp_path / "empty")
        with pytest.raises(CatalogueError, match="empty") as caught, storage.session() as session:
            images.open_generation(session)
        assert caught.value.code == "catalogue_empty"


def test_each_refusal_is_of_its_kind():
    kinds = (NotFoundError, ConflictError, InvalidValueError)  # the first one that is in the order of bases counts
    orders = [kind.__mro__ for kind in (UnknownVersionError, CatalogueError, InvalidReasonError)]
    assert [next(base for base in order if base in kinds) for order in orders] == [
        NotFoundError, ConflictError, InvalidValueError,
    ]  # fmt: skip


class TestListing:
    def test_pages_in_the_order_of_arrival(self, storage, put):
        hashes = [put(seed, "ab"[seed % 2]) for seed in range(5)]
        with storage.session() as session:
            first = images.list_images(session, limit=2)
            second = images.list_images(session, after=first[-1].id, limit=2)
            labelled = images.list_images(session, label="b")
            none = images.list_images(session, status="quarantined")
        assert [row.sha256 for row in (*first, *second)] == hashes[:4]
        assert [row.sha256 for row in labelled] == [hashes[1], hashes[3]]
        assert none == []

    def test_counts(self, storage, put):
        put(1), put(2), put(3, "b", split="val"), put(4, "b", split="gate"), put(5, status="quarantined")
        with storage.session() as session:
            assert count_images(session) == {
                "status": {"accepted": 4, "quarantined": 1, "dropped": 0, "deleted": 0},
                "labels": {"a": {"train": 2}, "b": {"val": 1, "gate": 1}},
                "generations": [
                    {"number": 1, "status": "frozen", "labels": {}},
                    {"number": 2, "status": "open", "labels": {"b": 1}},
                ],
            }

    def test_what_the_next_retraining_adds(self, storage, put):
        old, new = put(1), put(2, "b")
        put(3, split="val"), put(4, split="gate"), put(5, split="excluded")
        put(6, status="quarantined"), put(7, status="quarantined", split="gate")
        with storage.session() as session:
            assert count_new_images(session)["images"] == 3
        snapshot(storage, "s1", {old: "train"})
        with storage.session() as session:
            assert count_new_images(session)["images"] == 3  # a retraining was canceled: no model has learned from it
        version(storage, "v1", "s1")
        expected = {
            "images": 2,
            "held_out": 1,
            "unreviewed": 1,
            "relabeled": 0,
            "splits": {"gate": {"a": 1}, "train": {"b": 1}, "val": {"a": 1}},
        }
        with storage.session() as session:
            assert count_new_images(session) == expected
            assert count_new_images(session, "s1") == expected
        snapshot(storage, "s2", {old: "train", new: "train"})
        version(storage, "v2", "s2")
        with storage.session() as session:
            assert count_new_images(session)["images"] == 1

    def test_a_retraining_is_due_when_enough_wait_and_none_has_just_failed(self, storage, put):
        put(1), put(2)
        with storage.session() as session:
            assert not retraining_due(session, 2)  # there is no first model's data
        snapshot(storage, "s1", {})
        with storage.session() as session:
            assert retraining_due(session, 2)
            assert not retraining_due(session, 3)
        for state, finished, due in (
            ("rejected", now(), True),
            ("cancelled", now(), False),
            ("failed", now(), False),
            ("failed", now() - timedelta(hours=2), True),
        ):
            with storage.session() as session:
                session.add(Job(id="j", state=state, metrics=[], request={}, requested_by="ann", finished_at=finished))
            with storage.session() as session:
                assert retraining_due(session, 2) == due, state
                session.delete(session.get_one(Job, "j"))


class TestDoubt:
    def test_the_most_doubtful_come_first_page_by_page(self, storage, put):
        doubts = [0.2, None, 0.9, 0.2, 1.0, 0.0]
        hashes = [put(seed, status="quarantined", doubt=doubt) for seed, doubt in enumerate(doubts)]
        put(100, doubt=0.95)  # is accepted
        listed, after = [], 0
        with storage.session() as session:
            while page := images.list_images(session, status="quarantined", after=after, limit=2, doubtful_first=True):
                listed += [row.sha256 for row in page]
                after = page[-1].id
        assert listed == [hashes[place] for place in (4, 2, 0, 3, 5, 1)]

    def test_a_corrected_label_has_no_doubt_and_a_released_one_keeps_what_it_had(self, storage, put):
        corrected, released = put(1, doubt=0.9), put(2, doubt=0.8, status="quarantined")
        with storage.session() as session:
            assert correct_label(session, corrected, "eve", "b").doubt is None
            assert decisions.release(session, released, "eve", "b").doubt == 0.8
            assert decisions.undo(session, released, "eve").doubt == 0.8


class TestQuarantine:
    def test_release(self, storage, put):
        sha = put(1, status="quarantined", reason_code="out_of_domain", reason="It is far away.")
        with storage.session() as session:
            decisions.release(session, sha, "eve")
        with storage.session() as session:
            decisions.release(session, sha, "eve")  # again: nothing more happens
            row = images.get_image(session, sha)
            assert (row.status, row.label, row.split, row.reason) == ("accepted", "a", "train", "It is far away.")
        assert actions(storage, sha) == [("ann", "image.quarantined"), ("eve", "image.released")]

    def test_release_under_the_right_label(self, storage, put):
        sha = put(1, status="quarantined", reason_code="label_disputed")
        with storage.session() as session:
            assert decisions.release(session, sha, "eve", label="b").label == "b"
            entry = audit.entries(session, subject=sha)[-1]
            assert (entry.detail["was"], entry.detail["label"]) == ("a", "b")
        with storage.session() as session:
            assert decisions.release(session, sha, "ann", label="b").label == "b"
        with pytest.raises(CatalogueError, match="accepted as b already") as caught, storage.session() as session:
            decisions.release(session, sha, "ann", label="a")
        assert (caught.value.code, type(caught.value)) == ("accepted_otherwise", CatalogueError)
        assert [actor for actor, action in actions(storage, sha) if action == "image.released"] == ["eve"]

    def test_a_released_image_of_the_gate_enters_the_generation_that_is_open_now(self, storage, put):
        sha = put(1, status="quarantined", split="gate")
        with storage.session() as session:
            session.get_one(Generation, 2).status = "frozen"
            session.add(Generation(number=3, status="open"))
        with storage.session() as session:
            assert decisions.release(session, sha, "eve").generation == 3

    def test_a_released_image_joins_its_groups_side(self, storage, put):
        first = put(1, split="val")
        second = put(2, status="quarantined", split="train", group_key=first)
        with storage.session() as session:
            assert decisions.release(session, second, "eve").split == "val"

    def test_drop(self, storage, put):
        sha = put(1, status="quarantined")
        for reason in ("a photo of a dog", "again"):
            with storage.session() as session:
                row = decisions.drop(session, sha, "eve", reason)
            assert (row.status, row.reason_code, row.reason) == ("dropped", "dropped", "a photo of a dog")
        assert len(row.thumbnail) > 1
        assert storage.store.has(image_key(sha))
        assert actions(storage, sha) == [("ann", "image.quarantined"), ("eve", "image.dropped")]

    def test_only_what_is_quarantined_is_decided(self, storage, put):
        accepted, gone = put(1), put(2)
        images.delete_image(storage, gone, "eve", "asked for")
        with (
            pytest.raises(CatalogueError, match="is accepted, not quarantined") as caught,
            storage.session() as session,
        ):
            decisions.drop(session, accepted, "eve", "no")
        assert (caught.value.code, type(caught.value)) == ("not_quarantined", CatalogueError)
        with pytest.raises(CatalogueError, match="is deleted"), storage.session() as session:
            decisions.release(session, gone, "eve")
        with pytest.raises(InvalidValueError, match="reason"), storage.session() as session:
            decisions.drop(session, accepted, "eve", " ")


class TestDeletion:
    def test_pixels_go_and_a_tombstone_stays(self, storage, put):
        sha = put(1)
        copies = [storage.cache / image_key(sha), storage.cache / images.PIXEL_FOLDER / "abc" / sha[:2] / f"{sha}.rgb"]
        for copy in copies:
            copy.parent.mkdir(parents=True)
            copy.write_bytes(b"pixels")
        assert images.delete_image(storage, sha, "eve", "the patient asked for it") == []
        assert not any(copy.exists() for copy in copies)
        with pytest.raises(StoreError):
            storage.store.get(image_key(sha))
        with storage.session() as session:
            row = images.get_image(session, sha)
        assert (row.status, row.reason_code, row.thumbnail) == ("deleted", "deleted", b"")
        assert row.label == "a"

    def test_it_can_be_called_again_after_an_interruption(self, storage, put, monkeypatch):
        sha = put(1)

        def broken(self: object, key: str) -> None:
            raise StoreError("The store does not answer.")

        with monkeypatch.context() as patch:
            patch.setattr(type(storage.store), "delete", broken)
            with pytest.raises(StoreError):
                images.delete_image(storage, sha, "eve", "asked for")
        assert storage.store.get(image_key(sha))
        images.delete_image(storage, sha, "eve", "asked for")
        with pytest.raises(StoreError):
            storage.store.get(image_key(sha))
        assert actions(storage, sha) == [("ann", "image.accepted"), ("eve", "image.deleted")]

    def test_a_sweep_finishes_deletions(self, storage, put):
        sha, kept = put(1), put(2)
        images.delete_image(storage, sha, "eve", "asked for")
        storage.store.put(image_key(sha), b"an upload that lost the race")
        assert images.purge_deleted(storage) == 1
        with pytest.raises(StoreError):
            storage.store.get(image_key(sha))
        assert storage.store.get(image_key(kept))

    @pytest.mark.parametrize("reason", ["", "  \n"])
    def test_a_reason_is_needed(self, storage, put, reason):
        sha = put(1)
        with pytest.raises(InvalidValueError, match="reason") as caught:
            images.delete_image(storage, sha, "eve", reason)
        assert caught.value.code == "reason_missing"
        assert Path(storage.files, image_key(sha)).is_file()


class TestLineage:
    @pytest.fixture
    def family(self, storage, put) -> tuple[str, str, str]:
        """v1 trained on the first image; v2, its child, on the second; v3 stands alone and tests on the third."""
        one, two, three = put(1), put(2, "b"), put(3)
        snapshot(storage, "s1", {one: "train", three: "val"})
        snapshot(storage, "s2", {two: "train", three: "test"})
        version(storage, "v1", "s1")
        version(storage, "v2", "s2", parent="v1")
        version(storage, "v3", "s2")
        version(storage, "v4", None, parent="v2")
        return one, two, three

    def test_from_an_image_to_the_versions(self, storage, family):
        one, _, three = family

        def seen(sha: str) -> list[tuple[object, ...]]:
            with storage.session() as session:
                rows = lineage_of_image(session, sha)
            return [(row["version"], row["split"], row["inherited_from"]) for row in rows]

        assert seen(one) == [("v1", "train", None), ("v2", None, "v1"), ("v4", None, "v2")]
        assert seen(three) == [("v1", "val", None), ("v2", "test", None), ("v3", "test", None)]
        assert seen("0" * 64) == []

    def test_deletion_lists_them(self, storage, family):
        versions = images.delete_image(storage, family[1], "eve", "asked for")
        assert [(row["version"], row["split"]) for row in versions] == [("v2", "train"), ("v3", "train"), ("v4", None)]

    def test_from_a_version_to_its_images(self, storage, family):
        with storage.session() as session:
            page = lineage_of_version(session, "v2", limit=1)
            assert page["next"] is not None
            rest = lineage_of_version(session, "v2", after=page["next"])
        assert (page["parent"], page["snapshot_id"]) == ("v1", "s2")
        assert page["counts"] == {"train": {"b": 1}, "test": {"a": 1}}
        assert [row["sha256"] for row in page["images"] + rest["images"]] == sorted(family[1:])
        assert page["images"][0].keys() == {"sha256", "label", "split", "status"}
        assert rest["next"] is None

    def test_an_unknown_version(self, storage):
        with pytest.raises(UnknownVersionError, match="no version 'v9'") as caught, storage.session() as session:
            lineage_of_version(session, "v9")
        assert caught.value.code == "model_unknown"


def test_the_audit_log_is_paged_and_rolled_back_with_the_change(storage):
    with storage.session() as session:
        for number in range(3):
            audit.record(session, "ann", "test.done", "x", number=number)

    def record_and_fail() -> None:
        with storage.session() as session:
            audit.record(session, "ann", "test.done", "x", number=3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        record_and_fail()
    with storage.session() as session:
        first = audit.entries(session, limit=2)
        assert [entry.detail["number"] for entry in first] == [0, 1]
        assert [entry.detail["number"] for entry in audit.entries(session, after=first[-1].id)] == [2]
