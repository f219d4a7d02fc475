"""The stages of a retraining. Each stage may run again after a crash, and then changes nothing a second time."""

import copy
import logging
import shutil
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from omegaconf import OmegaConf
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from lesion.catalogue.images import PIXEL_FOLDER
from lesion.catalogue.snapshot_store import image_root, materialise
from lesion.catalogue.snapshots import take_snapshot
from lesion.core.commands import CONFIGS, lesion_command
from lesion.core.errors import LesionError
from lesion.database.storage import Storage
from lesion.database.tables import Deployment, Job, ModelVersion, Snapshot
from lesion.model.bundle import Bundle
from lesion.promotion.gate_settings import GateSettings
from lesion.registry.deployments import RegistryError
from lesion.registry.registry import Registry
from lesion.retraining.checkpoints import Checkpoints
from lesion.retraining.estimate import check_provable
from lesion.retraining.gate.gate_step import compare
from lesion.retraining.jobs import JobError, JobState, RetrainRequest, job
from lesion.retraining.label_check.doubtful_labels import check_labels
from lesion.retraining.leases import EXECUTION_SEPARATOR, JobCancelledError, LeaseLost, finish, record_progress
from lesion.retraining.patience import JobPaused, Patience
from lesion.retraining.recipe import RunPaths, recipe
from lesion.retraining.training_subprocess import Progress, TrainingProcess

logger = logging.getLogger(__name__)

_EVALUATION = CONFIGS / "evaluation" / "default.yaml"
_RETRY_S = 1.0
# The progress of the whole job at the start of each stage.
_SNAPSHOT, _TRAIN, _EVALUATE, _REGISTER, _GATE, _PROMOTE = 0.01, 0.05, 0.85, 0.92, 0.93, 0.99


@dataclass(frozen=True)
class Schedule:
    """Retraining without a request."""

    new_images: int = 0  # retrain as soon as this many new training images wait; 0 for never
    request: RetrainRequest = field(default_factory=RetrainRequest)


@dataclass(frozen=True)
class RetrainSettings:
    """How a worker retrains."""

    # A Python script that trains in place of ``lesion train``, with the same arguments.
    script: str | Path | None = None
    # Settings of this machine, which override the champion's ``trainer`` section: ``accelerator``.
    trainer: Mapping[str, Any] = field(default_factory=dict)
    # How many weights on the way from the champion's to the trained ones are tried, of which the best on the validation
    # split are kept; the trained ones if None. See ``lesion.training.interpolation``.
    interpolation_steps: int | None = None
    nice: int = 10  # how much lower the priority of a training is than that of other processes, such as a server
    threads: int | None = None  # CPU threads of training; torch's own choice if None
    patience_s: float = 600.0  # how long a job waits for a database, store or disk that fails, before it fails itself
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def command(self) -> Sequence[str]:
        """The command that trains."""
        return lesion_command("train") if self.script is None else [sys.executable, str(Path(self.script).absolute())]


class Start(TypedDict):
    """The champion that a challenger starts from: its version and the id of its deployment."""

    parent: str
    deployment: int


class Outcome(TypedDict):
    """What the gate decided, and why."""

    promoted: bool
    reason: str
    spent: bool  # whether it could not decide, since the budget of its images is used up


