"""Resuming a run: the check of its checkpoint, also if its folder was moved."""

import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lesion.core.errors import ConfigError
from lesion.core.text import join_names
from lesion.model.classifier import ImageClassifier

_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")
_SAME = ("classes", "backbone", "optimizer", "scheduler")  # if they differ, the states do not fit


class MovedRun(Callback):
    """Updates the paths of other checkpoints in a checkpoint whose folder was moved.

    Without this, Lightning forgets the score of the best checkpoint as soon as the folder has another name, and then
    looks for it in the old folder.
    """

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Change the states before the ``ModelCheckpoint`` callbacks, which come later, read them."""
        folder = Path(str(trainer.ckpt_path)).resolve().parent

        def moved(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        for state in checkpoint["callbacks"].values():
            if "best_model_path" in state:
                state |= {"dirpath": str(folder)} | {name: moved(state[name]) for name in _PATHS}
                state["best_k_models"] = {moved(path): score for path, score in state["best_k_models"].items()}


def check_checkpoint(path: Path, model: ImageClassifier, max_epochs: int | None) -> None:
    """Raise a ConfigError if a file is not a whole checkpoint, is of another model, or has more epochs.

    A finished run may be resumed with the same ``max_epochs``: this evaluates it again.
    """
    settings, epochs = _read(path)
    for key in _SAME:
        old, new = settings.get(key), model.hparams[key]
        if old != new:
            raise ConfigError(
                f"resume='{path}' is of another run: its {key} {_predicate(old)}, this run's {_predicate(new)}. Give "
                "this run's own checkpoint, or the settings and data of that one."
            )
    if max_epochs is not None and 0 <= max_epochs < epochs:
        raise ConfigError(
            f"resume='{path}' has {epochs} finished epochs, more than trainer.max_epochs={max_epochs}. Set "
            f"trainer.max_epochs to {epochs} or more."
        )


def _read(path: Path) -> tuple[dict[str, Any], int]:
    """Return the settings of a checkpoint's model and its number of finished epochs."""
    if not path.is_file():
        raise ConfigError(f"resume='{path}' does not exist. Give a run's checkpoint: checkpoints/last.ckpt.")
    try:
        # mmap: only its facts are read here, not its tensors
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        epochs = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        settings = content["hyper_parameters"]
        if not content["state_dict"] or not content["optimizer_states"]:
            raise KeyError("weights or optimizer")
        return dict(settings), int(epochs)
    except (OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"resume='{path}' is not a checkpoint of a run of Lesion, or it is not whole ({type(error).__name__}). "
            "Give a run's checkpoints/last.ckpt, or start again without resume."
        ) from error


def _predicate(value: object) -> str:
    return f"are {join_names(value)}" if isinstance(value, list | tuple) else f"is {value}"
