"""Going on with a run: the check of its checkpoint, also when its folder is not where it was."""

import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lesion.core.errors import ConfigError
from lesion.core.validation import some
from lesion.model.classifier import ImageClassifier

_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")
_SAME = ("classes", "backbone", "optimizer", "scheduler")  # without these the states mean nothing, or do not fit


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


def check_checkpoint(path: Path, model: ImageClassifier, max_epochs: int | None) -> None:
    """Refuse to go on from a checkpoint that is none, is of another model, or is further than the run shall go.

    A run that is done may be taken up with the same ``max_epochs``: that evaluates it again.

    Raises:
        ConfigError: It cannot be gone on from.
    """
    settings, epochs = _read(path)
    for key in _SAME:
        was, now = settings.get(key), model.hparams[key]
        if was != now:
            raise ConfigError(
                f"resume='{path}' is of another run: its {key} {_shown(was)}, this run's {_shown(now)}. Give this "
                "run's own checkpoint, or the settings and data of that one."
            )
    if max_epochs is not None and 0 <= max_epochs < epochs:
        raise ConfigError(
            f"resume='{path}' has {epochs} epochs behind it, more than trainer.max_epochs={max_epochs}. Set "
            f"trainer.max_epochs to {epochs} or more."
        )


def _read(path: Path) -> tuple[dict[str, Any], int]:
    """Return the settings of a checkpoint's model and how many epochs are behind it."""
    if not path.is_file():
        raise ConfigError(f"resume='{path}' does not exist. Give a run's checkpoint: checkpoints/last.ckpt.")
    try:
        # mmap: its facts are wanted, not yet its tensors
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        epochs = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        settings = content["hyper_parameters"]
        if not content["state_dict"] or not content["optimizer_states"]:
            raise KeyError("weights or optimiser")
        return dict(settings), int(epochs)
    except (OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"resume='{path}' is not a checkpoint that a run of Lesion's wrote, or it is not whole "
            f"({type(error).__name__}). Give a run's checkpoints/last.ckpt, or begin anew without resume."
        ) from error


def _shown(value: object) -> str:
    return f"are {some(value)}" if isinstance(value, list | tuple) else f"is {value}"
