"""Decodes large images in a process of their own, one at a time, so that small images never wait for them.

The process has a lower priority, a bound of memory and one of computing time. An image that ends it is refused, and the
next one starts another process. Run as ``python -m serve.inference.large_images``, it is that process.
"""

import asyncio
import logging
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from starlette.requests import ClientDisconnect

from lesion.core.errors import LesionError
from lesion.core.parent_death import end_with_parent
from lesion.imaging.limits import Limits
from lesion.imaging.refusals import ImageTooLargeError, corrupt, out_of_memory
from serve import senders
from serve.malloc import return_large_blocks
from serve.request_errors import BusyError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

MAX_WAITING = 16  # large images that wait in one API process; further ones are answered 503
# Bytes that other processes may hold to decode an image: some 2.5 megapixels of color, which take some tens of
# milliseconds. What takes more is decoded here.
SMALL_MEMORY = 12 * 2**20
_IDLE_S = 60.0  # after which the process ends
_CPU_S = 10  # for one image
_NICENESS = 5
_FILE_COPIES = 8  # of the file: without its metadata, for each plane, and as the codec has it
_OTHER_BYTES = 96 * 2**20  # for parts of the picture, and modules that are loaded when they are first needed


@dataclass(eq=False)
class LargeImages:
    """The large images of one API process: one is decoded at a time, in a process that starts with the first one."""

    _waiting: int = field(default=0, init=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    # A single thread, as old as this process: the kernel ends a process when the thread ends that began it.
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "large-images"), init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _idle: asyncio.TimerHandle | None = field(default=None, init=False)

    async def call(self, function: Callable[[bytes, Limits], Result], data: bytes, limits: Limits) -> Result:
        """Return what a function makes of an image; the function and its result must be such that pickle takes them.

        Raises:
            BusyError: Too many large images wait.
            LesionError: The function raised it, or the image ended the process.
            ClientDisconnect: The sender left before it was the image's turn.
        """
        if self._waiting >= MAX_WAITING:
            raise BusyError(f"{MAX_WAITING} large images wait already. Try again soon.", code="large_images_full")
        self._waiting += 1
        try:
            async with self._turn:
                if senders.current.get().gone:
                    raise ClientDisconnect
                if self._idle is not None:
                    self._idle.cancel()
                loop = asyncio.get_running_loop()
                try:
                    answer = await loop.run_in_executor(self._thread, self._exchange, function, data, limits)
                except asyncio.CancelledError:  # it takes too long
                    self.close()
                    raise
                self._idle = loop.call_later(_IDLE_S, self.close)
        finally:
            self._waiting -= 1
        if isinstance(answer, LesionError):
            raise answer
        return cast(Result, answer)

    def close(self) -> None:
        """End the process; the next image starts another one."""
        if self._process is not None:
            self._process.kill()
            self._thread.submit(self._forget, self._process)

    def _exchange(self, function: Callable[[bytes, Limits], object], data: bytes, limits: Limits) -> object:
        process = self._process
        if process is None:
            command = [sys.executable, "-P", "-m", __name__]
            process = self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump((function, data, limits), process.stdin)
            process.stdin.flush()
            return pickle.load(process.stdout)  # noqa: S301 - of our own process
        except (EOFError, OSError, pickle.UnpicklingError):
            process.kill()
            status = self._forget(process)
        if status == -signal.SIGXCPU:
            return ImageTooLargeError(
                f"The image takes more than {_CPU_S} seconds to decode; make it smaller, or save it as PNG or JPEG."
            )
        return out_of_memory("sent")

    def _forget(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the end of a process that was killed; return its status."""
        with process:
            pass
        if self._process is process:
            self._process = None
        return process.returncode


def small_only(limits: Limits) -> Limits:
    """Return the limits of an image that need not be decoded here: an ImageMemoryError tells one that must."""
    return replace(limits, max_memory=min(SMALL_MEMORY, limits.memory))


def main() -> None:
    """Answer one image after the other until there are no more."""
    end_with_parent(os.getppid(), signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return_large_blocks()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    own_bytes = _data_bytes()
    while True:
        try:
            function, data, limits = pickle.load(sys.stdin.buffer)  # noqa: S301 - of our own parent
        except EOFError:
            return
        _bound(own_bytes + limits.memory + _FILE_COPIES * len(data) + _OTHER_BYTES)
        _answer(answers, function, data, limits)


def _answer(answers: IO[bytes], function: Callable[[bytes, Limits], Any], data: bytes, limits: Limits) -> None:
    try:
        answer = function(data, limits)
    except LesionError as error:
        answer = error.with_traceback(None)
    except MemoryError:
        answer = out_of_memory("sent")
    except Exception:  # a fault of the decoder is one of this image
        logger.exception("the decoder failed on an image of %d bytes", len(data))
        answer = corrupt("sent", "the decoder failed on it")
    pickle.dump(answer, answers)
    answers.flush()


def _bound(memory: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + _CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
    if sys.platform == "linux":  # elsewhere it does not count what is mapped
        resource.setrlimit(resource.RLIMIT_DATA, (memory, resource.RLIM_INFINITY))


def _data_bytes() -> int:
    """Return the bytes of this process that RLIMIT_DATA counts."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


if __name__ == "__main__":
    main()
