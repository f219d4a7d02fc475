"""What a retraining does, stage by stage. Each stage may be run again after a crash and then changes nothing twice."""

import copy
import logging
import shutil
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from lesion.catalogue.images import PIXELS
from lesion.catalogue.snapshots import image_root, materialise, take_snapshot
from lesion.database.storage import Storage
from lesion.database.tables import Deployment, Job, ModelVersion
from lesion.model.bundle import Bundle
from lesion.promotion.gate import GateSettings
from lesion.registry.deployments import RegistryError
from lesion.registry.registry import Registry
from lesion.retraining.checkpoints import Checkpoints
from lesion.retraining.gate_step import compare
from lesion.retraining.jobs import JobError, RetrainRequest, job
from lesion.retraining.leases import EXECUTION, JobTaken, finish, report
from lesion.retraining.recipe import recipe
from lesion.retraining.training_subprocess import Progress, TrainingProcess

logger = logging.getLogger(__name__)

# Where the stages lie on the way of a whole job.
_SNAPSHOT, _TRAIN, _EVALUATE, _REGISTER, _GATE, _PROMOTE = 0.01, 0.05, 0.85, 0.92, 0.93, 0.99


@dataclass(frozen=True)
class Schedule:
    """Retraining without being asked.

    Attributes:
        new_images: As soon as so many new training images wait; 0 for never.
        request: What to train with.
    """

    new_images: int = 0
    request: RetrainRequest = field(default_factory=RetrainRequest)


@dataclass(frozen=True)
class RetrainSettings:
    """How a worker retrains.

    Attributes:
        script: ``scripts/train.py``, from the folder that the worker is started in.
        trainer: Settings of this machine, laid over the champion's ``trainer`` section: ``accelerator``, ``devices``.
        nice: By how much training stands back behind other processes, such as a server on the same machine.
        threads: CPU threads of training; torch's own choice when None.
        schedule: Retraining without being asked.
    """

    script: Path = Path("scripts/train.py")
    trainer: Mapping[str, Any] = field(default_factory=dict)
    nice: int = 10
    threads: int | None = None
    schedule: Schedule = field(default_factory=Schedule)


