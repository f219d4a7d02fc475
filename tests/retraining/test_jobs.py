"""Jobs: one at a time, asked for once however often, taken over from dead workers and never run by two."""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from lesion.database.storage import Storage
from lesion.database.tables import AuditEntry, Job, Worker, now
from lesion.registry.registry import Registry
from lesion.retraining.jobs import (
    JobError,
    JobNotFoundError,
    JobRunningError,
    JobState,
    RequestInvalidError,
    RetrainRequest,
    cancel,
    job,
    job_view,
    jobs,
    submit,
)
from lesion.retraining.leases import (
    JobCancelledError,
    LeaseLost,
    WorkerHeartbeats,
    WorkerIdentity,
    claim,
    finish,
    record_progress,
    take_over,
)
from lesion.retraining.worker_state import WorkerState, worker_state
from tests.support.bundles.registry_bundles import sealed
from tests.support.images.loop_images import new_storage

REQUEST = RetrainRequest(epochs=3, batch_size=16, learning_rate=0.01)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """A catalogue with a champion."""
    made = new_storage(tmp_path)
    registry = Registry(made)
    registry.deploy_first(registry.register(sealed(tmp_path / "bundle")), "ann", "the first")
    yield made
    made.engine.dispose()


def make_job(storage: Storage) -> str:
    return submit(storage, REQUEST, "ann")[0].id


def deaths(storage: Storage, job_id: str) -> list[dict[str, object]]:
    with storage.session() as session:
        entries = session.scalars(select(AuditEntry).filter_by(subject=job_id, action="job.worker_died"))
        return [entry.detail for entry in entries]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 101),
        ("batch_size", 1),
        ("batch_size", 513),
        ("learning_rate", 0.0),
        ("learning_rate", 1.01),
        ("learning_rate", float("nan")),
    ],
)
def test_what_is_out_of_bounds_is_refused(name: str, value: float) -> None:
    choice: dict[str, Any] = {name: value}
    with pytest.raises(JobError, match=rf"{name}=.* must lie between") as caught:
        RetrainRequest(**choice)
    assert (type(caught.value), caught.value.code) == (RequestInvalidError, "retrain_invalid")


def test_one_job_at_a_time(storage: Storage) -> None:
    first, created = submit(storage, REQUEST, "ann")
    assert created
    assert (first.state, first.stage, first.request["epochs"]) == ("queued", "queued", 3)
    with pytest.raises(JobRunningError, match=first.id) as caught:
        submit(storage, REQUEST, "bob")
    assert (caught.value.code, caught.value.job_id) == ("job_running", first.id)
    cancel(storage, first.id, "ann")
    second, created = submit(storage, REQUEST, "bob")
    assert created
    assert [one.id for one in jobs(storage)] == [second.id, first.id]


def test_the_same_key_gives_the_same_job(storage: Storage) -> None:
    first, _ = submit(storage, REQUEST, "ann", "key")
    again, created = submit(storage, REQUEST, "ann", "key")
    assert (again.id, created) == (first.id, False)
    with pytest.raises(JobError, match="another request before") as caught:
        submit(storage, replace(REQUEST, epochs=4), "ann", "key")
    assert (type(caught.value), caught.value.code) == (RequestInvalidError, "idempotency_key_reused")
    cancel(storage, first.id, "ann")
    assert submit(storage, REQUEST, "ann", "key")[0].state == "cancelled"  # even when it is over
    other, created = submit(storage, REQUEST, "bob", "key")  # a key belongs to who sent it
    assert created
    assert other.id != first.id
    with pytest.raises(JobError, match="1 to 200 are allowed"):
        submit(storage, REQUEST, "ann", "k" * 201)


def test_without_a_champion_there_is_nothing_to_start_from(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="nothing is deployed") as caught:
        submit(new_storage(tmp_path), REQUEST, "ann")
    assert caught.value.code == "no_champion"


