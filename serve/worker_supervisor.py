"""The retraining worker next to a server on a single machine: started, restarted and ended with the server."""

import logging
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from lesion.core.commands import lesion_command, quote_hydra_value
from lesion.database.storage import Storage

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_PAUSES_S = (1.0, 2.0, 5.0, 15.0, 60.0)  # before the next start; the longer, the more starts failed at once
_HEALTHY_S = 30.0  # a worker that ran this long did not fail at once
_END_S = 30.0


class WorkerSupervisor:
    """Keeps a worker process running inside a ``with`` block; ``overrides`` are settings of ``configs/worker.yaml``."""

    def __init__(self, storage: Storage, overrides: Sequence[str] = ()) -> None:
        self._command = [*lesion_command("worker"), *settings_of(storage), f"parent={os.getpid()}", *overrides]
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._supervise, name="worker-supervisor", daemon=True)

    @property
    def pid(self) -> int | None:
        """The worker's process id, while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()  # the caller may fork, but not while the worker is being started
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _supervise(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            # This thread lives as long as the worker: the kernel ends the worker with the thread that started it. A
            # separate session keeps Ctrl-C away, so that the server ends first.
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
            logger.error(
                "the retraining worker ended with status %d; starting another in %g s", self._process.returncode, pause
            )
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
    """Return the Hydra overrides that give a worker the server's storage, whatever characters its paths have."""
    values = {"database": storage.database, "files": storage.files, "cache": str(storage.cache)}
    return [f"storage.{name}={quote_hydra_value(value)}" for name, value in values.items()]
