"""A loss that is not a number ends the training, and the message names the batch and its images."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lesion.data.datamodule import DataModule
from lesion.model.classifier import Batch, ImageClassifier
from lesion.training.finite_loss import FiniteLoss, LossNotFiniteError
from tests.support.images.pictures import write_classes

pytestmark = pytest.mark.slow  # every test here trains


class Broken(ImageClassifier):
    """A classifier whose loss is ``value`` in one batch of one epoch."""

    epoch, batch, value = 1, 2, float("nan")
    paths: tuple[str, ...] = ()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if (self.current_epoch, batch_idx) != (self.epoch, self.batch):
            return loss
        self.paths = tuple(self.trainer.datamodule.train_batch_paths(batch_idx))  # type: ignore[attr-defined]
        self.labels = batch[1].tolist()
        return loss * self.value


def trained(tmp_path: Path, model: ImageClassifier, **options: Any) -> Trainer:
    data = DataModule("x", write_classes(tmp_path, {"a": 24, "b": 24}), size=32, batch_size=8, num_workers=0)
    trainer = Trainer(
        accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[FiniteLoss()], **options,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    return trainer


def make(kind: type[ImageClassifier] = Broken, **settings: Any) -> Any:
    torch.manual_seed(0)
    return kind(["a", "b"], backbone="mobilenetv2_035", weights="none", **settings)


@pytest.mark.parametrize(("batch", "value"), [(2, float("nan")), (0, float("inf")), (3, -float("inf"))])
def test_the_batch_and_its_images_are_named(tmp_path: Path, batch: int, value: float) -> None:
    model = make()
    model.batch, model.value = batch, value
    with pytest.raises(LossNotFiniteError) as stopped:
        trained(tmp_path, model)
    message = str(stopped.value)
    assert f"The loss is {value} in epoch 2, batch {batch + 1} ({', '.join(model.paths)})" in message
    assert len(model.paths) == 8
    assert [path[0] for path in model.paths] == ["ab"[label] for label in model.labels]  # a path begins with its class
    assert stopped.value.code == "loss_not_finite"
    assert "\n" not in message


def test_a_learning_rate_that_is_far_too_high_says_so(tmp_path: Path) -> None:
    model = make(ImageClassifier, lr=1e30, backbone_lr_factor=1.0, optimizer="sgd", scheduler=None)
    with pytest.raises(LossNotFiniteError, match=r"set a smaller model\.lr"):
        trained(tmp_path, model)


def test_a_training_that_goes_well_ends_by_itself(tmp_path: Path) -> None:
    trainer = trained(tmp_path, make(ImageClassifier, lr=1e-4), limit_val_batches=0)
    assert trainer.current_epoch == 3
