"""The worker beside a server on a single machine: started with it, started again when it dies, ended with it."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from lesion.core.cli_errors import quoted
from lesion.database.storage import Storage

logger = logging.getLogger(__name__)

SCRIPT = Path(__file__).parents[1] / "scripts" / "worker.py"
_POLL_S = 0.5
_PAUSES_S = (1.0, 2.0, 5.0, 15.0, 60.0)  # before the next start; the longer, the more starts failed at once
_HEALTHY_S = 30.0  # a worker that ran so long did not fail at once
_END_S = 30.0


class WorkerSupervisor:
    """A worker process for as long as the block runs.

    Args:
        storage: The server's storage.
        overrides: Further settings of ``configs/worker.yaml``.
        script: ``scripts/worker.py``.
    """

    def __init__(self, storage: Storage, overrides: Sequence[str] = (), script: Path = SCRIPT) -> None:
        self._command = [sys.executable, str(script), *settings_of(storage), f"parent={os.getpid()}", *overrides]
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="companion", daemon=True)

    @property
    def pid(self) -> int | None:
        """The worker's process id, while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()  # who forks after this must not fork in the middle of it
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _keep(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            # The thread lives as long as the worker: the kernel would end that with the thread that started it. A
            # session of its own keeps Ctrl-C away, so that the server goes first.
            try:
                self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True)
            finally:
                self._started.set()
            while self._process.poll() is None and not self._stopping.wait(_POLL_S):
                pass
            if self._stopping.is_set():
                break
            failures = 0 if time.monotonic() - started > _HEALTHY_S else failures + 1
            pause = _PAUSES_S[min(failures, len(_PAUSES_S) - 1)]
            logger.error("the worker ended with status %d; starting another in %g s", self._process.returncode, pause)
            self._stopping.wait(pause)
        self._end()

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        if process.poll() is None:
            process.kill()
            process.wait()


def settings_of(storage: Storage) -> list[str]:
    """Return the Hydra overrides that give a worker the server's storage, whatever its paths are made of."""
    values = {"database": storage.database, "files": storage.files, "cache": str(storage.cache)}
    return [f"storage.{name}={quoted(value)}" for name, value in values.items()]
