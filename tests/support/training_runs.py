"""A tiny training run for tests."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from lesion.data.manifest import Manifest
from tests.support.paths import REPOSITORY

SHARED = os.environ.get("LESION_SHARED", "")


def compose_config(
    output: Path, *overrides: str, config_name: str = "train", configs: Path = REPOSITORY / "configs"
) -> DictConfig:
    """Compose a config as the command line would, with the run's folder set to ``output``."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(configs), version_base="1.3"):
        return compose(config_name, [f"paths.output={output}", *overrides])


TINY = (
    "data.size=64",
    "data.batch_size=8",
    "model.backbone=mobilenetv2_035",
    "trainer.max_epochs=2",
    "trainer.precision=32-true",
    "trainer.accelerator=cpu",
    "explain.road_images=2",
    "evaluation.folds=0",
    "explain.methods=[gradcam,eigencam]",
    "logger=csv",
    "trainer.log_every_n_steps=1",
)


PHANTOMS = ("experiment=phantom_mri", "data.root.patients=48", "data.root.slices=2", "data.root.size=64")


@dataclass(frozen=True)
class RunFolder:
    """What a finished training run wrote."""

    output: Path

    @property
    def bundle_path(self) -> Path:
        return self.output / "bundle"

    @property
    def manifest(self) -> Manifest:
        return Manifest.load(self.output / "manifest.parquet")


@dataclass(frozen=True)
class Run(RunFolder):
    """A training run that this process made: its config, metrics and objects too."""

    cfg: DictConfig
    metrics: dict[str, float]
    objects: dict[str, Any]
