"""A worker: takes up retrainings, says that it lives, and sees that no job is left with a worker that died."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from types import FrameType

from sqlalchemy.exc import SQLAlchemyError

from lesion.catalogue.images import purge_deleted
from lesion.core.errors import ConfigError, LesionError
from lesion.database.storage import Storage
from lesion.database.tables import Job
from lesion.promotion.gate import GateSettings
from lesion.retraining.jobs import JobError, active_job, submit
from lesion.retraining.leases import EXECUTION, Identity, JobTaken, WorkerHeartbeats, finish, take_over
from lesion.retraining.schedule import retraining_due
from lesion.retraining.stages import RetrainSettings, Stages
from lesion.retraining.training_subprocess import DEATHS
from lesion.retraining.workflow import Workflows

logger = logging.getLogger(__name__)

_BEAT_S, _LOOK_S = 2.0, 1.0
_END_S = 20.0  # how long a training may take to end with its worker


class WorkerProcess:
    """The worker of this process.

    Args:
        storage: Where the loop keeps its state.
        settings: How to retrain.
        gate: When to promote.

    Raises:
        ConfigError: The training script is not there.
    """

    def __init__(self, storage: Storage, settings: RetrainSettings, gate: GateSettings) -> None:
        if not settings.script.is_file():
            raise ConfigError(
                f"retrain.script='{settings.script}' does not exist in {os.getcwd()}. Start the worker in the "  # noqa: PTH109
                "repository's folder, or give the path of scripts/train.py."
            )
        storage.upgrade()
        self._storage = storage
        self._settings = settings
        self._me = Identity.of_this_process()
        self._roll = WorkerHeartbeats(storage, self._me)
        self._stages = Stages(storage, settings, gate, self._me.id)
        self._workflows = Workflows(self._stages)
        self._enqueued: set[str] = set()

    @property
    def id(self) -> str:
        """The worker's name."""
        return self._me.id

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, then give back what is at hand."""
        stop = self._stages.stopping
        with _on_signals(stop):
            self._roll.beat()
            beat = threading.Thread(target=self._beat, name="beat", daemon=True)
            beat.start()
            with _logged("images that were deleted could not be removed"):
                purge_deleted(self._storage)
            with _logged("what earlier jobs left could not be removed"):
                self._stages.tidy()
            self._workflows.launch()
            logger.info("worker %s is ready", self._me.id)
            try:
                while not stop.wait(_LOOK_S):
                    self.look()
            finally:
                stop.set()
                beat.join(_BEAT_S)
                self._finish()

    def look(self) -> None:
        """Take up what is new, take over what was left, and ask for a retraining when it is due."""
        with _logged("the jobs could not be looked at"):
            with self._storage.session() as session:
                job = active_job(session)
            if job is not None:
                self._take_up(job)
            elif self._settings.schedule.new_images:
                self._schedule()
            alive = self._roll.alive()
            for job_id in self._workflows.orphans(alive):
                self._adopt(job_id, alive)

    def _take_up(self, job: Job) -> None:
        if job.id not in self._enqueued or not self._workflows.known(job.id):
            self._workflows.enqueue(job.id)
            self._enqueued.add(job.id)
        elif self._workflows.over(job.id):
            self._fail_orphan(job.id)

    def _fail_orphan(self, job_id: str) -> None:
        """End a job whose workflow ended without a word."""
        with self._storage.session() as session:
            job = active_job(session)
        if job is None or job.id != job_id:
            return
        if take_over(self._storage, job_id, job.owner, self._me.id) is not None:
            finish(self._storage, job_id, self._me.id, "failed", "It ended without saying why; see the worker's log.")

    def _adopt(self, job_id: str, alive: set[str]) -> None:
        """Have a dead worker's job run on, or end it when workers keep dying of it."""
        with self._storage.session() as session:
            job = session.get(Job, job_id)
        if job is not None and job.active and job.owner != self._me.id:
            if job.owner is not None and job.owner.split(EXECUTION)[0] in alive:  # another one is about to do this
                return
            deaths = take_over(self._storage, job_id, job.owner, self._me.id)
            if deaths is None:
                return
            what = "was handed on" if job.owner is None else "lost its worker"
            logger.warning("%s %s in its stage %s; taking over", job_id, what, job.stage)
            if deaths >= DEATHS:
                reason = f"{deaths} workers in a row died in its stage '{job.stage}', after {job.epoch} epochs."
                finish(self._storage, job_id, self._me.id, "failed", f"{reason} Look for the cause in their logs.")
        self._workflows.resume(job_id)  # one that is over ends at once

    def _schedule(self) -> None:
        schedule = self._settings.schedule
        with self._storage.session() as session:
            if not retraining_due(session, schedule.new_images):
                return
        with suppress(JobError):  # somebody else was first, or nothing is deployed
            job, _ = submit(self._storage, schedule.request, "schedule")
            logger.info("retraining %s is due: %d new images wait", job.id, schedule.new_images)

    def _beat(self) -> None:
        while not self._stages.stopping.wait(_BEAT_S):
            with _logged("this worker could not say that it lives"):
                self._roll.beat()

    def _finish(self) -> None:
        waited = threading.Event()
        for _ in range(int(_END_S / 0.1)):
            if not self._workflows.running:
                break
            waited.wait(0.1)
        with _logged("this worker could not take its leave"):
            self._roll.leave()
        self._workflows.close()


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Go on after an error that may pass: a database or store that is away for a while."""
    try:
        yield
    except JobTaken:
        pass
    except (SQLAlchemyError, LesionError) as error:
        logger.warning("%s: %s", what, str(error).splitlines()[0])
    except Exception:
        logger.exception("%s", what)


@contextmanager
def _on_signals(stop: threading.Event) -> Iterator[None]:
    """Set an event on SIGTERM and SIGINT.

    A thread sets it: a handler runs in the middle of the main thread, which may hold the event's own lock just then and
    would wait for itself. What the handler does instead is safe there (``queue.SimpleQueue.put`` is reentrant).
    """
    arrived: SimpleQueue[int | None] = SimpleQueue()

    def handle(number: int, frame: FrameType | None) -> None:
        arrived.put(number)

    def tell() -> None:
        if arrived.get() is not None:
            stop.set()

    threading.Thread(target=tell, name="signals", daemon=True).start()
    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        arrived.put(None)
