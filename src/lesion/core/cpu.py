"""The number of processor cores to use."""

import os
from pathlib import Path


def available_cores() -> int:
    """Return how many cores this process may use, within the CPU quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        allowed, _, period = quota.read_text().partition(" ")
        if allowed.isdigit():
            cores = min(cores, max(1, int(allowed) // int(period)))
    return cores
