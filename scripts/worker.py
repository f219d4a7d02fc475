"""Run retraining jobs: python scripts/worker.py

Settings are Hydra's (configs/worker.yaml); the storage must be the server's: storage=cluster for both.
"""

import logging

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig

from lesion.core.cli_errors import cli_errors
from lesion.core.logs import announce, configure
from lesion.core.parent_death import tether


@hydra.main(version_base="1.3", config_path="../configs", config_name="worker")
def main(cfg: DictConfig) -> None:
    """Work until SIGTERM or SIGINT."""
    if cfg.parent is not None:
        tether(cfg.parent)
    from lesion.retraining.worker import WorkerProcess

    for name in ("alembic", "aiobotocore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with cli_errors():
        configure(cfg.log_format)
        worker = WorkerProcess(instantiate(cfg.storage), instantiate(cfg.retrain), instantiate(cfg.gate))
        announce(f"Worker {worker.id} waits for retrainings.")
        worker.run()


if __name__ == "__main__":
    main()
