"""Loads a bundle in a process of its own before a worker loads it: one that ends its process ends no worker.

Run as ``python -m serve.inference.trial_loading SETTINGS``, with JSON, it is that process.
"""

import contextlib
import fcntl
import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lesion.core.errors import BundleError, LesionError
from lesion.core.parent_death import end_with_parent, is_running
from lesion.model.predictor import Predictor

logger = logging.getLogger(__name__)

_FAILED = 1  # the exit status of a process that could not load; its last line names the reason
_LAST_CHARACTERS = 500


class TrialLoadingError(BundleError):
    """A bundle that could not be loaded in a process of its own."""

    default_code = "bundle_trial_failed"


@dataclass
class TrialLoading:
    """Loads bundles for a worker.

    A worker that is at work has each further bundle loaded in another process first, unless it was loaded on this
    machine before. The first bundle of a new worker is loaded without a trial, which would double the time of a start,
    unless a worker before it ended while it loaded the same bundle: each leaves a mark for as long as it loads, and
    another once it has loaded.
    """

    load: Callable[[Path], Predictor]
    options: Mapping[str, Any]  # of Predictor.load, as far as JSON has them
    timeout: float  # seconds
    marks: Path  # the folder of the marks, which the workers of this machine share
    _loaded_before: bool = field(default=False, init=False)

    def __call__(self, bundle: Path) -> Predictor:
        """Load a bundle; one that fails in its trial is a TrialLoadingError."""
        with contextlib.suppress(OSError):
            self.marks.mkdir(parents=True, exist_ok=True)
        mark = self.marks / bundle.name
        loads = mark.with_suffix(".loads")
        if (self._loaded_before or _was_interrupted(mark)) and not loads.exists():
            with _locked(mark):  # one worker tries it out, the others wait for what becomes of it
                if not loads.exists():
                    load_in_another_process(bundle, self.options, self.timeout)
                    _touch(loads)
        with _left(mark):
            predictor = self.load(bundle)
        _touch(loads)
        self._loaded_before = True
        return predictor


def load_in_another_process(
    bundle: Path, options: Mapping[str, Any], timeout: float, command: Sequence[str] | None = None
) -> None:
    """Load a bundle in another process, which checks its golden answers, and end it.

    Args:
        bundle: The bundle's folder.
        options: Of ``Predictor.load``.
        timeout: Seconds after which the process is killed.
        command: The command that loads; this module by default.

    Raises:
        TrialLoadingError: The process did not load it, was ended by it, or did not end in time.
    """
    settings = json.dumps({"bundle": str(bundle), **options})
    command = [*(command or [sys.executable, "-P", "-m", __name__]), settings]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise TrialLoadingError(f"The model did not load within {timeout:g} seconds in a trial.") from error
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise TrialLoadingError(f"The model ended the process that loaded it in a trial ({name}).")
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason was given"]
        raise TrialLoadingError(f"The model did not load in a trial: {lines[-1][:_LAST_CHARACTERS]}")


@contextlib.contextmanager
def _left(mark: Path) -> Iterator[None]:
    """Leave a mark while this process loads a bundle."""
    mark = mark.with_suffix(f".loading-{os.getpid()}")
    _touch(mark)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            mark.unlink(missing_ok=True)


def _touch(mark: Path) -> None:
    """Leave a mark; without room for it, go without."""
    try:
        mark.touch()
    except OSError as error:
        logger.warning("%s could not be written: %s", mark, error)


@contextlib.contextmanager
def _locked(mark: Path) -> Iterator[None]:
    """Keep other processes of this machine from the trial of a bundle."""
    with mark.with_suffix(".trial").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, also by the end of the process
        yield


def _was_interrupted(mark: Path) -> bool:
    """Return whether a process ended while it loaded a bundle, and remove its marks."""
    marks = list(mark.parent.glob(f"{mark.name}.loading-*"))
    ended = [mark for mark in marks if _has_ended(mark.name.rpartition("-")[2])]
    for mark in ended:
        with contextlib.suppress(OSError):
            mark.unlink(missing_ok=True)
    return bool(ended)


def _has_ended(process: str) -> bool:
    # A new process in a container may have the number of the one that ended.
    return not process.isdecimal() or int(process) == os.getpid() or not is_running(int(process))


def main(settings: str) -> int:
    """Load the bundle of the settings; return 0 if it gives its golden answers."""
    end_with_parent(os.getppid(), signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    resource.setrlimit(resource.RLIMIT_AS, (2 * memory, 2 * memory))  # what is asked for beyond fails at once
    options = json.loads(settings)
    try:
        Predictor.load(options.pop("bundle"), **options)
    except LesionError as error:
        print(error.message, file=sys.stderr)
        return _FAILED
    except MemoryError:
        print("it needs more memory than this machine has", file=sys.stderr)
        return _FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
