"""Start processes that outlive this command, and find them again by id and start time, so that no others are ended.

What runs on this machine, and how it was started, is stored in a file.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from lesion.core.errors import LesionError
from lesion.core.files import write_atomically

_SAME_START_S = 0.05  # two readings of one process's start time differ by less
_LOG_TAIL_BYTES = 4000  # how much of a log an error quotes
_POLL_S = 0.1
_STATE_FILE = "replicas.json"
_children: list[subprocess.Popen[bytes]] = []  # Python warns when a Popen is dropped while its process runs


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process that was started here."""

    name: str  # api-1, nginx, worker or page
    pid: int  # the process id, which is also the id of its process group
    # The start time in seconds since 1970, as the system reports it. The system may give a process id to a new
    # process later; the id and the start time together identify one process.
    started: float
    port: int | None = None  # the port that it listens on, if any

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


@dataclass(frozen=True)
class Plan:
    """What to start; stored with the state, so that later commands start the same."""

    port: int = 8080  # the port of nginx
    # The address that nginx listens on. The replicas and the page answer this machine only; others reach them
    # through nginx.
    host: str = "127.0.0.1"
    tls_port: int | None = None  # the port of nginx for HTTPS; no HTTPS when None
    # The bundle to serve. When None: the champion of the storage, or the newest bundle in outputs/.
    bundle: str | None = None
    storage: str = "local"  # local, cluster or none, as in configs/storage
    storage_root: str | None = None  # the folder of the storage on this machine; the default of the configs when None
    workers: int = 1  # inference workers per replica
    worker: bool = True  # whether to start a retraining worker, if there is a storage
    page_port: int | None = 8501  # the port of the web page; no page when None
    limited: bool = True  # whether nginx limits how many requests one address may send
    settings: Sequence[str] = ()  # more settings of configs/serve.yaml
    worker_settings: Sequence[str] = ()  # more settings of configs/worker.yaml

    @property
    def address(self) -> str:
        """The URL of nginx for programs on this machine."""
        return f"http://127.0.0.1:{self.port}"


def read_state(folder: Path) -> tuple[Plan, list[ProcessRecord]]:
    """Return what was written last: the plan and the processes, which may have ended since."""
    file = folder / _STATE_FILE
    if not file.is_file():
        return Plan(), []
    state = json.loads(file.read_text("utf-8"))
    return Plan(**state["plan"]), [ProcessRecord(**record) for record in state["members"]]


def write_state(folder: Path, plan: Plan, processes: Sequence[ProcessRecord]) -> None:
    """Write the plan and the processes, whole or not at all."""
    state = {"plan": asdict(plan), "members": [asdict(process) for process in processes]}
    write_atomically(folder / _STATE_FILE, json.dumps(state, indent=2))


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
    """Wait until ``ready`` returns true for a process.

    A LesionError quotes the end of its log if it ended (``member_ended``), or was not ready in time (``timed_out``).
    """
    deadline = time.monotonic() + seconds
    while not ready():
        if not record.alive:
            raise LesionError(f"{record.name} ended. Its log says:\n{_tail(log)}", code="member_ended")
        if time.monotonic() > deadline:
            message = f"{record.name} was not ready within {seconds:g} s. Its log, {log}, ends with:\n{_tail(log)}"
            raise LesionError(message, code="timed_out")
        time.sleep(_POLL_S)


@contextmanager
def running(
    name: str, command: Sequence[str], log: Path, ready: Callable[[], bool], *, folder: Path, seconds: float = 300
) -> Iterator[ProcessRecord]:
    """Start a process, wait with ``wait_until_ready``, and end it when the block ends."""
    record = start(name, command, log, folder=folder)
    try:
        wait_until_ready(record, ready, log, seconds)
        yield record
    finally:
        end([record])


def _tail(log: Path) -> str:
    return log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip() if log.is_file() else "(nothing)"
