"""The settings of training that depend on the machine: number format, threads and memory allocation."""

import ctypes
import logging
import os
import sys

import torch

from lesion.core.cpu import available_cores

logger = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's names in malloc.h


def best_precision(precision: str = "auto") -> str:
    """Return Lightning's name of the number format to train in.

    ``auto`` is bfloat16 if the processor multiplies in it (a GPU since Ampere; AVX-512 BF16 or AMX), else float32.
    """
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if fast else "32-true"


def bound_threads() -> int:
    """Let torch use the cores of this process, and return its number of threads.

    By default torch uses all cores of the machine, even in a container that may use only a few of them. A value of
    ``OMP_NUM_THREADS`` takes precedence.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
    return torch.get_num_threads()


def tune_allocator() -> None:
    """Let glibc keep large freed blocks, which training on a CPU allocates again in every step.

    By default the memory of each activation is returned to the kernel and mapped again. No effect on other systems.
    """
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        # Not M_MMAP_THRESHOLD: its maximum is 32 MiB, and activations are larger.
        changed = libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    except (OSError, AttributeError):  # musl and others have no mallopt
        changed = 0
    if not changed:
        logger.info("The settings of the memory allocator were not changed.")