def test_a_queued_job_is_cancelled_at_once(storage: Storage) -> None:
    job_id = make_job(storage)
    shown = job_view(cancel(storage, job_id, "bob"))
    assert (shown["state"], shown["reason"], shown["cancel_requested"]) == ("cancelled", "bob cancelled it.", True)
    assert shown["finished_at"] is not None
    assert claim(storage, job_id, "w1") is None
    with pytest.raises(JobError, match="is over") as caught:
        cancel(storage, job_id, "bob")
    assert (type(caught.value), caught.value.code) == (JobError, "job_over")
    with pytest.raises(JobError, match="no retraining") as unknown:
        cancel(storage, "0" * 32, "bob")
    assert type(unknown.value) is JobNotFoundError


def test_a_running_job_learns_that_it_is_cancelled(storage: Storage) -> None:
    job_id = make_job(storage)
    assert claim(storage, job_id, "w1") is not None
    record_progress(storage, job_id, "w1", stage="train", progress=0.25, epoch=1)
    assert job_view(job(storage, job_id))["progress"] == 0.25
    WorkerHeartbeats(storage, WorkerIdentity("w1", "elsewhere", 1)).beat()
    assert cancel(storage, job_id, "bob").state == "running"
    cancel(storage, job_id, "bob")
    with pytest.raises(JobCancelledError, match="bob cancelled it"):
        record_progress(storage, job_id, "w1", progress=0.5)
    finish(storage, job_id, "w1", JobState.CANCELLED, "bob cancelled it.")
    ended = job(storage, job_id)
    assert (ended.state, ended.progress, ended.active, ended.owner) == ("cancelled", 0.25, None, None)


def test_a_cancelled_job_ends_although_its_worker_is_dead(storage: Storage) -> None:
    job_id = make_job(storage)
    claim(storage, job_id, "w1")
    ended = cancel(storage, job_id, "bob")  # no worker is there any more
    assert (ended.state, ended.stage, ended.active, ended.owner) == ("cancelled", "cancelled", None, None)
    assert (ended.reason, ended.finished_at is None) == ("bob cancelled it.", False)
    with pytest.raises(LeaseLost):  # if it was only away
        record_progress(storage, job_id, "w1", progress=0.5)
    assert claim(storage, job_id, "w2") is None
    assert submit(storage, REQUEST, "ann")[1]


def test_a_cancelled_job_ends_when_its_worker_dies_then(storage: Storage) -> None:
    first = make_job(storage)
    claim(storage, first, "w1")
    worker = WorkerHeartbeats(storage, WorkerIdentity("w1", "elsewhere", 1))
    worker.beat()
    assert cancel(storage, first, "bob").state == "running"
    with pytest.raises(JobRunningError):
        submit(storage, REQUEST, "ann")
    silent(storage, "w1", 40)
    assert submit(storage, REQUEST, "ann")[1]
    assert job(storage, first).state == "cancelled"


def silent(storage: Storage, worker: str, seconds: float) -> datetime:
    """Let the last heartbeat of a worker be so long ago."""
    with storage.session() as session:
        row = session.get_one(Worker, worker)
        row.seen_at = now() - timedelta(seconds=seconds)
        return row.seen_at


def test_whether_a_worker_runs_and_since_when_not(storage: Storage) -> None:
    def state() -> WorkerState:
        with storage.session() as session:
            return worker_state(session)

    assert state() == WorkerState(running=False, seen_at=None)
    here, elsewhere = WorkerIdentity.of_this_process(), WorkerIdentity("w2", "elsewhere", 1)
    remote = WorkerHeartbeats(storage, elsewhere)
    remote.beat()
    assert state() == WorkerState(running=True)
    silent(storage, "w2", 20)  # its clock may be behind
    assert state().running
    died = silent(storage, "w2", 31)
    assert state() == WorkerState(running=False, seen_at=died)
    silent(storage, "w2", -31)  # the clock was set back after it died
    assert not state().running
    silent(storage, "w2", 31)
    own = WorkerHeartbeats(storage, here)
    own.beat()
    assert state().running
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    own.leave()
    left = state().seen_at
    assert left is not None
    assert timedelta(0) <= now() - left < timedelta(seconds=20)
    killed = WorkerHeartbeats(storage, replace(here, id="w3", pid=ended.pid))
    killed.beat()
    assert not state().running  # at once, since it ran on this machine


