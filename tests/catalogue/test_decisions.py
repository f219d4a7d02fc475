"""Taking decisions about quarantined images back, and how long the pictures of dropped ones are kept."""

import threading
from datetime import timedelta

import pytest

from lesion.catalogue import decisions, images
from lesion.catalogue.images import CatalogueError, gate_images
from lesion.catalogue.lineage import lineage_of_image
from lesion.database import audit
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import AuditEntry, Generation, Image, ModelVersion, Snapshot, SnapshotImage, now
from tests.support.images.loop_images import new_storage, put_picture


@pytest.fixture
def storage(tmp_path) -> Storage:
    """A catalogue with an open gate generation."""
    storage = new_storage(tmp_path)
    with storage.session() as session:
        session.add(Generation(number=2, status="open"))
    return storage


@pytest.fixture
def waiting(storage, tmp_path) -> str:
    return put_picture(
        storage, tmp_path / "new", 1, "a", status="quarantined", split="gate", reason_code="odd", reason="It is odd."
    )


def decide(storage: Storage, sha256: str, what: str, *arguments: object) -> int:
    """Decide as eve, and return the id of the newest decision."""
    with storage.session() as session:
        getattr(decisions, what)(session, sha256, "eve", *arguments)
        newest = decisions.last_decision(session, sha256)
        assert newest is not None
        return newest.id


def facts(storage: Storage, sha256: str) -> tuple[object, ...]:
    with storage.reading() as session:
        row = images.get_image(session, sha256)
        return row.status, row.label, row.reason_code, row.reason, row.generation


FIRST = ("quarantined", "a", "odd", "It is odd.", None)


def test_every_decision_comes_back_as_it_was(storage, waiting):
    assert facts(storage, waiting) == FIRST
    for what, argument, after in (
        ("release", None, ("accepted", "a", "odd", "It is odd.", 2)),
        ("release", "b", ("accepted", "b", "odd", "It is odd.", 2)),
        ("drop", "a dog", ("dropped", "a", "dropped", "a dog", None)),
        ("release", "b", ("accepted", "b", "odd", "It is odd.", 2)),
    ):
        decision = decide(storage, waiting, what, argument)
        assert facts(storage, waiting) == after
        decide(storage, waiting, "undo", decision)
        assert facts(storage, waiting) == FIRST
        number = decide(storage, waiting, "undo", decision)  # again: nothing more happens
        assert number == decide(storage, waiting, "undo")
        assert facts(storage, waiting) == FIRST
    with storage.reading() as session:
        done = [entry.action for entry in audit.entries(session, subject=waiting)]
    assert done == ["image.quarantined", *("image.released", "image.undone") * 2, "image.dropped", "image.undone",
                    "image.released", "image.undone"]  # fmt: skip
    assert storage.store.has(image_key(waiting))


def test_the_last_decisions_that_can_be_undone_are_listed(storage, waiting, tmp_path):
    others = [put_picture(storage, tmp_path / "new", seed, "a", status="quarantined") for seed in (2, 3, 4, 5)]
    for sha256, what, argument in zip(
        (waiting, *others), ("release", "drop", "drop", "release", "drop"), "bxxbx", strict=True
    ):
        decide(storage, sha256, what, argument)
    decide(storage, others[1], "undo")
    images.delete_image(storage, others[3], "eve", "asked for")

    def listed(limit: int) -> list[tuple[str, str]]:
        with storage.reading() as session:
            return [(row.sha256, entry.action) for row, entry in decisions.recent_decisions(session, limit)]

    expected = [(others[2], "image.released"), (others[0], "image.dropped"), (waiting, "image.released")]
    assert listed(20) == expected
    assert listed(2) == expected[:2]


def test_nothing_to_undo(storage, waiting):
    with pytest.raises(CatalogueError) as caught:
        decide(storage, waiting, "undo")
    assert caught.value.code == "nothing_to_undo"


def test_the_decision_of_somebody_else_is_not_undone_unseen(storage, waiting):
    released = decide(storage, waiting, "release", "b")
    decide(storage, waiting, "undo", released)
    dropped = decide(storage, waiting, "drop", "a dog")
    with pytest.raises(CatalogueError, match=r"eve decided .* meanwhile: it is dropped") as caught:
        decide(storage, waiting, "undo", released)
    assert caught.value.code == "decision_changed"
    assert facts(storage, waiting)[0] == "dropped"
    decide(storage, waiting, "undo", dropped)
    assert facts(storage, waiting) == FIRST


