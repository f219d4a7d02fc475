"""Going on with a run whose folder is not where it was: on another disk, or renamed."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class MovedRun(Callback):
    """Leads a checkpoint's memory of the other checkpoints to the folder that it lies in.

    Without this Lightning forgets how good the best one was as soon as the folder has another name, and then looks for
    it where it is no more.
    """

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Change what the ``ModelCheckpoint`` callbacks, which come later, are about to read."""
        folder = Path(str(trainer.ckpt_path)).resolve().parent

        def here(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        for state in checkpoint["callbacks"].values():
            if "best_model_path" in state:
                state |= {"dirpath": str(folder)} | {name: here(state[name]) for name in _PATHS}
                state["best_k_models"] = {here(path): score for path, score in state["best_k_models"].items()}