def test_a_worker_that_was_overruled_may_write_nothing(storage: Storage) -> None:
    job_id = make_job(storage)
    claim(storage, job_id, "w1")
    assert take_over(storage, job_id, "w1", "w2") == 1
    with pytest.raises(LeaseLost):
        record_progress(storage, job_id, "w1", progress=0.9)
    with pytest.raises(LeaseLost):
        finish(storage, job_id, "w1", JobState.PROMOTED, "no")
    assert job(storage, job_id).progress == 0
    record_progress(storage, job_id, "w2", progress=0.5)
    finish(storage, job_id, "w2", JobState.REJECTED, "not better")
    finish(storage, job_id, "w1", JobState.FAILED, "too late")  # it is over: nothing happens
    assert (job(storage, job_id).state, job(storage, job_id).progress) == ("rejected", 1.0)


def test_of_two_that_take_over_one_succeeds(storage: Storage) -> None:
    job_id = make_job(storage)
    claim(storage, job_id, "dead")
    assert take_over(storage, job_id, "dead", "w2") == 1
    assert take_over(storage, job_id, "dead", "w3") is None
    assert job(storage, job_id).owner == "w2"


def test_deaths_count_where_they_happen_in_a_row(storage: Storage) -> None:
    job_id = make_job(storage)
    counted = []
    for number, epoch in enumerate((1, 1, 2, 2, 2)):
        claim(storage, job_id, f"w{number}")
        record_progress(storage, job_id, f"w{number}", stage="train", epoch=epoch)
        counted.append(take_over(storage, job_id, f"w{number}", "janitor"))
    assert counted == [1, 2, 1, 2, 3]
    assert deaths(storage, job_id)[0] == {"worker": "w0", "stage": "train", "epoch": 1}


def test_what_a_worker_gives_back_is_no_death(storage: Storage) -> None:
    job_id = make_job(storage)
    me = WorkerIdentity.of_this_process()
    roll = WorkerHeartbeats(storage, me)
    roll.beat()
    claim(storage, job_id, me.id)
    roll.leave()
    assert job(storage, job_id).owner is None
    assert take_over(storage, job_id, None, "w2") == 0
    assert deaths(storage, job_id) == []


def put_worker(storage: Storage, name: str, host: str, pid: int) -> None:
    with storage.session() as session:
        session.merge(Worker(id=name, host=host, pid=pid, seen_at=now()))


def test_a_process_that_is_gone_is_dead_at_once(storage: Storage) -> None:
    me = WorkerIdentity.of_this_process()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    put_worker(storage, "child", me.host, child.pid)
    put_worker(storage, "far", "another machine", child.pid)
    roll = WorkerHeartbeats(storage, me)
    roll.beat()
    assert roll.alive() == {me.id, "child", "far"}
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie: dead, and not waited for yet
    assert roll.alive() == {me.id, "far"}
    child.communicate()
    with storage.session() as session:
        assert set(session.scalars(select(Worker.id))) == {me.id, "far"}


def test_a_silent_worker_is_dead_after_a_while_by_our_own_clock(storage: Storage) -> None:
    roll = WorkerHeartbeats(storage, WorkerIdentity.of_this_process(), silent_s=0.05)
    put_worker(storage, "far", "another machine", 1)
    assert "far" in roll.alive()  # however long ago its row was written
    put_worker(storage, "far", "another machine", 1)
    assert "far" in roll.alive()
    time.sleep(0.06)
    assert "far" not in roll.alive()


def test_of_many_that_submit_at_once_one_gets_a_job(storage: Storage) -> None:
    def ask(number: int) -> tuple[str, str]:
        try:
            return "made", submit(replace(storage), REQUEST, f"asker {number}")[0].id
        except JobRunningError as error:
            return "refused", error.job_id

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(ask, range(8)))
    assert [word for word, _ in answers] == ["made"] + 7 * ["refused"]
    assert len({job_id for _, job_id in answers}) == 1
    with storage.session() as session:
        assert session.scalars(select(Job.active)).all() == [1]


def test_errors_keep_their_code_across_processes() -> None:
    error = pickle.loads(pickle.dumps(JobRunningError("a" * 32)))
    assert isinstance(error, JobRunningError)
    assert (error.code, error.job_id) == ("job_running", "a" * 32)
