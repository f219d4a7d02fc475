"""The end of a training whose loss is not a number any more."""

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lesion.core.errors import LesionError
from lesion.training.process_group import is_first_process

_SHOWN = 8  # images of the batch that the message names


class LossNotFiniteError(LesionError):
    """A training whose loss became infinite or not a number."""

    default_code = "loss_not_finite"


class FiniteLoss(Callback):
    """Ends a training when a batch's loss is infinite or not a number, and names the batch and its images.

    A loss is looked at when the next batch has its own, so that a GPU need not wait for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: tuple[int, Tensor] | None = None  # a batch's number and its loss

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the epoch before, which may have been stopped."""
        self._last = None

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Check the batch before this one."""
        self._check(trainer)
        self._last = trainer.fit_loop.batch_idx, loss.detach()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the last batch before the validation, after which checkpoints are written."""
        self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the last batch of an epoch without a validation."""
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if self._last is None:
            return
        (number, loss), self._last = self._last, None
        finite = bool(torch.isfinite(loss).all())
        if trainer.world_size > 1:  # all processes end, or none: the others would wait for the one that ended
            if trainer.strategy.reduce_boolean_decision(finite, all=True):
                return
        elif finite:
            return
        value, paths = _of_all_processes(trainer, number, None if finite else float(loss.mean()))
        if not is_first_process():
            raise SystemExit(0)  # the first one says it
        shown = ", ".join(paths[:_SHOWN]) + (f" and {len(paths) - _SHOWN} others" if len(paths) > _SHOWN else "")
        raise LossNotFiniteError(
            f"The loss is {value} in epoch {trainer.current_epoch + 1}, batch {number + 1}"
            f"{f' ({shown})' if shown else ''}, so the training was ended. Most often the learning rate is too high: "
            "set a smaller model.lr. If that does not help, try trainer.precision=32-true, and look at these images."
        )


def _of_all_processes(trainer: Trainer, number: int, value: float | None) -> tuple[float, list[str]]:
    """Return the loss that is no number, and the paths of its images, of the processes that have one."""
    datamodule: Any = getattr(trainer, "datamodule", None)
    known = value is not None and hasattr(datamodule, "train_batch_paths")
    own = (value, datamodule.train_batch_paths(number) if known else [])
    found: list[Any] = [own]
    if trainer.world_size > 1:
        found = [None] * trainer.world_size
        torch.distributed.all_gather_object(found, own)
    values = [each for each, _ in found if each is not None]
    return (values[0] if values else math.nan), [path for _, paths in found for path in paths]
