"""A worker: runs retrainings, sends heartbeats, and ensures that no job stays with a worker that died."""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import FrameType

from sqlalchemy.exc import SQLAlchemyError

from lesion.catalogue.decisions import delete_dropped
from lesion.catalogue.images import purge_deleted
from lesion.core.errors import ConfigError, LesionError
from lesion.database.storage import Storage
from lesion.database.tables import Job
from lesion.promotion.gate_settings import GateSettings
from lesion.retraining.jobs import JobState, active_job
from lesion.retraining.leases import EXECUTION_SEPARATOR, LeaseLost, WorkerHeartbeats, WorkerIdentity, finish, take_over
from lesion.retraining.schedule import ScheduledRetraining
from lesion.retraining.stages import RetrainSettings, Stages
from lesion.retraining.training_subprocess import DEATHS
from lesion.retraining.workflow import Workflows

logger = logging.getLogger(__name__)

_HEARTBEAT_S, _POLL_S = 2.0, 1.0
_DELETE_S = 3600.0  # how often the pictures of dropped images are looked through
_END_S, _END_POLL_S = 20.0, 0.1  # how long a training may take to end with its worker


class WorkerProcess:
    """The worker of this process; a training script that does not exist is a ConfigError."""

    def __init__(self, storage: Storage, settings: RetrainSettings, gate: GateSettings) -> None:
        if settings.script is not None and not Path(settings.script).is_file():
            raise ConfigError(
                f"retrain.script='{settings.script}' does not exist in {Path.cwd()}. Leave it out to train with "
                "'lesion train', or give the path of a script."
            )
        storage.upgrade()
        self._storage = storage
        self._identity = WorkerIdentity.of_this_process()
        self._heartbeats = WorkerHeartbeats(storage, self._identity, gate=gate)
        self._stages = Stages(storage, settings, gate, self._identity.id)
        self._workflows = Workflows(self._stages)
        self._scheduled = ScheduledRetraining(storage, settings.schedule, gate)
        self._enqueued: set[str] = set()
        self._next_deletion = 0.0

    @property
    def id(self) -> str:
        """The worker's name."""
        return self._identity.id

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, then give back the jobs that are not done."""
        stop = self._stages.stopping
        with _set_on_signals(stop):
            self._heartbeats.beat()
            heartbeat = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            heartbeat.start()
            with _logged("deleted images could not be removed"):
                purge_deleted(self._storage)
            with _logged("the files of earlier jobs could not be removed"):
                self._stages.remove_leftovers()
            self._workflows.launch()
            logger.info("worker %s is ready", self._identity.id)
            try:
                while not stop.wait(_POLL_S):
                    self.poll()
            finally:
                stop.set()
                heartbeat.join(_HEARTBEAT_S)
                self._close()

    def poll(self) -> None:
        """Start or continue jobs, take over those of dead workers, request one that is due, delete dropped images."""
        with _logged("the jobs could not be read"):
            with self._storage.session() as session:
                job = active_job(session)
            if job is not None:
                self._ensure_enqueued(job)
            else:
                self._scheduled.request_if_due()
            alive = self._heartbeats.alive()
            for job_id, worker in self._workflows.pending().items():
                if worker == self.id:
                    self._workflows.resume_idle(job_id)
                elif worker not in alive:
                    self._adopt(job_id, alive)
        if time.monotonic() >= self._next_deletion:
            self._next_deletion = time.monotonic() + _DELETE_S
            with _logged("the pictures of dropped images could not be deleted"):
                delete_dropped(self._storage)

    def _ensure_enqueued(self, job: Job) -> None:
        ended = self._workflows.has_ended(job.id)
        if job.id not in self._enqueued or ended is None:
            self._workflows.enqueue(job.id)
            self._enqueued.add(job.id)
        elif ended:
            self._fail_orphan(job.id)

    def _fail_orphan(self, job_id: str) -> None:
        """End a job whose workflow ended without ending the job."""
        with self._storage.session() as session:
            job = active_job(session)
        if job is None or job.id != job_id:
            return
        if take_over(self._storage, job_id, job.owner, self.id) is not None:
            reason = "It ended without giving a reason; see the worker's log."
            finish(self._storage, job_id, self.id, JobState.FAILED, reason)

    def _adopt(self, job_id: str, alive: set[str]) -> None:
        """Continue a dead worker's job, or end it when worker after worker died in it."""
        with self._storage.session() as session:
            job = session.get(Job, job_id)
        if job is not None and job.active and job.owner != self.id:
            if job.owner is not None and job.owner.split(EXECUTION_SEPARATOR)[0] in alive:  # another one adopts it now
                return
            deaths = take_over(self._storage, job_id, job.owner, self.id)
            if deaths is None:
                return
            event = "was given back" if job.owner is None else "lost its worker"
            logger.warning("%s %s in its stage %s; taking over", job_id, event, job.stage)
            if deaths >= DEATHS:
                reason = f"{deaths} workers in a row died in its stage '{job.stage}', after {job.epoch} epochs."
                finish(self._storage, job_id, self.id, JobState.FAILED, f"{reason} Look for the cause in their logs.")
        self._workflows.resume(job_id)  # the workflow of a job that is over ends at once

    def _beat(self) -> None:
        while not self._stages.stopping.wait(_HEARTBEAT_S):
            with _logged("this worker's heartbeat could not be recorded"):
                self._heartbeats.beat()

    def _close(self) -> None:
        deadline = time.monotonic() + _END_S
        while self._workflows.running and time.monotonic() < deadline:
            time.sleep(_END_POLL_S)
        with _logged("this worker could not sign off"):
            self._heartbeats.leave()
        self._workflows.close()


@contextmanager
def _logged(event: str) -> Iterator[None]:
    """Log an error and continue: a database or store may be away only for a while."""
    try:
        yield
    except LeaseLost:
        pass
    except (SQLAlchemyError, LesionError) as error:
        logger.warning("%s: %s", event, str(error).splitlines()[0])
    except Exception:
        logger.exception("%s", event)


@contextmanager
def _set_on_signals(stop: threading.Event) -> Iterator[None]:
    """Set an event on SIGTERM and SIGINT.

    A thread sets it: a handler interrupts the main thread, which may hold the event's own lock at that moment and would
    wait for itself. What the handler does instead is safe there (``queue.SimpleQueue.put`` is reentrant).
    """
    signals: SimpleQueue[int | None] = SimpleQueue()

    def handle(number: int, frame: FrameType | None) -> None:
        signals.put(number)

    def set_stop() -> None:
        if signals.get() is not None:
            stop.set()

    threading.Thread(target=set_stop, name="signals", daemon=True).start()
    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signals.put(None)
