"""Train, evaluate, explain and bundle a classifier: lesion train experiment=phantom_mri.

Settings are Hydra's (configs/train.yaml); -m sweeps: lesion train -m model.lr=1e-3,3e-3 experiment=…
"""

import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from lesion.core.cli_errors import cli_errors
from lesion.core.commands import run_with_hydra


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one training, or a sweep of several."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # large pages for torch on a CPU; read when torch is imported
    run_with_hydra(_train, "train", arguments)
    return 0


def _train(config: DictConfig) -> float | None:
    """Run one training and return what a sweep ranks by."""
    from lesion.training.run import train

    with cli_errors(Path(config.paths.output) / "checkpoints" / "last.ckpt"):
        metrics, _ = train(config)
        return metrics.get(config.optimized_metric)
