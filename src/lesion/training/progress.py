"""Progress of training for users: a live bar on a terminal, a log line per epoch, a file for other processes."""

import json
import logging
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities.types import STEP_OUTPUT

from lesion.core.files import write_atomically
from lesion.evaluation.evaluation import finite
from lesion.model.classifier import Batch

logger = logging.getLogger(__name__)

_FILE_S = 0.5  # seconds between two writes of the progress file


class Throughput(Callback):
    """Measures the training images per second and the time left, and logs a line per epoch.

    The values are logged as ``train/images_per_second`` and ``train/seconds_left``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.images_per_second = 0.0
        self.seconds_left = float("nan")
        self._images = 0
        self._started = self._epoch_started = 0.0
        self._epochs_done = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; epochs before a resumed checkpoint do not count."""
        self._started = time.monotonic()
        self._epochs_done = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock."""
        self._epoch_started = time.monotonic()
        self._images = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
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
        """Log the epoch's pace next to its metrics."""
        if not trainer.sanity_checking:
            pl_module.log("train/images_per_second", self.images_per_second, sync_dist=True)
            pl_module.log("train/seconds_left", self.seconds_left, sync_dist=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log one line with the epoch's metrics."""
        self._epochs_done += 1
        metrics = "  ".join(f"{name} {value:.4f}" for name, value in _epoch_metrics(trainer).items())
        logger.info(
            "epoch %d/%s  %s  %.0f images/s  %s left",
            trainer.current_epoch + 1,
            trainer.max_epochs,
            metrics,
            self.images_per_second,
            clock(self.seconds_left),
        )


class ProgressBar(RichProgressBar):
    """Lightning's Rich bar with images per second and the time left of the whole training; off without a terminal."""

    def __init__(self, refresh_rate: int = 5) -> None:
        super().__init__(refresh_rate=refresh_rate)
        if not sys.stderr.isatty():
            self.disable()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the values to the right of the bar."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Throughput) and callback.images_per_second:
                metrics |= {"images/s": f"{callback.images_per_second:.0f}", "left": clock(callback.seconds_left)}
        return metrics


def clock(seconds: float) -> str:
    """Format a duration as minutes and seconds, with hours if there are any; an unknown one is a dash."""
    if seconds != seconds:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressFile(Callback):
    """Writes the progress of training into a small JSON file, for the process that waits for it.

    It holds ``phase`` (``train`` or ``evaluate``), ``epoch`` (finished ones), ``epochs``, ``share`` of the training,
    ``seconds_left`` and ``metrics`` (one object per epoch, with its ``seconds``). A resumed run keeps the metrics of
    the epochs before its checkpoint.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self._path = Path(path)
        self._metrics: list[dict[str, Any]] = []
        self._written = 0.0
        self._epoch_started = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the file of an interrupted run."""
        with suppress(OSError, ValueError, KeyError):
            self._metrics = json.loads(self._path.read_text("utf-8"))["metrics"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep only the epochs before the checkpoint."""
        self._metrics = [row for row in self._metrics if row["epoch"] <= trainer.current_epoch]
        self._write(trainer, 0.0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock."""
        self._epoch_started = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Write the file if the last time is long enough ago."""
        if time.monotonic() - self._written > _FILE_S:
            self._write(trainer, (batch_idx + 1) / max(int(trainer.num_training_batches), 1))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's metrics."""
        row = {"epoch": trainer.current_epoch + 1, "seconds": round(time.monotonic() - self._epoch_started, 3)}
        self._metrics.append(row | finite(_epoch_metrics(trainer)))
        self._write(trainer, 1.0)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that what is left is the evaluation."""
        self._write(trainer, 0.0, "evaluate")

    def _write(self, trainer: Trainer, share: float, phase: str = "train") -> None:
        if not trainer.is_global_zero:
            return
        self._written = time.monotonic()
        epochs = trainer.max_epochs or 1
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        seconds_left = [callback.seconds_left for callback in callbacks if isinstance(callback, Throughput)]
        content = {
            "phase": phase,
            "epoch": len(self._metrics),
            "epochs": epochs,
            "share": min(1.0, (trainer.current_epoch + share) / epochs) if phase == "train" else 1.0,
            "seconds_left": finite(seconds_left[0]) if seconds_left and phase == "train" else None,
            "metrics": self._metrics,
        }
        write_atomically(self._path, json.dumps(content), durable=False)


def _epoch_metrics(trainer: Trainer) -> dict[str, float]:
    names = ("train/loss", "val/loss", "val/acc", "val/f1_macro")
    return {name: float(trainer.callback_metrics[name]) for name in names if name in trainer.callback_metrics}
