"""Clocks that are set: what is compared between processes or survives a restart is off by a bounded time."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lesion.catalogue.import_run import import_manifest
from lesion.database.storage import Storage
from lesion.database.tables import Job, Worker
from lesion.registry.registry import Registry
from lesion.retraining import leases, schedule
from lesion.retraining.jobs import JobState, RetrainRequest, submit
from lesion.retraining.leases import WorkerHeartbeats, WorkerIdentity
from serve.observability.collectors import database_metrics
from tests.support.bundles.registry_bundles import sealed
from tests.support.images.loop_images import new_storage, small_manifest

HOUR = timedelta(hours=1)


def earlier() -> datetime:
    return datetime.now(UTC) - HOUR


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return new_storage(tmp_path)


def beats(storage: Storage, name: str, silent_s: float = 60.0) -> WorkerHeartbeats:
    return WorkerHeartbeats(storage, WorkerIdentity(name, "another machine", 1), silent_s)


def test_a_worker_whose_clock_is_set_back_stays_alive(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = beats(storage, "mine"), beats(storage, "other")
    other.beat()
    assert mine.alive() == {"mine", "other"}
    monkeypatch.setattr(leases, "now", earlier)
    other.beat()
    assert mine.alive() == {"mine", "other"}


def test_a_worker_that_died_before_the_clock_was_set_back_is_dead(storage: Storage) -> None:
    mine, dead = beats(storage, "mine", silent_s=0.0), beats(storage, "dead")
    dead.beat()
    with storage.session() as session:
        session.get_one(Worker, "dead").seen_at = datetime.now(UTC) + HOUR
    assert mine.alive() == {"mine"}


def test_the_metric_of_workers_counts_no_heartbeat_from_the_future(storage: Storage) -> None:
    def counted() -> float:
        found = next(each for each in database_metrics(storage) if each.name == "lesion_retraining_workers")
        return float(found.samples[0].value)

    beats(storage, "mine").beat()
    assert counted() == 1
    with storage.session() as session:
        session.get_one(Worker, "mine").seen_at = datetime.now(UTC) + HOUR
    assert counted() == 0


def test_a_job_that_failed_in_the_future_holds_no_schedule_up(storage: Storage, tmp_path: Path) -> None:
    snapshot = import_manifest(storage, small_manifest(tmp_path / "pictures"), progress=False)
    registry = Registry(storage)
    registry.deploy_first(registry.register(sealed(tmp_path / "bundle"), snapshot_id=snapshot), "ann", "the first")
    job_id = submit(storage, RetrainRequest(), "schedule")[0].id

    def due_when_failed(at: datetime) -> bool:
        with storage.session() as session:
            job = session.get_one(Job, job_id)
            job.state, job.active, job.finished_at = JobState.FAILED.value, None, at
        with storage.session() as session:
            return schedule.retraining_due(session, 0)

    now = datetime.now(UTC)
    assert not due_when_failed(now - HOUR / 2)
    assert due_when_failed(now - 2 * HOUR)
    assert due_when_failed(now + 30 * 24 * HOUR)
