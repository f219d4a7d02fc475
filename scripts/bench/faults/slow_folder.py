"""A folder whose files open slowly or not at all, as on a share whose server is slow or hangs; needs root.

The kernel asks a program for permission whenever a file of a mount is opened (fanotify(7)); this one takes its time.
"""

import ctypes
import os
import select
import struct
import subprocess
import threading
import time
from pathlib import Path

# Values of <linux/fanotify.h>
_CLOEXEC, _NONBLOCK, _CLASS_CONTENT = 0x1, 0x2, 0x4
_MARK_ADD, _MARK_MOUNT = 0x1, 0x10
_OPEN_PERM, _ON_FOLDERS = 0x10000, 0x40000000
_ALLOW = 1
_EVENT = struct.Struct("=IBBHQii")  # bytes, version, reserved, bytes of this part, mask, file descriptor, process id
_ANSWER = struct.Struct("=iI")
_NOW_HERE = -100  # AT_FDCWD
_POLL_MS = 100


class SlowFolder:
    """From now until ``close``, each opening of a file or folder in a folder takes ``pause_s`` seconds.

    A kernel that cannot delay openings raises an OSError.
    """

    def __init__(self, folder: Path, pause_s: float) -> None:
        self._folder, self._pause_s = folder, pause_s
        self._halted = False
        self._ended = threading.Event()
        subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)  # so that it is a mount of its own
        try:
            self._queue = self._watch()
        except OSError:
            self._unmount()
            raise
        self._thread = threading.Thread(target=self._answer_all, daemon=True)
        self._thread.start()

    def halt(self) -> None:
        """From now on no opening is answered before ``close``."""
        self._halted = True

    def close(self) -> None:
        """Answer all openings; from now on they take no time."""
        self._ended.set()
        self._thread.join()
        os.close(self._queue)  # the kernel then permits those that were not answered
        self._unmount()

    def _unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self._folder)], check=True)

    def _watch(self) -> int:
        library = ctypes.CDLL(None, use_errno=True)
        queue: int = library.fanotify_init(_CLASS_CONTENT | _CLOEXEC | _NONBLOCK, os.O_RDONLY)
        mask = ctypes.c_uint64(_OPEN_PERM | _ON_FOLDERS)
        path = os.fsencode(self._folder)
        if queue < 0 or library.fanotify_mark(queue, _MARK_ADD | _MARK_MOUNT, mask, _NOW_HERE, path) < 0:
            raise OSError(ctypes.get_errno(), "openings in a folder cannot be delayed here")
        return queue

    def _answer_all(self) -> None:
        poll = select.poll()
        poll.register(self._queue, select.POLLIN)
        waiting: list[tuple[float, int]] = []  # when it came, and the descriptor by which it is answered
        while not self._ended.is_set():
            if poll.poll(_POLL_MS):
                waiting += [(time.monotonic(), descriptor) for descriptor in self._read()]
            while waiting and not self._halted and time.monotonic() - waiting[0][0] >= self._pause_s:
                self._allow(waiting.pop(0)[1])
        for _, descriptor in waiting:
            self._allow(descriptor)

    def _read(self) -> list[int]:
        data, found, place = os.read(self._queue, 2**16), [], 0
        while place < len(data):
            size, *_, descriptor, _ = _EVENT.unpack_from(data, place)
            found.append(descriptor)
            place += size
        return found

    def _allow(self, descriptor: int) -> None:
        os.write(self._queue, _ANSWER.pack(descriptor, _ALLOW))
        os.close(descriptor)
