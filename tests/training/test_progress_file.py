"""The progress file of a real training says how long each epoch took."""

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from lesion.training.progress import ProgressFile

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process


class Slow(BoringModel):
    """Takes at least 50 ms an epoch to train and 50 ms to validate."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        time.sleep(0.025)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        time.sleep(0.025)
        return super().validation_step(batch, batch_idx)


def fit(path: Path, epochs: int, checkpoint: Path | None = None) -> list[dict[str, Any]]:
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, limit_train_batches=2, limit_val_batches=2, callbacks=[ProgressFile(path)],
    )  # fmt: skip
    trainer.fit(Slow(), ckpt_path=None if checkpoint is None else str(checkpoint))
    trainer.save_checkpoint(path.with_suffix(".ckpt"))
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["metrics"]
    return rows


def test_each_epoch_says_how_long_it_took_with_its_validation(tmp_path: Path) -> None:
    file = tmp_path / "progress.json"
    began = time.monotonic()
    rows = fit(file, 2)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(row["seconds"] >= 0.1 for row in rows)
    assert sum(row["seconds"] for row in rows) <= time.monotonic() - began
    again = fit(file, 4, tmp_path / "progress.ckpt")
    assert again[:2] == rows  # what was measured before an interruption is kept
    assert all(new["epoch"] - old["epoch"] == 1 for old, new in pairwise(again))
    assert all(row["seconds"] >= 0.1 for row in again)