def test_two_who_undo_at_once_undo_once(storage, waiting):
    decision = decide(storage, waiting, "drop", "a dog")
    threads = [threading.Thread(target=decide, args=(storage, waiting, "undo", decision)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert facts(storage, waiting) == FIRST
    with storage.reading() as session:
        assert [entry.action for entry in audit.entries(session, subject=waiting)].count("image.undone") == 1


def test_a_release_that_an_earlier_version_recorded_is_undone(storage, waiting):
    with storage.session() as session:
        row = images.get_image(session, waiting)
        row.status, row.label = "accepted", "b"
        detail = {"label": "b", "was": "a", "code": "odd", "split": "gate"}
        session.add(AuditEntry(actor="ann", action="image.released", subject=waiting, detail=detail))
    decide(storage, waiting, "undo")
    assert facts(storage, waiting) == FIRST


def test_what_an_earlier_version_dropped_is_gone(storage, waiting):
    with storage.session() as session:
        row = images.get_image(session, waiting)
        row.status, row.reason_code, row.thumbnail = "deleted", "dropped", b""
        detail = {"reason": "a dog", "label": "a", "was": "quarantined"}
        session.add(AuditEntry(actor="ann", action="image.dropped", subject=waiting, detail=detail))
    with pytest.raises(CatalogueError) as caught:
        decide(storage, waiting, "undo")
    assert caught.value.code == "picture_deleted"
    decide(storage, waiting, "drop", "again")  # as before: nothing more happens
    assert facts(storage, waiting)[0] == "deleted"


def test_an_accepted_image_that_was_deleted_stays_so(storage, waiting):
    decide(storage, waiting, "release", None)
    images.delete_image(storage, waiting, "eve", "the patient asked for it")
    with pytest.raises(CatalogueError) as caught:
        decide(storage, waiting, "undo")
    assert caught.value.code == "picture_deleted"


def test_what_a_model_learned_from_is_left_out_of_the_next_snapshot(storage, waiting, tmp_path):
    decide(storage, waiting, "release", "b")
    with storage.session() as session:
        session.add(Snapshot(id="s1", fingerprint="s1", manifest_key="s1", facts={}))
        session.flush()
        session.add(SnapshotImage(snapshot_id="s1", sha256=waiting, split="gate"))
        session.add(ModelVersion(version="v1", name="tiny", snapshot_id="s1", facts={}, files=[]))
        session.get_one(Generation, 2).status = "frozen"
        session.add(Generation(number=3, status="open"))
    with storage.reading() as session:
        assert gate_images(session, 2) == [(waiting, "b", images.get_image(session, waiting).group_key)]
    decide(storage, waiting, "undo")
    assert facts(storage, waiting) == FIRST
    with storage.reading() as session:
        assert gate_images(session, 2) == []
        assert [use["version"] for use in lineage_of_image(session, waiting)] == ["v1"]
    decide(storage, waiting, "release", "a")
    assert facts(storage, waiting)[-1] == 3  # of the generation that is open now


def test_the_picture_of_a_dropped_image_is_deleted_after_a_week(storage, waiting, tmp_path):
    kept = put_picture(storage, tmp_path / "new", 2, "a", status="quarantined")
    for sha256 in (waiting, kept):
        decide(storage, sha256, "drop", "a dog")
    assert decisions.delete_dropped(storage) == 0
    assert images.purge_deleted(storage) == 0  # at a worker's start
    with storage.session() as session:
        session.query(Image).filter_by(sha256=waiting).update({"changed_at": now() - timedelta(days=7, seconds=1)})
        session.query(Image).filter_by(sha256=kept).update({"changed_at": now() - timedelta(days=6.99)})
    assert decisions.delete_dropped(storage) == 1
    assert [facts(storage, sha256)[0] for sha256 in (waiting, kept)] == ["deleted", "dropped"]
    assert [storage.store.has(image_key(sha256)) for sha256 in (waiting, kept)] == [False, True]
    with storage.reading() as session:
        assert images.get_image(session, waiting).thumbnail == b""
    with pytest.raises(CatalogueError):
        decide(storage, waiting, "undo")
