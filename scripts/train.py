"""Train, evaluate, explain and bundle a classifier: python scripts/train.py experiment=phantom_mri.

Settings are Hydra's (configs/train.yaml); -m sweeps: python scripts/train.py -m model.lr=1e-3,3e-3 experiment=…
"""

import os
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # large pages for torch on a CPU; read when torch is imported

import hydra
from omegaconf import DictConfig

from lesion.core.cli_errors import cli_errors, run_with_hydra
from lesion.training.run import train


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Run one training and return what a sweep ranks by."""
    with cli_errors(Path(cfg.paths.output) / "checkpoints" / "last.ckpt"):
        metrics, _ = train(cfg)
        return metrics.get(cfg.optimized_metric)


if __name__ == "__main__":
    run_with_hydra(main)
