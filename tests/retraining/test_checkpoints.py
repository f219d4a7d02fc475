"""Checkpoints that go from one worker's disk to another's through the object store."""

import logging
import uuid
from pathlib import Path

import pytest

from lesion.database.object_store import ObjectStore, StoreError
from lesion.database.tables import Job
from lesion.promotion.gate_settings import GateSettings
from lesion.retraining.checkpoints import FILES, Checkpoints
from lesion.retraining.stages import RetrainSettings, Stages
from tests.support.images.loop_images import new_storage


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore(f"memory://{uuid.uuid4().hex}", {})


def trained(run: Path, epoch: int) -> None:
    """What a training leaves when an epoch is done."""
    for name in FILES:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(f"{name} {epoch}")


def content(run: Path) -> set[str]:
    return {path.read_text() for path in run.rglob("*") if path.is_file()}


def of_epoch(epoch: int) -> set[str]:
    return {f"{name} {epoch}" for name in FILES}


def test_another_disk_gets_the_last_epoch_that_was_kept(store: ObjectStore, tmp_path: Path) -> None:
    first = Checkpoints(store, "job", tmp_path / "first")
    for epoch in (1, 2, 4):
        trained(tmp_path / "first", epoch)
        first.save(epoch)
    trained(tmp_path / "first", 5)
    first.save(4)  # no news: what was kept stays
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "old.txt").write_text("an earlier try of this worker's")
    Checkpoints(store, "job", tmp_path / "second").fetch(6)  # the fifth and sixth were lost with their worker
    assert content(tmp_path / "second") == of_epoch(4)
    assert [store.has(f"jobs/job/{epoch}/progress.json") for epoch in range(1, 6)] == [False, False, False, True, False]


def test_where_nothing_was_kept_training_begins_anew(store: ObjectStore, tmp_path: Path) -> None:
    Checkpoints(store, "job", tmp_path / "run").fetch(3)
    assert not (tmp_path / "run").exists()


def test_an_unfinished_run_is_not_kept(store: ObjectStore, tmp_path: Path) -> None:
    trained(tmp_path, 1)
    (tmp_path / FILES[0]).unlink()
    Checkpoints(store, "job", tmp_path).save(1)
    assert not any(store.has(f"jobs/job/1/{name}") for name in FILES)


def test_a_job_that_is_over_leaves_nothing(store: ObjectStore, tmp_path: Path) -> None:
    made = Checkpoints(store, "job", tmp_path / "run")
    trained(tmp_path / "run", 1)
    made.save(1)
    Checkpoints(store, "other", tmp_path / "run").save(1)
    made.delete()
    made.delete()
    assert not any(store.has(f"jobs/job/1/{name}") for name in FILES)
    assert all(store.has(f"jobs/other/1/{name}") for name in FILES)


def test_a_store_on_this_machine_gets_no_copies(tmp_path: Path) -> None:
    trained(tmp_path / "run", 1)
    made = Checkpoints(ObjectStore(str(tmp_path / "files"), {}), "job", tmp_path / "run")
    made.save(1)
    made.fetch(2)
    made.delete()
    assert content(tmp_path / "run") == of_epoch(1)
    assert not (tmp_path / "files").exists()


class Away(ObjectStore):
    """A store that stopped to answer."""

    def put(self, key: str, data: bytes) -> None:
        raise StoreError("It does not answer.")

    def get(self, key: str) -> bytes:
        raise StoreError("It does not answer.")


def test_a_store_that_is_away_stops_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = Checkpoints(Away(f"memory://{uuid.uuid4().hex}", {}), "job", tmp_path)
    trained(tmp_path, 1)
    with caplog.at_level(logging.WARNING):
        made.save(1)
    assert "the checkpoint of epoch 1 is not stored: It does not answer." in caplog.text
    with pytest.raises(StoreError):  # this may pass, and then there is more to go on from
        made.fetch(1)


def test_a_worker_clears_its_disk_of_jobs_that_ended_elsewhere(tmp_path: Path) -> None:
    storage = new_storage(tmp_path / "loop")
    states = {"promoted": None, "rejected": None, "cancelled": None, "failed": None, "running": 1}
    with storage.session() as session:
        for number, (state, active) in enumerate(states.items()):
            session.add(Job(id=str(number), state=state, active=active, metrics=[], request={}, requested_by="ann"))
    for name in (*map(str, range(5)), "unknown"):
        (storage.cache / "jobs" / name / "run").mkdir(parents=True)
    Stages(storage, RetrainSettings(), GateSettings(), "w1").remove_leftovers()
    assert sorted(folder.name for folder in (storage.cache / "jobs").iterdir()) == ["3", "4", "unknown"]
    storage.engine.dispose()
