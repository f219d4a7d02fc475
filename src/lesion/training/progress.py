"""What a person sees while a model trains: a live bar on a terminal, a line an epoch everywhere."""

import json
import logging
import math
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

logger = logging.getLogger(__name__)


class Throughput(Callback):
    """Measures the images trained on per second and the time left, and prints a line an epoch.

    The rates are logged as ``train/images_per_second`` and ``train/seconds_left``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.images_per_second = 0.0
        self.seconds_left = float("nan")
        self._images = 0
        self._started = self._epoch_started = 0.0
        self._epochs_done = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; epochs of an earlier run do not count."""
        self._started = time.monotonic()
        self._epochs_done = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock."""
        self._epoch_started = time.monotonic()
        self._images = 0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
    ) -> None:
        """Count the batch and estimate the time left from the pace so far."""
        self._images += len(batch[0]) * trainer.world_size
        now = time.monotonic()
        self.images_per_second = self._images / max(now - self._epoch_started, 1e-9)
        share = (batch_idx + 1) / max(int(trainer.num_training_batches), 1)
        done = self._epochs_done + share
        left = (trainer.max_epochs or 0) - trainer.current_epoch - share
        self.seconds_left = (now - self._started) / done * left

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch's pace beside its metrics."""
        if not trainer.sanity_checking:
            pl_module.log("train/images_per_second", self.images_per_second)
            pl_module.log("train/seconds_left", self.seconds_left)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print one line of what the epoch gave."""
        self._epochs_done += 1
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name in _SHOWN}
        shown = "  ".join(f"{name} {values[name]:.4f}" for name in _SHOWN if name in values)
        logger.info(
            "epoch %d/%s  %s  %.0f images/s  %s left",
            trainer.current_epoch + 1,
            trainer.max_epochs,
            shown,
            self.images_per_second,
            clock(self.seconds_left),
        )


_SHOWN = ("train/loss", "val/loss", "val/acc", "val/f1_macro")


class ProgressBar(RichProgressBar):
    """Lightning's Rich bar with images per second and the time left of the whole training; off without a terminal."""

    def __init__(self, refresh_rate: int = 5) -> None:
        super().__init__(refresh_rate=refresh_rate)
        if not sys.stderr.isatty():
            self.disable()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return what stands right of the bar."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Throughput) and callback.images_per_second:
                metrics |= {"images/s": f"{callback.images_per_second:.0f}", "left": clock(callback.seconds_left)}
        return metrics


def clock(seconds: float) -> str:
    """Write a duration as minutes and seconds, or hours too; unknown ones as a dash."""
    if seconds != seconds:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressFile(Callback):
    """Keeps a small JSON file that says how far training is, for the process that waits for it.

    It holds ``phase`` (``train`` or ``evaluate``), ``epoch`` (how many are done), ``epochs``, ``share`` of the
    training, ``seconds_left`` and ``metrics`` (one object an epoch, with its ``seconds``). A run that goes on from a
    checkpoint keeps the metrics of the epochs before.

    Args:
        path: The file.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self._path = Path(path)
        self._metrics: list[dict[str, Any]] = []
        self._written = 0.0
        self._epoch_started = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read what an interrupted run had written."""
        with suppress(OSError, ValueError, KeyError):
            self._metrics = json.loads(self._path.read_text("utf-8"))["metrics"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep of it what the checkpoint has seen."""
        self._metrics = [row for row in self._metrics if row["epoch"] <= trainer.current_epoch]
        self._write(trainer, 0.0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock."""
        self._epoch_started = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
    ) -> None:
        """Write now and then."""
        if time.monotonic() - self._written > _FILE_S:
            self._write(trainer, (batch_idx + 1) / max(int(trainer.num_training_batches), 1))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's metrics."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name in _SHOWN}
        row = {"epoch": trainer.current_epoch + 1, "seconds": round(time.monotonic() - self._epoch_started, 3)}
        self._metrics.append(row | {name: _finite(values[name]) for name in values})
        self._write(trainer, 1.0)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that what is left is the evaluation."""
        self._write(trainer, 0.0, "evaluate")

    def _write(self, trainer: Trainer, share: float, phase: str = "train") -> None:
        if not trainer.is_global_zero:
            return
        self._written = time.monotonic()
        epochs = trainer.max_epochs or 1
        pace = [one.seconds_left for one in trainer.callbacks if isinstance(one, Throughput)]  # type: ignore[attr-defined]
        content = {
            "phase": phase,
            "epoch": len(self._metrics),
            "epochs": epochs,
            "share": min(1.0, (trainer.current_epoch + share) / epochs) if phase == "train" else 1.0,
            "seconds_left": _finite(pace[0]) if pace and phase == "train" else None,
            "metrics": self._metrics,
        }
        temporary = self._path.with_suffix(".part")
        temporary.write_text(json.dumps(content), "utf-8")
        temporary.replace(self._path)


_FILE_S = 0.5


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
