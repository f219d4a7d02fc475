"""Make a storage ready for servers and workers: tables, API keys, the first model: python scripts/prepare.py

Settings are Hydra's (configs/prepare.yaml); the storage must be the server's: storage=cluster for all. Keys come from
the environment: LESION_ADMIN_KEY (role admin) and LESION_METRICS_KEY (role viewer, for Prometheus).
"""

from pathlib import Path

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig

from lesion.core.cli_errors import cli_errors, run_with_hydra


@hydra.main(version_base="1.3", config_path="../configs", config_name="prepare")
def main(cfg: DictConfig) -> None:
    """Prepare it and end."""
    from lesion.cli.prepare import FirstTraining, prepare

    with cli_errors():
        script = Path(__file__).with_name("train.py")
        training = FirstTraining(script, cfg.first_experiment, Path(cfg.folder), tuple(cfg.settings))
        prepare(instantiate(cfg.storage), training, cfg.bundle and Path(cfg.bundle))


if __name__ == "__main__":
    run_with_hydra(main)
