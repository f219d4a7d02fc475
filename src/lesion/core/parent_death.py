"""Ends a process with the one that started it, however that went: python -m lesion.core.parent_death PID COMMAND."""

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_POLL_S = 1.0


def tether(parent: int, number: int = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent ends; it stays so through ``exec``.

    Where the kernel cannot, a thread looks instead, which an ``exec`` would end.

    Args:
        parent: The process id of the parent.
        number: The signal.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent, number), name="tether", daemon=True).start()
    if os.getppid() != parent:  # it ended before the kernel was told
        os.kill(os.getpid(), number)


def _watch(parent: int, number: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    tether(int(sys.argv[1]), signal.SIGKILL)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the caller's own command, and no shell