class Stages:
    """The stages of retrainings, run by one worker.

    Args:
        storage: Where the loop keeps its state.
        settings: How to retrain.
        gate: When to promote.
        worker: This worker's id, or one execution's of it.
    """

    def __init__(self, storage: Storage, settings: RetrainSettings, gate: GateSettings, worker: str) -> None:
        self.storage = storage
        self.worker = worker
        self.stopping = threading.Event()  # this worker ends: give up, for another one to go on
        self._settings = settings
        self._gate = gate
        self._registry = Registry(storage)

    def execution(self) -> "Stages":
        """Return the stages for one run of one job.

        It has a name of its own: what this worker began before it was overruled, and took up again since, are two.
        """
        made = copy.copy(self)
        made.worker = f"{self.worker}{EXECUTION}{uuid.uuid4().hex[:8]}"
        return made

    def report_progress(self, job_id: str, **values: Any) -> None:  # noqa: ANN401 - columns of Job
        """Write down how far the job is.

        Raises:
            JobTaken: Another worker has the job now, or this one is to end.
            JobCancelledError: Somebody cancelled it.
        """
        if self.stopping.is_set():
            raise JobTaken(job_id)
        report(self.storage, job_id, self.worker, **values)

    def begin(self, job_id: str) -> dict[str, Any]:
        """Settle what the challenger starts from and is compared with: the champion of this moment."""
        champion = self._registry.champion()
        if champion is None:
            raise JobError("There is no model to retrain from: nothing is deployed.", code="no_champion")
        self.report_progress(job_id, stage="snapshot", progress=_SNAPSHOT, parent=champion.version)
        return {"parent": champion.version, "deployment": champion.id}

    def snapshot(self, job_id: str) -> str:
        """Settle what it is trained on; returns the snapshot's id."""
        self.report_progress(job_id, stage="snapshot")
        taken = take_snapshot(self.storage, job_id, self._gate.renew_images)
        self.report_progress(job_id, snapshot_id=taken.id, stage="train", progress=_TRAIN)
        return taken.id

    def train(self, job_id: str, parent: str, snapshot_id: str) -> str:
        """Train, calibrate and evaluate, and keep the bundle in the store; returns the challenger's version.

        It goes on from the last checkpoint, be that of this disk or of another worker's.
        """
        with self.storage.session() as session:
            known = session.scalar(select(ModelVersion.version).where(ModelVersion.job_id == job_id))
        if known is not None:
            return known
        self.report_progress(job_id, stage="train")
        training = self._training(job_id, parent, snapshot_id)
        checkpoints, epoch = self._checkpoints(job_id), job(self.storage, job_id).epoch
        if training.progress().epoch < epoch:
            checkpoints.fetch(epoch)

        def watch(progress: Progress) -> None:
            checkpoints.keep(progress.epoch)  # first: an epoch that is reported can be gone on from
            self._watch(job_id, progress)

        bundle = training.run(watch)
        self._watch(job_id, training.progress())
        self.report_progress(job_id, stage="register", progress=_REGISTER, seconds_left=None)
        return self._registry.register(bundle, parent=parent, snapshot_id=snapshot_id, job_id=job_id, actor="retrain")

    def compare(self, job_id: str, parent: str, version: str) -> dict[str, Any]:
        """Put the challenger and the champion before the gate; returns whether it passed, and why."""
        self.report_progress(job_id, stage="gate", progress=_GATE, version=version)
        champion, challenger = self._registry.fetch(parent), self._registry.fetch(version)
        verdict = compare(self.storage, job_id, champion, challenger, self._gate, lambda: self.report_progress(job_id))
        self.report_progress(job_id, verdict=verdict, progress=_PROMOTE)
        return {"promoted": bool(verdict["promoted"]), "reason": " ".join(verdict["reasons"])}

    def conclude(self, job_id: str, deployment: int, version: str, promoted: bool, reason: str) -> str:
        """Promote or reject the challenger and end the job; returns the job's last state."""
        with self.storage.session() as session:
            done = session.scalar(select(Deployment.id).where(Deployment.job_id == job_id))
        if done is None:
            self.report_progress(job_id, stage="promote")
            if promoted:
                try:
                    self._registry.promote(version, "gate", reason, job_id=job_id, expected=deployment)
                except RegistryError as error:
                    promoted, reason = False, f"It passed the gate and was not promoted: {error.message}"
        return self._end(job_id, "promoted" if promoted else "rejected", reason)

    def fail(self, job_id: str, code: str, reason: str) -> str:
        """End a job that cannot go on; returns its last state."""
        return self._end(job_id, "cancelled" if code == "job_cancelled" else "failed", reason)

    def tidy(self) -> None:
        """Remove what this disk has of jobs that were ended by a worker on another one."""
        for folder in (self.storage.cache / "jobs").glob("*"):
            with self.storage.session() as session:
                found = session.get(Job, folder.name)
            if found is not None and found.active is None and found.state != "failed":
                shutil.rmtree(folder, ignore_errors=True)

    def _end(self, job_id: str, state: str, reason: str) -> str:
        finish(self.storage, job_id, self.worker, state, reason)
        if state != "failed":  # what failed is left for a person to look at
            shutil.rmtree(self._folder(job_id), ignore_errors=True)
        self._checkpoints(job_id).delete()
        return state

    def _folder(self, job_id: str) -> Path:
        return self.storage.cache.absolute() / "jobs" / job_id

    def _checkpoints(self, job_id: str) -> Checkpoints:
        return Checkpoints(self.storage.store, job_id, self._folder(job_id) / "run")

    def _training(self, job_id: str, parent: str, snapshot_id: str) -> TrainingProcess:
        """Bring everything that the training needs to this machine."""
        script, settings = self._settings.script.absolute(), self._settings
        folder = self._folder(job_id)
        folder.mkdir(parents=True, exist_ok=True)
        config = recipe(
            Bundle.open(self._registry.fetch(parent)),
            RetrainRequest(**job(self.storage, job_id).request),
            materialise(self.storage, snapshot_id, folder / "data"),
            image_root(self.storage).absolute(),
            folder / "run",
            self.storage.cache.absolute() / PIXELS,
            settings.trainer,
            _evaluation(script),
        )
        return TrainingProcess(folder, config, script, settings.nice, settings.threads)

    def _watch(self, job_id: str, progress: Progress) -> None:
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
            logger.warning("the progress of %s could not be written: %s", job_id, str(error).splitlines()[0])


def _evaluation(script: Path) -> dict[str, Any]:
    section = OmegaConf.load(script.parents[1] / "configs" / "evaluation" / "default.yaml")
    return dict(OmegaConf.to_container(section))  # type: ignore[arg-type]
