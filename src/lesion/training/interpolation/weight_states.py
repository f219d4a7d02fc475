"""States of a network on the straight line between two others."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]


def copy_state(network: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a network's parameters and buffers that later training does not change."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def interpolate_states(start: State, end: State, share: float) -> dict[str, Tensor]:
    """Return (1 − ``share``) · ``start`` + ``share`` · ``end`` for each tensor of two states of one network.

    The running statistics of batch normalization are interpolated too. Averages of models that are far apart need new
    ones (Izmailov et al., 2018); here ``end`` was trained from ``start`` at a low rate, both keep exactly what they
    were measured with, and statistics of frozen layers stay as they are. Counters, which are no floating numbers, are
    those of ``end``. A share of 0 gives exactly ``start``'s floating numbers, a share of 1 exactly ``end``.
    """
    return {
        name: torch.lerp(start[name], tensor, share) if tensor.is_floating_point() else tensor.clone()
        for name, tensor in end.items()
    }
