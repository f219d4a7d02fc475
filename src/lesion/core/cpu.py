"""How many processor cores there are to use."""

import os
from pathlib import Path


def available_cores() -> int:
    """Return the cores this process may use, counting a container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        allowed, _, period = quota.read_text().partition(" ")
        if allowed.isdigit():
            cores = min(cores, max(1, int(allowed) // int(period)))
    return cores
