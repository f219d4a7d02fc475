"""Give the memory of large images back to the operating system."""

import ctypes
import sys
from contextlib import suppress

_M_MMAP_THRESHOLD = -3  # glibc's name in malloc.h
_LARGE = 2**20


def return_large_blocks() -> None:
    """Let glibc return freed blocks of 1 MiB and more at once, in this process and those forked from it.

    By default glibc raises that bound up to 32 MiB when it sees large blocks, and a process that once held many large
    images keeps their memory. This has no effect on other systems.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # musl and others have no mallopt
            ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, _LARGE)
