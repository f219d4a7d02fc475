"""The end of processes that multiprocessing started, and what memory they keep."""

import ctypes
import multiprocessing
import os
import sys
import threading
from contextlib import suppress

from lesion.core.errors import ConfigError

_M_MMAP_THRESHOLD = -3  # glibc's name in malloc.h
_LARGE = 2**20


def end_with_parent() -> None:
    """End this process when its parent has ended, for whatever reason, so that no process is left over."""
    parent = multiprocessing.parent_process()
    if parent is None:
        raise ConfigError("end_with_parent is for processes that multiprocessing started.")

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()


def end_children() -> None:
    """End every process that this one started through multiprocessing."""
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    for child in children:
        child.join(1.0)
        if child.is_alive():
            child.kill()
            child.join()


def return_large_blocks() -> None:
    """Let glibc return freed blocks of 1 MiB and more at once, in this process and those forked from it.

    By default glibc raises that bound up to 32 MiB when it sees large blocks, and a process that once held many large
    images keeps their memory. This has no effect on other systems.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # musl and others have no mallopt
            ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, _LARGE)
