"""Retrainings from the request to the verdict, by real workers; with a stand-in for what takes long in training."""

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image as Picture
from sqlalchemy import make_url, select

from lesion.catalogue.images import add_image, delete_image
from lesion.catalogue.import_run import import_manifest
from lesion.core.errors import LesionError
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import GateLook, Job, Worker
from lesion.model.bundle_files import BundleFileError
from lesion.model.predictor import Predictor
from lesion.promotion.change_plan import ChangePlan
from lesion.promotion.gate_levels import GateLevels, RecordedLook
from lesion.promotion.gate_settings import GateSettings
from lesion.registry.plan_adoption import adopt, plan_in_force
from lesion.registry.registry import Registry
from lesion.retraining.gate.gate_step import reserve_look
from lesion.retraining.jobs import CHOICES, JobError, cancel, job, submit
from lesion.retraining.leases import (
    JobCancelledError,
    LeaseLost,
    WorkerHeartbeats,
    WorkerIdentity,
    claim,
    take_over,
)
from lesion.retraining.stages import RetrainSettings, Stages, Start
from lesion.retraining.stored_reports import load_report
from lesion.retraining.workflow import system_database
from tests.support.bundles.lamp_bundles import CLASSES, lamp, lamp_picture, lamp_pictures
from tests.support.images.loop_images import new_storage, put_picture, row_of
from tests.support.images.pictures import write
from tests.support.servers.serving import eventually
from tests.support.servers.worker_runs import REQUEST, WorkerRun, actions
from tests.support.training_subprocess import CONFIG, STAND_IN

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """A catalogue of bright and dark pictures, whose champion is always wrong."""
    made = new_storage(tmp_path / "loop")
    snapshot = import_manifest(made, lamp_pictures(tmp_path / "pictures", 30), progress=False)
    registry = Registry(made)
    version = registry.register(lamp(tmp_path / "champion", -0.05, config=CONFIG), snapshot_id=snapshot)
    registry.deploy_first(version, "ann", "the first")
    yield made
    made.engine.dispose()


@pytest.fixture
def work(storage: Storage, tmp_path: Path) -> Iterator[Callable[..., WorkerRun]]:
    """Start workers whose trainings give a model that is always right; ended with the test."""
    lamp(tmp_path / "right", 0.05, config=CONFIG)
    workers: list[WorkerRun] = []

    def start(*overrides: str, **orders: Any) -> WorkerRun:
        workers.append(WorkerRun(storage, STAND_IN, *overrides, **({"bundle": tmp_path / "right"} | orders)))
        return workers[-1]

    yield start
    for worker in workers:
        if worker.process.poll() is None:
            worker.kill()
        print(worker.output())
        worker.log.close()


def until(storage: Storage, job_id: str, *states: str, seconds: float = 90) -> Job:
    """Wait until a job's state or stage is one of these."""

    def there() -> bool:
        found = job(storage, job_id)
        return found.state in states or found.stage in states

    eventually(there, seconds)
    return job(storage, job_id)


