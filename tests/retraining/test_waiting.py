"""A job whose disk is full, or whose database is locked, waits and then goes on; real workers on a small disk."""

import errno
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import IntegrityError, InternalError, OperationalError

from lesion.catalogue.import_run import import_manifest
from lesion.core.errors import LesionError
from lesion.database.object_store import ObjectNotFoundError, StoreContentError, StoreError, StoreFullError
from lesion.database.storage import Storage
from lesion.promotion.gate_settings import GateSettings
from lesion.registry.registry import Registry
from lesion.retraining.jobs import job, submit
from lesion.retraining.leases import claim
from lesion.retraining.patience import Patience, may_pass
from lesion.retraining.stages import RetrainSettings, Stages
from lesion.retraining.workflow import system_database
from tests.support.bundles.lamp_bundles import lamp, lamp_pictures
from tests.support.images.loop_images import new_storage
from tests.support.servers.serving import eventually
from tests.support.servers.worker_runs import REQUEST, WorkerRun, actions
from tests.support.small_disk import SmallDisk
from tests.support.training_subprocess import CONFIG, STAND_IN

FULL_S = 20.0  # longer than the pauses between attempts
PATIENCE_S = 120.0  # these tests share their machine with others


@pytest.fixture
def storage(disk: SmallDisk, tmp_path: Path) -> Iterator[Storage]:
    """On the small disk, a catalogue whose champion is always wrong."""
    made = new_storage(disk.folder / "loop")
    snapshot = import_manifest(made, lamp_pictures(tmp_path / "pictures", 30), progress=False)
    version = Registry(made).register(lamp(tmp_path / "champion", -0.05, config=CONFIG), snapshot_id=snapshot)
    Registry(made).deploy_first(version, "ann", "the first")
    yield made
    made.engine.dispose()


@pytest.fixture
def worker(storage: Storage, tmp_path: Path) -> Iterator[WorkerRun]:
    """A worker whose trainings give a model that is always right, after an epoch that waits for the file ``train``."""
    waits = {"epoch 1": str(tmp_path / "train")}
    run = WorkerRun(storage, STAND_IN, bundle=lamp(tmp_path / "right", 0.05, config=CONFIG), waits=waits)
    eventually(lambda: "is ready" in run.output(), PATIENCE_S)
    yield run
    if run.process.poll() is None:
        run.kill()
    print(run.output())
    run.log.close()


