"""Several processes that train one model together: how many, how they work together, what only the first one does."""

import logging
import os
import signal
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from lesion.core.cpu import available_cores
from lesion.core.errors import ConfigError
from lesion.core.parent_death import end_with_parent

# Lightning's names of strategies that expect a gradient for every parameter, and what makes them search for the others.
_PLAIN_STRATEGIES = ("ddp", "ddp_spawn", "ddp_fork", "ddp_notebook")
_UNUSED = "_find_unused_parameters_true"


def is_first_process() -> bool:
    """Return whether this process is the only one that trains, or the first of several: it writes all files."""
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def is_started_by_first_process() -> bool:
    """Return whether the first process started this one, after it had read the data; launchers start all at once."""
    launchers = ("TORCHELASTIC_RUN_ID", "SLURM_PROCID", "RANK")
    return os.environ.get("LOCAL_RANK", "0") != "0" and not any(name in os.environ for name in launchers)


def follow_first_process() -> None:
    """In every process but the first one, log errors alone, write no log file, and end when the first one ends."""
    if is_first_process():
        return
    root = logging.getLogger()
    root.setLevel(logging.ERROR)
    for handler in [each for each in root.handlers if isinstance(each, logging.FileHandler)]:
        root.removeHandler(handler)
        handler.close()
    if is_started_by_first_process():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both, and the first one tells how to continue
        end_with_parent(os.getppid())


def process_count(trainer: Mapping[str, Any]) -> int:
    """Return how many processes a ``trainer`` section asks for.

    More GPUs than there are, more processes than processor cores, and numbers that mean nothing are a ConfigError.
    """
    accelerator, devices = str(trainer.get("accelerator", "auto")), trainer.get("devices", 1)
    gpus = torch.cuda.device_count()
    nodes = trainer.get("num_nodes", 1)
    if type(nodes) is not int or nodes < 1:
        raise ConfigError(f"trainer.num_nodes={nodes} must be a whole number of machines, 1 or more.")
    if accelerator in ("gpu", "cuda") and not gpus:
        raise ConfigError(f"trainer.accelerator={accelerator}: torch sees no GPU here. Use trainer.accelerator=cpu.")
    if accelerator not in ("auto", "cpu", "gpu", "cuda"):  # Lightning knows others, and judges their devices itself
        return (devices if type(devices) is int and devices > 0 else 1) * nodes
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and gpus > 0)
    return (_gpu_count(devices, gpus) if on_gpu else _cpu_count(devices)) * nodes


def strategy(trainer: Mapping[str, Any], all_trained: bool) -> Any:  # noqa: ANN401 - a name or Hydra's section
    """Return the strategy of a ``trainer`` section, in the form for its network.

    ``all_trained`` tells that every parameter is trained from the first step on.
    """
    name = trainer.get("strategy", "auto")
    if name == "auto" and process_count(trainer) > 1:
        name = "ddp"
    return f"{name}{_UNUSED}" if name in _PLAIN_STRATEGIES and not all_trained else name


def _cpu_count(devices: object) -> int:
    count = 1 if devices == "auto" else _number(devices)
    cores = available_cores()
    if count is None or count < 1:
        raise ConfigError(
            f"trainer.devices={devices}: on a CPU this is the number of processes, 1 or more (here up to {cores})."
        )
    if count > cores:
        raise ConfigError(
            f"trainer.devices={count} processes are more than the {cores} processor cores here. Set trainer.devices to "
            f"{cores} or fewer; one process uses all cores as well."
        )
    return count


def _gpu_count(devices: object, gpus: int) -> int:
    number = _number(devices)
    if devices == "auto" or number == -1:
        return gpus
    if number is not None and 1 <= number <= gpus:
        return number
    listed = devices.split(",") if isinstance(devices, str) else devices
    indices = [_number(each) for each in listed if each != ""] if isinstance(listed, list | tuple) else []
    if number is None and indices and all(index is not None and 0 <= index < gpus for index in indices):
        return len(indices)
    raise ConfigError(
        f"trainer.devices={devices} cannot be used: there {'is 1 GPU' if gpus == 1 else f'are {gpus} GPUs'} here. Give "
        "a number of GPUs, a list of their numbers from 0, or -1 for all."
    )


def _number(value: object) -> int | None:
    """Return a whole number that is given as one or as a text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        return int(value)
    except ValueError:
        return None
