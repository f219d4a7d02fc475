"""Training as a subprocess, by the same command that users run: torch stays out of the worker's own process."""

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from omegaconf import OmegaConf

from lesion.model.bundle_facts import FACTS_FILE
from lesion.retraining.jobs import JobError

logger = logging.getLogger(__name__)

DEATHS = 3  # after this many in a row without a new epoch, it is not tried again
_POLL_S = 1.0
_LOCK_S = 60.0
_LEAST_FREE_BYTES = 2**25  # less than a checkpoint
_TAIL_LINES, _TAIL_CHARACTERS = 15, 1500
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\S\n]+$", re.MULTILINE)
_HYDRA: dict[str, Any] = {
    "defaults": ["_self_", {"override hydra/job_logging": "stdout"}],
    "hydra": {"output_subdir": None, "job": {"chdir": False}},
}


@dataclass(frozen=True)
class Progress:
    """How far a training is."""

    phase: str = "train"  # ``train``, then ``evaluate``
    epoch: int = 0
    share: float = 0.0  # the share of the training that is done, 0 to 1
    seconds_left: float | None = None  # of the training; None if unknown
    metrics: Sequence[Mapping[str, Any]] = ()  # one object per epoch


@dataclass(frozen=True)
class TrainingProcess:
    """One training in a folder: a new one, or one that continues where it was."""

    folder: Path  # its config, its log and, in ``run``, the output of the training
    config: Mapping[str, Any]  # the result of :func:`lesion.retraining.recipe.recipe`
    command: Sequence[str]  # what trains; it gets ``--config-path`` and ``--config-name``
    nice: int = 10  # how much lower its priority is than that of other processes
    threads: int | None = None  # CPU threads; torch's own choice if None
    grace_s: float = 10.0  # how long it may take to end after SIGTERM

    @property
    def output(self) -> Path:
        """The run's folder."""
        return self.folder / "run"

    @property
    def _is_done(self) -> bool:
        return (self.output / "bundle" / FACTS_FILE).is_file()

    def run(self, report_progress: Callable[[Progress], None]) -> Path:
        """Train, unless it is done already, and return the bundle's folder.

        A process that was killed is started again from its last checkpoint. ``report_progress`` is called about once
        per second; an error that it raises ends the training.

        Raises:
            JobError: The training failed (``training_failed``), was killed again and again (``training_killed``), or
                another one still runs in the folder (``training_busy``).
            OSError: The disk is full; with more room, the training continues from its last checkpoint.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        deaths, last_epoch = 0, -1
        while not self._is_done:
            with self._lock(report_progress) as lock:
                status = self._run_once(lock, report_progress)
            if status > 0 and shutil.disk_usage(self.folder).free < _LEAST_FREE_BYTES:
                raise OSError(errno.ENOSPC, f"The training failed (exit status {status}), and the disk is full")
            if status > 0 or (status == 0 and not self._is_done):
                raise JobError(f"The training failed (exit status {status}). {self._tail()}", code="training_failed")
            epoch = self.progress().epoch
            deaths, last_epoch = (deaths + 1 if epoch == last_epoch else 1), epoch
            if status < 0:
                logger.error("the training was ended by signal %d after %d epochs", -status, epoch)
            if deaths >= DEATHS:
                raise JobError(
                    f"The training was killed {deaths} times in a row by signal {-status}, after {epoch} epochs. "
                    "Signal 9 mostly means that memory ran out: try a smaller batch_size.",
                    code="training_killed",
                )
        return self.output / "bundle"

    def progress(self) -> Progress:
        """Read how far the training is."""
        try:
            content = json.loads((self.output / "progress.json").read_text("utf-8"))
            return Progress(**{name: content[name] for name in ("phase", "epoch", "share", "seconds_left", "metrics")})
        except (OSError, ValueError, KeyError, TypeError):
            return Progress()

    def _run_once(self, lock: IO[bytes], report_progress: Callable[[Progress], None]) -> int:
        """Start the process, wait for its end, and return its exit status; minus the signal if it was killed."""
        self._write_config()
        command = [*self.command, "--config-path", str(self.folder), "--config-name", "train"]
        if self.nice:
            command = ["nice", "-n", str(self.nice), *command]
        environment = dict(os.environ)
        if self.threads:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        with (self.folder / "train.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "lesion.core.parent_death", str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                pass_fds=(lock.fileno(),),  # the lock is free when the last process of the training has ended
            )
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(_POLL_S)
                report_progress(self.progress())
        finally:
            self._end(process)

    def _write_config(self) -> None:
        checkpoint = self.output / "checkpoints" / "last.ckpt"
        content = {**_HYDRA, **self.config, "resume": str(checkpoint) if checkpoint.is_file() else None}
        content["hydra"] = content["hydra"] | {"run": {"dir": str(self.output)}}
        OmegaConf.save(OmegaConf.create(content), self.folder / "train.yaml")

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        for number, seconds in ((signal.SIGTERM, self.grace_s), (signal.SIGKILL, None)):
            if process.poll() is not None:
                break
            with suppress(subprocess.TimeoutExpired, ProcessLookupError):
                os.killpg(process.pid, number)
                process.wait(seconds)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the processes that it started itself

    @contextmanager
    def _lock(self, report_progress: Callable[[Progress], None]) -> Iterator[IO[bytes]]:
        """Ensure that no other training writes into the folder; one of a dead worker ends within moments."""
        deadline = time.monotonic() + _LOCK_S
        with (self.folder / "train.lock").open("wb") as lock:
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if time.monotonic() > deadline:
                    raise JobError("Another training runs in the same folder.", code="training_busy")
                report_progress(self.progress())
                time.sleep(_POLL_S)
            yield lock

    def _tail(self) -> str:
        """Return the last lines that it printed, for the user who requested the training."""
        with (self.folder / "train.log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 20_000))
            text = log.read().decode(errors="replace")
        lines = [line for line in _ESCAPES.sub("", text).splitlines() if line and "HYDRA_FULL_ERROR" not in line]
        if lines and lines[-1].startswith("error ("):  # a sentence for users
            return lines[-1][-_TAIL_CHARACTERS:]
        return "Its last lines: " + "\n".join(lines[-_TAIL_LINES:])[-_TAIL_CHARACTERS:]