@pytest.fixture
def stages(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stages:
    """The stages as the worker ``w1`` runs them, in this process."""
    lamp(tmp_path / "right", 0.05, config=CONFIG)
    monkeypatch.setenv("LESION_STAND_IN", json.dumps({"bundle": str(tmp_path / "right")}))
    return Stages(storage, RetrainSettings(script=STAND_IN), GateSettings(), "w1")


def test_every_stage_may_run_twice(storage: Storage, stages: Stages) -> None:
    job_id = submit(storage, REQUEST, "ann")[0].id
    claim(storage, job_id, "w1")
    begun = stages.begin(job_id)
    assert begun == stages.begin(job_id)
    snapshot = stages.snapshot(job_id)
    assert snapshot == stages.snapshot(job_id) == job_id
    version = stages.train(job_id, begun["parent"], snapshot)
    assert version == stages.train(job_id, begun["parent"], snapshot)
    model = Registry(storage).model(version)
    assert (model.parent, model.snapshot_id, model.job_id) == (begun["parent"], snapshot, job_id)
    outcome = stages.compare(job_id, begun["parent"], version)
    assert outcome == stages.compare(job_id, begun["parent"], version)
    assert outcome["promoted"]
    with storage.session() as session:
        assert [look.number for look in session.scalars(select(GateLook))] == [1]
    assert stages.conclude(job_id, begun["deployment"], version, **outcome) == "promoted"
    assert stages.conclude(job_id, begun["deployment"], version, **outcome) == "promoted"
    assert [row.version for row in Registry(storage).history()] == [begun["parent"], version]
    ended = job(storage, job_id)
    assert (ended.state, ended.progress, ended.epoch, len(ended.metrics)) == ("promoted", 1.0, 3, 3)
    assert ended.verdict is not None
    why, plan = ended.verdict["summary"]["why"], ended.verdict["plan"]["sentence"]
    assert ended.reason == Registry(storage).history()[-1].reason == f"{why} {plan}"
    assert ended.reason.startswith("The new model was promoted, since it was proved better.")
    assert [(rule["generation"], rule["selection"]) for rule in ended.verdict["rules"]] == [(1, "imported")]
    assert ended.verdict["comparisons"][0]["gained"] == len(ended.verdict["comparisons"][0]["changed"]) > 5
    assert not (storage.cache / "jobs" / job_id).exists()
    with storage.session() as session:
        planned = plan_in_force(session)
    assert planned is not None  # the plan of the first comparison
    stated = f"This retraining is inside the change plan {planned.sha256[:12]}."
    assert ended.verdict["plan"] == {"sha256": planned.sha256, "outside": [], "sentence": stated}
    assert stated in load_report(storage, job_id)


def test_what_is_outside_the_change_plan_is_told(storage: Storage, stages: Stages) -> None:
    champion = Registry(storage).champion()
    assert champion is not None
    facts = Registry(storage).model(champion.version).facts
    with storage.session() as session:
        adopt(session, ChangePlan.of(facts, GateSettings(recall_drop=0.04), CHOICES), "bob", "as decided")
    job_id = submit(storage, REQUEST, "ann")[0].id
    claim(storage, job_id, "w1")
    begun = stages.begin(job_id)
    version = stages.train(job_id, begun["parent"], stages.snapshot(job_id))
    outcome = stages.compare(job_id, begun["parent"], version)
    assert outcome["promoted"]  # which is for persons to judge
    verdict = job(storage, job_id).verdict
    assert verdict is not None
    assert verdict["plan"]["outside"] == ["gate.recall_drop is 0.05 and was planned to be 0.04"]
    assert "outside the change plan" in outcome["reason"]
    assert "gate.recall_drop is 0.05 and was planned to be 0.04" in load_report(storage, job_id)


def test_a_report_shows_pictures_as_long_as_they_are_there(storage: Storage, stages: Stages) -> None:
    job_id = submit(storage, REQUEST, "ann")[0].id
    claim(storage, job_id, "w1")
    begun = stages.begin(job_id)
    version = stages.train(job_id, begun["parent"], stages.snapshot(job_id))
    stages.compare(job_id, begun["parent"], version)
    verdict = job(storage, job_id).verdict
    assert verdict is not None
    page = load_report(storage, job_id)
    assert version in page
    whole = page.count("data:image/png;base64,")
    blank = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB"
    assert (whole, page.count(blank)) == (len(verdict["comparisons"][0]["changed"]), 0)
    delete_image(storage, verdict["comparisons"][0]["changed"][0]["sha256"], "ann", "asked for it")
    assert load_report(storage, job_id).count(blank) == 1


def test_the_verdict_has_the_accuracy_with_and_without_images_that_nobody_reviewed(
    storage: Storage, stages: Stages, tmp_path: Path
) -> None:
    """The champion is always wrong and the challenger always right."""
    for number, label, status in ((900, "bright", "accepted"), (901, "dark", "accepted"), (902, "dark", "quarantined")):
        file = tmp_path / f"{number}.png"
        Picture.fromarray(lamp_picture(number)).save(file)
        row = row_of(file, label, split="gate", status=status)
        storage.store.put(image_key(row.sha256), file.read_bytes())
        with storage.session() as session:
            assert add_image(session, row)
    job_id = submit(storage, REQUEST, "ann")[0].id
    claim(storage, job_id, "w1")
    begun = stages.begin(job_id)
    version = stages.train(job_id, begun["parent"], stages.snapshot(job_id))
    stages.compare(job_id, begun["parent"], version)
    verdict = job(storage, job_id).verdict
    assert verdict is not None
    review, decided = verdict["review"], verdict["comparisons"][-1]["images"]
    assert review["reviewed"] == {"images": decided, "champion": 0, "challenger": decided}
    assert review["unreviewed"] == {"images": 0, "champion": 0, "challenger": 0}
    waiting = review["waiting"]
    assert (waiting["champion"], waiting["challenger"]) == (1, waiting["images"] - 1)  # 902 is bright
    assert review["gathered"]["images"] + waiting["images"] == 3
    assert review["accuracy"]["gathered_and_waiting"] == {"champion": 1 / 3, "challenger": 2 / 3}
    assert review["sentences"][0] in load_report(storage, job_id)


def test_each_class_is_compared_with_the_best_model_so_far_too(
    storage: Storage, stages: Stages, tmp_path: Path
) -> None:
    """No challenger was proved better yet, so that is the first champion, which is always wrong."""
    registry = Registry(storage)
    registry.promote(registry.register(lamp(tmp_path / "other", 0.04, config=CONFIG)), "bob", "by hand")
    job_id = submit(storage, REQUEST, "ann")[0].id
    claim(storage, job_id, "w1")
    begun = stages.begin(job_id)
    version = stages.train(job_id, begun["parent"], stages.snapshot(job_id))
    assert not stages.compare(job_id, begun["parent"], version)["promoted"]
    verdict = job(storage, job_id).verdict
    assert verdict is not None
    sentences = {check["name"]: check["sentence"] for check in verdict["checks"]}
    for name in CLASSES:
        assert "(the champion's: 1.000)" in sentences[f"recall/{name}"]
        assert "(the best model so far's: 0.000)" in sentences[f"best_recall/{name}"]
    assert verdict["improved"] == CLASSES


def test_the_champion_stands_for_a_best_model_that_does_not_load(
    storage: Storage, stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers refuse such a champion; the retrainings after it go on."""
    registry = Registry(storage)
    registry.promote(registry.register(lamp(tmp_path / "other", 0.04, config=CONFIG)), "bob", "by hand")
    broken, load = registry.history()[0].version, Predictor.load

    def refuse(folder: Path, **options: Any) -> Predictor:
        if Path(folder).name == broken:
            raise BundleFileError("The bundle's weights do not fit its network.")
        return load(folder, **options)

    monkeypatch.setattr(Predictor, "load", refuse)
    job_id = submit(storage, REQUEST, "ann")[0].id
    claim(storage, job_id, "w1")
    begun = stages.begin(job_id)
    version = stages.train(job_id, begun["parent"], stages.snapshot(job_id))
    stages.compare(job_id, begun["parent"], version)
    verdict = job(storage, job_id).verdict
    assert verdict is not None
    assert not [check["name"] for check in verdict["checks"] if check["name"].startswith("best_recall/")]


def test_images_that_a_server_took_under_wider_limits_are_compared(
    storage: Storage, stages: Stages, tmp_path: Path
) -> None:
    file = write(tmp_path / "tiny.png", 5, side=12)  # smaller than a server takes unless it is told to
    row = row_of(file, CLASSES[0], split="gate", generation=1)
    storage.store.put(image_key(row.sha256), file.read_bytes())
    with storage.session() as session:
        assert add_image(session, row)
    job_id = submit(storage, REQUEST, "ann")[0].id
    claim(storage, job_id, "w1")
    begun = stages.begin(job_id)
    version = stages.train(job_id, begun["parent"], stages.snapshot(job_id))
    assert stages.compare(job_id, begun["parent"], version)["promoted"]
    assert load_report(storage, job_id)


def test_a_champion_that_changed_meanwhile_is_not_replaced(storage: Storage, stages: Stages, tmp_path: Path) -> None:
    job_id = submit(storage, REQUEST, "ann")[0].id
    claim(storage, job_id, "w1")
    begun = stages.begin(job_id)
    version = stages.train(job_id, begun["parent"], stages.snapshot(job_id))
    registry = Registry(storage)
    registry.promote(registry.register(lamp(tmp_path / "other", 0.04)), "bob", "by hand")
    assert stages.conclude(job_id, begun["deployment"], version, True, "better") == "rejected"
    assert "The champion changed meanwhile" in job(storage, job_id).reason
    assert len(registry.history()) == 2


def test_a_job_that_was_taken_stops_at_its_next_word(storage: Storage, stages: Stages) -> None:
    job_id = submit(storage, REQUEST, "ann")[0].id
    claim(storage, job_id, "w1")
    begun = stages.begin(job_id)
    take_over(storage, job_id, "w1", "w2")
    with pytest.raises(LeaseLost):
        stages.snapshot(job_id)
    with pytest.raises(LeaseLost):
        stages.fail(job_id, LesionError("no"))
    assert job(storage, job_id).state == "running"
    assert begun["parent"] == job(storage, job_id).parent


def begin_after_the_budget(storage: Storage, stages: Stages) -> tuple[str, Start]:
    """Use up the error budget of the first generation, and begin a job; return its id and what it begins with."""
    for _ in range(GateLevels().looks_left((), 1)):
        earlier = submit(storage, REQUEST, "ann")[0].id
        assert reserve_look(storage, 1, earlier, GateLevels()) is not None
        cancel(storage, earlier, "ann")
    job_id = submit(storage, REQUEST, "ann")[0].id
    claim(storage, job_id, "w1")
    return job_id, stages.begin(job_id)


def test_nothing_is_trained_that_the_gate_could_not_promote(storage: Storage, stages: Stages) -> None:
    job_id, begun = begin_after_the_budget(storage, stages)
    snapshot = stages.snapshot(job_id)
    with pytest.raises(JobError, match="budget is used up") as caught:
        stages.train(job_id, begun["parent"], snapshot)
    assert caught.value.code == "gate_impossible"
    assert stages.fail(job_id, caught.value) == "failed"
    with storage.session() as session:
        assert session.scalar(select(GateLook).where(GateLook.job_id == job_id)) is None


def test_a_spent_budget_is_called_that_in_the_state_of_the_job(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is told to train all the same."""
    lamp(tmp_path / "right", 0.05, config=CONFIG)
    monkeypatch.setenv("LESION_STAND_IN", json.dumps({"bundle": str(tmp_path / "right")}))
    stages = Stages(storage, RetrainSettings(script=STAND_IN), GateSettings(train_in_vain=True), "w1")
    job_id, begun = begin_after_the_budget(storage, stages)
    version = stages.train(job_id, begun["parent"], stages.snapshot(job_id))
    outcome = stages.compare(job_id, begun["parent"], version)
    assert (outcome["promoted"], outcome["spent"]) == (False, True)
    assert stages.conclude(job_id, begun["deployment"], version, **outcome) == "budget_spent"
    ended = job(storage, job_id)
    assert (ended.state, ended.stage, ended.progress, ended.active) == ("budget_spent", "budget_spent", 1.0, None)
    assert "no error budget left" in ended.reason
    assert "not decided, the budget is used up" in load_report(storage, job_id)
    assert Registry(storage).history()[-1].version == begun["parent"]


def test_looks_are_counted_and_end(storage: Storage) -> None:
    levels, taken = GateLevels(), list[RecordedLook]()
    looks = levels.looks_left((), 1)
    for number in range(looks + 1):
        job_id = submit(storage, REQUEST, "ann")[0].id
        look = reserve_look(storage, 1, job_id, levels)
        again = reserve_look(storage, 1, job_id, levels)
        assert (look is None) == (again is None) == (number == looks)
        if look is not None and again is not None:
            assert (again.id, again.alpha) == (look.id, look.alpha)
            assert (look.number, look.alpha) == (number + 1, levels.next_level(taken, 1))
            taken.append(RecordedLook(1, look.alpha))
        cancel(storage, job_id, "ann")
    assert len(taken) == looks == 17


def test_cancelling_a_training_ends_its_process(
    storage: Storage, stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESION_STAND_IN", json.dumps({"bundle": str(tmp_path / "right"), "epoch_s": 60}))
    job_id = submit(storage, REQUEST, "ann")[0].id
    claim(storage, job_id, "w1")
    WorkerHeartbeats(storage, WorkerIdentity("w1", "elsewhere", 1)).beat()
    begun, snapshot = stages.begin(job_id), stages.snapshot(job_id)
    starts = storage.cache / "jobs" / job_id / "run" / "starts.txt"
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(stages.train, job_id, begun["parent"], snapshot)
        eventually(lambda: starts.is_file() and starts.read_text())
        pid = int(starts.read_text().split()[0])
        cancel(storage, job_id, "bob")
        with pytest.raises(JobCancelledError, match="bob cancelled it") as caught:
            training.result(20)
    assert stages.fail(job_id, caught.value) == "cancelled"
    assert not psutil.pid_exists(pid)


def test_from_the_request_to_the_promotion(storage: Storage, work: Callable[..., WorkerRun]) -> None:
    worker = work()
    first = submit(storage, REQUEST, "ann")[0].id
    assert until(storage, first, "promoted", "failed", "rejected").state == "promoted", worker.output()
    champion = Registry(storage).champion()
    assert champion is not None
    assert (champion.actor, champion.job_id) == ("gate", first)
    second = submit(storage, REQUEST, "ann")[0].id  # the same model again: no better, and the queue is free
    assert until(storage, second, "promoted", "failed", "rejected").state == "rejected", worker.output()
    assert worker.stop() == 0
    with storage.session() as session:
        assert session.scalars(select(Worker)).all() == []


@pytest.mark.parametrize("stage", ["snapshot", "train", "gate", "promote"])
def test_a_killed_worker_s_job_is_run_to_its_end_by_another(
    storage: Storage, work: Callable[..., WorkerRun], stage: str
) -> None:
    first = work(epoch_s=0.5)
    job_id = submit(storage, REQUEST, "ann")[0].id
    until(storage, job_id, stage, "promoted")
    if stage == "train":
        eventually(lambda: job(storage, job_id).epoch >= 1)
    first.kill()
    second = work()
    assert until(storage, job_id, "promoted", "failed", "rejected").state == "promoted", second.output()
    assert [row.job_id for row in Registry(storage).history()] == [None, job_id]
    with storage.session() as session:
        assert [look.number for look in session.scalars(select(GateLook))] == [1]
    third = submit(storage, REQUEST, "ann")[0].id  # the queue is free again
    assert until(storage, third, "rejected", "failed").state == "rejected", second.output()
    if stage == "train":
        assert actions(storage, job_id) == ["job.submitted", "job.worker_died", "job.promoted"]


def test_a_worker_that_is_asked_to_end_hands_its_job_on(storage: Storage, work: Callable[..., WorkerRun]) -> None:
    first = work(epoch_s=60)
    job_id = submit(storage, REQUEST, "ann")[0].id
    until(storage, job_id, "train")
    starts = storage.cache / "jobs" / job_id / "run" / "starts.txt"
    eventually(lambda: starts.is_file() and starts.read_text())
    assert first.stop() == 0
    assert not psutil.pid_exists(int(starts.read_text().split()[0]))
    assert job(storage, job_id).state == "running"
    second = work()
    assert until(storage, job_id, "promoted", "failed").state == "promoted", second.output()
    assert actions(storage, job_id) == ["job.submitted", "job.promoted"]  # nobody died


def test_a_job_that_workers_keep_dying_of_fails(storage: Storage, work: Callable[..., WorkerRun]) -> None:
    job_id = submit(storage, REQUEST, "ann")[0].id
    starts = storage.cache / "jobs" / job_id / "run" / "starts.txt"
    for number in range(1, 4):
        worker = work(epoch_s=60)
        eventually(lambda count=number: starts.is_file() and len(starts.read_text().splitlines()) == count, 90)
        worker.kill()
    last = work()
    ended = until(storage, job_id, "failed", "promoted")
    assert ended.state == "failed", last.output()
    assert "3 workers in a row died in its stage 'train'" in ended.reason
    next_one = submit(storage, REQUEST, "ann")[0].id
    assert until(storage, next_one, "promoted", "failed").state == "promoted", last.output()


def freeze(process: subprocess.Popen[bytes], storage: Storage) -> None:
    """Stop a process at a moment when it holds no lock of SQLite's, which nobody could take from it."""
    databases = [make_url(url).database for url in (storage.database, system_database(storage))]
    for _ in range(50):
        process.send_signal(signal.SIGSTOP)
        try:
            for database in databases:
                assert database is not None
                with closing(sqlite3.connect(database, timeout=1)) as connection:
                    connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError:
            process.send_signal(signal.SIGCONT)
            time.sleep(0.1)
    raise AssertionError("the worker held a lock whenever it was looked at")


def test_two_workers_run_a_job_once_and_a_frozen_one_is_overruled(
    storage: Storage, work: Callable[..., WorkerRun]
) -> None:
    both = [work(epoch_s=6), work(epoch_s=6)]
    job_id = submit(storage, REQUEST, "ann")[0].id
    until(storage, job_id, "train")
    owner = job(storage, job_id).owner or ""
    frozen = next(one for one in both if f"-{one.process.pid}-" in owner)
    freeze(frozen.process, storage)
    for child in psutil.Process(frozen.process.pid).children(recursive=True):
        child.kill()  # on another machine its lock would not be in the way
    eventually(lambda: job(storage, job_id).owner != owner, 120)
    frozen.process.send_signal(signal.SIGCONT)
    ended = until(storage, job_id, "promoted", "failed")
    assert ended.state == "promoted", ended.reason
    assert [row.job_id for row in Registry(storage).history()] == [None, job_id]
    assert actions(storage, job_id).count("job.worker_died") == 1
    assert frozen.stop() == 0


def test_a_schedule_retrains_when_enough_new_images_wait(storage: Storage, work: Callable[..., WorkerRun]) -> None:
    for seed in (901, 902, 903):
        put_picture(storage, storage.cache / "new", seed, CLASSES[0])
    worker = work("retrain.schedule.new_images=3", "retrain.schedule.request.epochs=2")

    def submitted() -> list[Job]:
        with storage.session() as session:
            return list(session.scalars(select(Job)))

    eventually(submitted, 60)
    found = submitted()[0]
    assert (found.requested_by, found.request["epochs"]) == ("schedule", 2)
    assert until(storage, found.id, "promoted", "failed").state == "promoted", worker.output()
    assert len(submitted()) == 1  # what it trained on is not new any more
