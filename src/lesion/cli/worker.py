"""Run retrainings: lesion worker.

Settings are Hydra's (configs/worker.yaml); the storage must be the server's: storage=cluster for both.
"""

import logging
from collections.abc import Sequence

from omegaconf import DictConfig

from lesion.core.commands import run_with_hydra
from lesion.core.logs import announce, configure
from lesion.core.parent_death import end_with_parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Work until SIGTERM or SIGINT."""
    run_with_hydra(_work, "worker", arguments)
    return 0


def _work(config: DictConfig) -> None:
    if config.parent is not None:
        end_with_parent(config.parent)
    from hydra.utils import instantiate

    from lesion.retraining.worker import WorkerProcess

    for name in ("alembic", "aiobotocore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    configure(config.log_format)
    worker = WorkerProcess(instantiate(config.storage), instantiate(config.retrain), instantiate(config.gate))
    announce(f"Worker {worker.id} waits for retrainings.")
    worker.run()
