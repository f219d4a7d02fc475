"""Start processes that outlive this command, and find them again by id and start time, so that no others are ended."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from lesion.core.errors import LesionError

_SAME_START_S = 0.05  # two readings of one process's start time differ by less
_LOG_TAIL_BYTES = 4000  # how much of a log an error quotes
_POLL_S = 0.1
_children: list[subprocess.Popen[bytes]] = []  # Python warns when a Popen is dropped while its process runs


class ProcessEndedError(LesionError):
    """A process ended before it was ready."""

    default_code = "member_ended"


class StartTimeoutError(LesionError):
    """A process was not ready in time."""

    default_code = "timed_out"


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process that was started here.

    Attributes:
        name: ``api-1``, ``nginx``, ``worker`` or ``page``.
        pid: The process id, which is also the id of its process group.
        started: The start time in seconds since 1970, as the system reports it. The system may give a process id to a
            new process later; the id and the start time together identify one process.
        port: The port that it listens on, if any.
    """

    name: str
    pid: int
    started: float
    port: int | None = None

    @property
    def alive(self) -> bool:
        """Whether this process runs."""
        return self.process is not None

    @property
    def process(self) -> psutil.Process | None:
        """The process, if it runs."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if self.owns_pid and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    @property
    def owns_pid(self) -> bool:
        """Whether the process id still belongs to this process, which may have ended without being reaped."""
        with suppress(psutil.NoSuchProcess):
            return bool(abs(psutil.Process(self.pid).create_time() - self.started) < _SAME_START_S)
        return False


def start(
    name: str,
    command: Sequence[str],
    log: Path,
    *,
    folder: Path,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> ProcessRecord:
    """Start a process in its own session and working ``folder``; its output is appended to ``log``.

    ``name`` and ``port`` are for the record; ``environment`` adds variables to those of this process.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=os.environ | dict(environment or {}),
            start_new_session=True,
        )
    _children.append(process)
    return ProcessRecord(name, process.pid, psutil.Process(process.pid).create_time(), port)


def end(records: Sequence[ProcessRecord], seconds: float = 40.0) -> None:
    """Ask processes to end, all at once, and wait; then kill what is left of their process groups.

    Processes that have ended already may have left children, which are ended too: the workers of nginx outlive it.
    """
    running = [process for record in records if (process := record.process) is not None]
    for process in running:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    psutil.wait_procs(running, timeout=seconds)
    for record in records:
        # The system gives the number of a group that still has processes to no new process. So the number is either
        # free, or it belongs to the leader of this group.
        if record.owns_pid or not psutil.pid_exists(record.pid):
            with suppress(ProcessLookupError):
                os.killpg(record.pid, signal.SIGKILL)
    psutil.wait_procs(running, timeout=5)


def wait_until_ready(record: ProcessRecord, ready: Callable[[], bool], log: Path, seconds: float) -> None:
    """Wait until ``ready`` returns true for a process. Errors quote the end of its log.

    Raises:
        ProcessEndedError: The process ended.
        StartTimeoutError: It was not ready within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        if not record.alive:
            raise ProcessEndedError(f"{record.name} ended. Its log says:\n{_tail(log)}")
        if time.monotonic() > deadline:
            raise StartTimeoutError(
                f"{record.name} was not ready within {seconds:g} s. Its log, {log}, ends with:\n{_tail(log)}"
            )
        time.sleep(_POLL_S)


@contextmanager
def running(
    name: str, command: Sequence[str], log: Path, ready: Callable[[], bool], *, folder: Path, seconds: float = 300
) -> Iterator[ProcessRecord]:
    """Start a process, wait until it is ready, and end it when the block ends.

    Raises:
        LesionError: As for ``wait_until_ready``.
    """
    record = start(name, command, log, folder=folder)
    try:
        wait_until_ready(record, ready, log, seconds)
        yield record
    finally:
        end([record])


def _tail(log: Path) -> str:
    return log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip() if log.is_file() else "(nothing)"
