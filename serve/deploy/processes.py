"""Processes that outlive the command that started them, found again by id and start time: no others are ended."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from lesion.core.errors import LesionError

_SAME_S = 0.05  # start times of one process, asked for twice, differ by less
_SHOWN = 4000  # bytes of a log that an error shows
_held: list[subprocess.Popen[bytes]] = []  # one that is thrown away warns that its process still runs


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process of the fleet.

    Attributes:
        name: ``api-1``, ``nginx``, ``worker`` or ``page``.
        pid: Its process id, which is also that of its process group.
        started: When it started, in seconds since 1970 as the system tells it: a process id alone may be used again.
        port: Where it listens, if anywhere.
    """

    name: str
    pid: int
    started: float
    port: int | None = None

    @property
    def alive(self) -> bool:
        """Whether this very process runs."""
        return self.process is not None

    @property
    def process(self) -> psutil.Process | None:
        """The process, if it runs."""
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.pid)
            if self.same and found.status() != psutil.STATUS_ZOMBIE:
                return found
        return None

    @property
    def same(self) -> bool:
        """Whether the process id is still this process's, though it may have ended."""
        with suppress(psutil.NoSuchProcess):
            return bool(abs(psutil.Process(self.pid).create_time() - self.started) < _SAME_S)
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
    """Start a process in a session of its own.

    Args:
        name: Of the member.
        command: Program and arguments.
        log: The file that its output is appended to.
        folder: Its working directory.
        port: Where it will listen.
        environment: Variables besides this process's own.
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
    _held.append(process)
    return ProcessRecord(name, process.pid, psutil.Process(process.pid).create_time(), port)


def end(members: Sequence[ProcessRecord], seconds: float = 40.0) -> None:
    """Ask members to end, all at once, and wait; what is left of their process groups after that is killed.

    Args:
        members: Of those that do not run any more, what they left behind is ended: nginx's workers outlive it.
        seconds: How long they may take.
    """
    running = [process for member in members if (process := member.process) is not None]
    for process in running:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    psutil.wait_procs(running, timeout=seconds)
    for member in members:
        # While a group has members its number is given to no new process: nobody has it, or the very leader.
        if member.same or not psutil.pid_exists(member.pid):
            with suppress(ProcessLookupError):
                os.killpg(member.pid, signal.SIGKILL)
    psutil.wait_procs(running, timeout=5)


def await_or_explain(member: ProcessRecord, ready: Callable[[], bool], log: Path, seconds: float) -> None:
    """Wait until something holds.

    Args:
        member: What is waited for.
        ready: A function without arguments; true once it is ready.
        log: Its output, whose end is shown when it fails.
        seconds: How long to wait.

    Raises:
        LesionError: The member ended (``member_ended``) or took too long (``timed_out``).
    """
    deadline = time.monotonic() + seconds
    while not ready():
        if not member.alive:
            raise LesionError(f"{member.name} ended. Its log says:\n{_end_of(log)}", code="member_ended", status=500)
        if time.monotonic() > deadline:
            raise LesionError(
                f"{member.name} was not ready within {seconds:g} s. Its log, {log}, ends with:\n{_end_of(log)}",
                code="timed_out",
                status=504,
            )
        time.sleep(0.1)


def _end_of(log: Path) -> str:
    return log.read_bytes()[-_SHOWN:].decode(errors="replace").strip() if log.is_file() else "(nothing)"
