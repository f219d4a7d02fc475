"""What this machine does well: number format, threads and memory allocation of training."""

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

    ``auto`` takes bfloat16 where the processor multiplies in it (a GPU since Ampere; AVX-512 BF16 or
    AMX), else float32.
    """
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if fast else "32-true"


def bound_threads() -> int:
    """Have torch use the cores that there are for this process, and return how many threads it has now.

    torch counts those of the machine, also in a container that may use a few of them. What ``OMP_NUM_THREADS`` says
    stands.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
    return torch.get_num_threads()


def tune_allocator() -> None:
    """Let glibc keep large freed blocks, which training on a CPU asks for again in every step.

    By default each activation is given back to the kernel and faulted in anew. Of no effect on other systems.
    """
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        # Not M_MMAP_THRESHOLD: glibc takes no more than 32 MiB for it, and activations are larger.
        kept = libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    except (OSError, AttributeError):  # musl and others have no mallopt
        kept = 0
    if not kept:
        logger.info("The memory allocator was left as it is.")