class Stages:
    """The stages of retrainings, run by one worker, or by one of its executions: ``worker`` is its id."""

    def __init__(self, storage: Storage, settings: RetrainSettings, gate: GateSettings, worker: str) -> None:
        self.storage = storage
        self.worker = worker
        self.stopping = threading.Event()  # this worker ends: stop, so that another one continues
        self.patience = Patience(settings.patience_s)
        self._settings = settings
        self._gate = gate
        self._registry = Registry(storage)

    def execution(self) -> "Stages":
        """Return the stages for one execution of one job, with an id of its own.

        A worker may lose a job and get it back: its first execution must then not continue.
        """
        stages = copy.copy(self)
        stages.worker = f"{self.worker}{EXECUTION_SEPARATOR}{uuid.uuid4().hex[:8]}"
        return stages

    def report_progress(self, job_id: str, **values: Any) -> None:  # noqa: ANN401 - columns of Job
        """Set the job's columns; see :func:`lesion.retraining.leases.record_progress` for the errors."""
        if self.stopping.is_set():
            raise LeaseLost(job_id)
        record_progress(self.storage, job_id, self.worker, **values)

    def attempt(self, job_id: str, stage: Callable[..., Any], *arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        """Run a stage with its arguments; if that fails for now, raise JobPaused."""
        try:
            result = stage(job_id, *arguments, **named)
        except Exception as error:
            self._check_may_wait(job_id, error)
            raise JobPaused(job_id) from error
        self.patience.note_success(job_id)
        return result

    def begin(self, job_id: str) -> Start:
        """Record what the challenger starts from and is compared with: the champion of this moment."""
        champion = self._registry.champion()
        if champion is None:
            raise JobError("There is no model to retrain from: nothing is deployed.", code="no_champion")
        self.report_progress(job_id, stage="snapshot", progress=_SNAPSHOT, parent=champion.version)
        return Start(parent=champion.version, deployment=champion.id)

    def snapshot(self, job_id: str) -> str:
        """Check the labels of new uploads, and record what the challenger is trained on; return the snapshot's id."""
        self.report_progress(job_id, stage="snapshot")
        with self.storage.session() as session:
            taken = session.get(Snapshot, job_id) is not None
        if not taken:
            champion = self._registry.fetch(str(job(self.storage, job_id).parent))
            check_labels(self.storage, job_id, champion, lambda: self.report_progress(job_id))
        snapshot = take_snapshot(self.storage, job_id, self._gate.renew_images, lambda save: self._repeat(job_id, save))
        self.report_progress(job_id, snapshot_id=snapshot.id, stage="train", progress=_TRAIN)
        return snapshot.id

    def train(self, job_id: str, parent: str, snapshot_id: str) -> str:
        """Train, calibrate and evaluate, and store the bundle; return the challenger's version.

        It continues from the last checkpoint, which may be another worker's. If it fails while the folder of its images
        is not mounted, that is a StoreError. If the gate could not promote any challenger, nothing is trained, and a
        JobError tells why (``gate_impossible``).
        """
        with self.storage.session() as session:
            version = session.scalar(select(ModelVersion.version).where(ModelVersion.job_id == job_id))
        if version is not None:
            return version
        self.report_progress(job_id, stage="train")
        check_provable(self.storage, self._gate)
        training = self._training(job_id, parent, snapshot_id)
        checkpoints, epoch = self._checkpoints(job_id), job(self.storage, job_id).epoch
        if training.progress().epoch < epoch:
            checkpoints.fetch(epoch)

        def report_training(progress: Progress) -> None:
            checkpoints.save(progress.epoch)  # first: a training can continue from any epoch that is reported
            self._report_training(job_id, progress)

        try:
            bundle = training.run(report_training)
        except JobError:
            self.storage.store.check_mounted()  # without its images a training fails, and may be repeated
            raise
        self._report_training(job_id, training.progress())
        self.report_progress(job_id, stage="register", progress=_REGISTER, seconds_left=None)
        return self._registry.register(bundle, parent=parent, snapshot_id=snapshot_id, job_id=job_id, actor="retrain")

    def compare(self, job_id: str, parent: str, version: str) -> Outcome:
        """Let the gate decide between the challenger and the champion."""
        self.report_progress(job_id, stage="gate", progress=_GATE, version=version)
        folders = self._registry.fetch(parent), self._registry.fetch(version)
        verdict = compare(self.storage, job_id, folders, self._gate, lambda: self.report_progress(job_id))
        self.report_progress(job_id, verdict=verdict.to_json(), progress=_PROMOTE)
        reason = f"{verdict.summary.why} {verdict.plan.sentence}" if verdict.plan else verdict.summary.why
        return Outcome(promoted=bool(verdict.promoted), reason=reason, spent=verdict.spent)

    def conclude(
        self, job_id: str, deployment: int, version: str, promoted: bool, reason: str, spent: bool = False
    ) -> str:
        """Promote or reject the challenger and end the job; return the job's last state."""
        with self.storage.session() as session:
            concluded = session.scalar(select(Deployment.id).where(Deployment.job_id == job_id))
        if concluded is None:
            self.report_progress(job_id, stage="promote")
            if promoted:
                try:
                    self._registry.promote(version, "gate", reason, job_id=job_id, expected=deployment)
                except RegistryError as error:
                    promoted, reason = False, f"It passed the gate and was not promoted: {error.message}"
        refused = JobState.BUDGET_SPENT if spent else JobState.REJECTED
        return self._end(job_id, JobState.PROMOTED if promoted else refused, reason)

    def fail(self, job_id: str, error: LesionError) -> str:
        """End a job that cannot continue; return its last state."""
        cancelled = isinstance(error, JobCancelledError)
        return self._end(job_id, JobState.CANCELLED if cancelled else JobState.FAILED, error.message)

    def remove_checkpoints(self, job_id: str) -> None:
        """Remove what a job would have continued from, which was ended without its worker."""
        self._checkpoints(job_id).delete()

    def remove_leftovers(self) -> None:
        """Remove the files on this disk of jobs that a worker on another machine has ended."""
        for folder in (self.storage.cache / "jobs").glob("*"):
            with self.storage.session() as session:
                job = session.get(Job, folder.name)
            if job is not None and job.active is None and job.state != JobState.FAILED:
                shutil.rmtree(folder, ignore_errors=True)

    def _repeat(self, job_id: str, save: Callable[[], None]) -> None:
        """Save what took long to compute, again and again while the database or the store fails."""
        while True:
            try:
                return save()
            except Exception as error:
                self._check_may_wait(job_id, error)
            if self.stopping.wait(_RETRY_S):
                raise LeaseLost(job_id)

    def _check_may_wait(self, job_id: str, error: Exception) -> None:
        """Log a failure that may pass; raise any other one, and one that has lasted too long."""
        if not self.patience.allows_retry(job_id, error):
            raise error
        logger.warning("%s waits: %s", job_id, str(error).splitlines()[0])

    def _end(self, job_id: str, state: JobState, reason: str) -> str:
        finish(self.storage, job_id, self.worker, state, reason)
        if state != JobState.FAILED:  # the files of a failed job stay, for a person to look at
            shutil.rmtree(self._folder(job_id), ignore_errors=True)
        self._checkpoints(job_id).delete()
        return state.value

    def _folder(self, job_id: str) -> Path:
        return self.storage.cache.absolute() / "jobs" / job_id

    def _checkpoints(self, job_id: str) -> Checkpoints:
        return Checkpoints(self.storage.store, job_id, self._folder(job_id) / "run")

    def _training(self, job_id: str, parent: str, snapshot_id: str) -> TrainingProcess:
        """Bring everything that the training needs to this machine."""
        settings, folder = self._settings, self._folder(job_id)
        folder.mkdir(parents=True, exist_ok=True)
        paths = RunPaths(
            manifest=materialise(self.storage, snapshot_id, folder / "data"),
            images=image_root(self.storage).absolute(),
            output=folder / "run",
            cache=self.storage.cache.absolute() / PIXEL_FOLDER,
        )
        champion = Bundle.open(self._registry.fetch(parent))
        request = RetrainRequest(**job(self.storage, job_id).request)
        evaluation: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(_EVALUATION))  # type: ignore[assignment]
        config = recipe(champion, request, paths, settings.trainer, evaluation, settings.interpolation_steps)
        return TrainingProcess(folder, config, settings.command, settings.nice, settings.threads)

    def _report_training(self, job_id: str, progress: Progress) -> None:
        training = progress.phase == "train"
        try:
            self.report_progress(
                job_id,
                stage="train" if training else "evaluate",
                progress=_TRAIN + (_EVALUATE - _TRAIN) * progress.share,
                epoch=progress.epoch,
                seconds_left=progress.seconds_left if training else None,
                metrics=[dict(row) for row in progress.metrics],
            )
        except SQLAlchemyError as error:  # a database that is away for a while is no reason to stop training
            logger.warning("the progress of %s could not be recorded: %s", job_id, str(error).splitlines()[0])