def state(storage: Storage, job_id: str) -> tuple[str, str]:
    found = job(storage, job_id)
    return found.state, found.stage


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "fill"),
    [
        ("queued", SmallDisk.fill_inodes),
        ("snapshot", SmallDisk.fill),
        pytest.param("train", SmallDisk.fill, marks=pytest.mark.long),
        pytest.param("train", SmallDisk.fill_inodes, marks=pytest.mark.long),
    ],
)
def test_a_job_goes_on_when_there_is_room_again(
    storage: Storage, worker: WorkerRun, disk: SmallDisk, tmp_path: Path, moment: str, fill: Callable[[SmallDisk], None]
) -> None:
    if moment != "train":
        (tmp_path / "train").touch()
    job_id = submit(storage, REQUEST, "ann")[0].id
    if moment == "snapshot":
        eventually(lambda: state(storage, job_id) != ("queued", "queued"), PATIENCE_S)
    elif moment == "train":
        eventually(lambda: job(storage, job_id).epoch == 1, PATIENCE_S)
    fill(disk)
    (tmp_path / "train").touch()
    time.sleep(FULL_S)
    disk.free()
    eventually(lambda: job(storage, job_id).active is None, PATIENCE_S)
    ended = job(storage, job_id)
    assert ended.state == "promoted", ended.reason
    assert [row.job_id for row in Registry(storage).history()] == [None, job_id]
    assert actions(storage, job_id) == ["job.submitted", "job.promoted"]
    following = submit(storage, REQUEST, "ann")[0].id
    eventually(lambda: job(storage, following).state == "rejected", PATIENCE_S)
    assert worker.stop() == 0


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ["catalogue", "workflows"])
def test_a_job_goes_on_when_its_database_is_unlocked(
    storage: Storage, worker: WorkerRun, tmp_path: Path, name: str
) -> None:
    url = storage.database if name == "catalogue" else system_database(storage)
    job_id = submit(storage, REQUEST, "ann")[0].id
    eventually(lambda: job(storage, job_id).epoch == 1, PATIENCE_S)
    with closing(sqlite3.connect(str(make_url(url).database), timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        (tmp_path / "train").touch()
        time.sleep(35)  # longer than a writer waits
        assert state(storage, job_id)[0] == "running"
    eventually(lambda: job(storage, job_id).active is None, PATIENCE_S)
    assert job(storage, job_id).state == "promoted", job(storage, job_id).reason
    assert worker.stop() == 0


@pytest.mark.slow
def test_a_job_whose_store_keeps_failing_fails_with_the_reason_and_can_be_asked_for_again(
    storage: Storage, disk: SmallDisk, tmp_path: Path
) -> None:
    right = lamp(tmp_path / "right", 0.05, config=CONFIG)
    worker = WorkerRun(storage, STAND_IN, "retrain.patience_s=1", bundle=right, waits={"start": str(tmp_path / "go")})
    try:
        job_id = submit(storage, REQUEST, "ann")[0].id
        eventually(lambda: state(storage, job_id) == ("running", "train"), PATIENCE_S)
        jobs = storage.cache / "jobs" / job_id
        eventually((jobs / "train.log").is_file, PATIENCE_S)
        (storage.cache.parent / "files" / "bundles").rename(storage.cache.parent / "elsewhere")
        (storage.cache.parent / "files" / "bundles").touch()  # nothing can be stored there, but the database has room
        (tmp_path / "go").touch()
        eventually(lambda: job(storage, job_id).active is None, PATIENCE_S)
        assert job(storage, job_id).state == "failed"
        assert "could not be" in job(storage, job_id).reason
        (storage.cache.parent / "files" / "bundles").unlink()
        (storage.cache.parent / "elsewhere").rename(storage.cache.parent / "files" / "bundles")
        again = submit(storage, REQUEST, "ann")[0].id
        eventually(lambda: job(storage, again).active is None, PATIENCE_S)
        assert job(storage, again).state == "promoted", job(storage, again).reason
        assert worker.stop() == 0
    finally:
        if worker.process.poll() is None:
            worker.kill()
        print(worker.output())
        worker.log.close()


@pytest.mark.slow
@pytest.mark.parametrize("unmounted", [True, False])
def test_a_training_that_failed_since_its_images_were_away_is_repeated(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unmounted: bool
) -> None:
    files, away = Path(storage.files), Path(storage.files).with_name("away")
    script = tmp_path / "fails.py"
    script.write_text(
        f"import os, sys\nif {unmounted}:\n    os.rename({str(files)!r}, {str(away)!r})\n    os.mkdir({str(files)!r})\n"
        "sys.exit('no picture')\n"
    )
    job_id = submit(storage, REQUEST, "ann")[0].id
    claim(storage, job_id, "w1")
    stages = Stages(storage, RetrainSettings(script=script), GateSettings(), "w1")
    parent, snapshot = stages.begin(job_id)["parent"], stages.snapshot(job_id)
    with pytest.raises(LesionError) as caught:
        stages.train(job_id, parent, snapshot)
    assert (caught.value.code, may_pass(caught.value)) == (
        ("store_unmounted", True) if unmounted else ("training_failed", False)
    )
    if unmounted:
        files.rmdir()  # fails if something was written to it
        away.rename(files)
    right = lamp(tmp_path / "right", 0.05, config=CONFIG)
    monkeypatch.setenv("LESION_STAND_IN", json.dumps({"bundle": str(right)}))
    stages = Stages(storage, RetrainSettings(script=STAND_IN), GateSettings(), "w1")
    assert Registry(storage).model(stages.train(job_id, parent, snapshot)).job_id == job_id


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OperationalError("x", {}, sqlite3.OperationalError("database or disk is full")), True),
        (OperationalError("x", {}, sqlite3.OperationalError("attempt to write a readonly database")), True),
        (InternalError("x", {}, Exception("cannot execute UPDATE in a read-only transaction")), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EROFS, "Read-only file system"), True),
        (StoreError("It does not answer."), True),
        (StoreFullError("It is full."), True),
        (OSError(errno.ENOENT, "No such file or directory"), False),
        (ObjectNotFoundError("It is gone."), False),
        (StoreContentError("It is another store."), False),
        (IntegrityError("x", {}, Exception("UNIQUE constraint failed")), False),
        (LesionError("No."), False),
        (KeyError("x"), False),
    ],
)
def test_only_what_may_pass_is_waited_for(error: Exception, passes: bool) -> None:
    assert may_pass(error) == passes
    assert Patience(60.0).allows_retry("job", error) == passes


def test_patience_ends_and_begins_again_after_a_success() -> None:
    patience, away = Patience(0.2), StoreError("It does not answer.")
    assert patience.allows_retry("job", away)
    time.sleep(0.25)
    assert not patience.allows_retry("job", away)
    assert patience.allows_retry("another", away)
    patience.note_success("job")
    assert patience.allows_retry("job", away)
