"""Fine-tuning: it learns, it repeats, it goes on where it stopped."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from omegaconf import DictConfig
from torch.utils.data import DataLoader, TensorDataset

from lesion.core.errors import ConfigError
from lesion.data.datamodule import DataModule
from lesion.data.transforms import augmentation
from lesion.model.classifier import ImageClassifier, balanced_weights
from lesion.model.finetune import FineTuning
from lesion.model.inference import dataset_logits
from lesion.training.fitting import fit
from tests.support.training_runs import Run

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def make_model(classes: Sequence[str] = ("a", "b"), **settings: Any) -> ImageClassifier:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {
        "backbone": "mobilenetv2_035",
        "weights": "none",
        "drop_rate": 0.0,
        "lr": 3e-3,
        "backbone_lr_factor": 1.0,
    }
    return ImageClassifier(classes, **(defaults | settings))


@pytest.mark.slow
def test_loss_on_eight_images_goes_to_zero() -> None:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (8, 3, 32, 32), np.uint8))
    loader = DataLoader(TensorDataset(images, torch.tensor([0, 1] * 4)), batch_size=8)
    model = make_model(weight_decay=0.0, scheduler=None)
    trainer = Trainer(max_epochs=40, callbacks=[FineTuning(0, -1)], enable_checkpointing=False, **QUIET)
    trainer.fit(model, loader)
    assert trainer.callback_metrics["train/loss"] < 0.02


@pytest.fixture(scope="module")
def data(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], DataModule]:
    """The tiny phantoms of the shared run, with augmentation that draws random numbers."""
    datamodule = run.objects["datamodule"]

    def make() -> DataModule:
        return DataModule(
            "phantom",
            datamodule.manifest.root,
            manifest=run.output / "manifest.parquet",
            size=32,
            batch_size=8,
            augmentation=augmentation(horizontal_flip=0.5, rotation=10, brightness=0.2),
        )

    return make


def train_epochs(data: DataModule, folder: Path, epochs: int, resume: Path | None = None) -> ImageClassifier:
    """Train for 3 epochs by schedule, dropping out and mixing, and stop after ``epochs``."""
    model = make_model(data.classes, drop_rate=0.3, mixup=0.2)

    class StopAfter(FineTuning):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.should_stop = trainer.current_epoch + 1 >= epochs

    callbacks = [
        StopAfter(1, 20),
        EMAWeightAveraging(decay=0.9),
        ModelCheckpoint(folder, "last", enable_version_counter=False),
    ]
    trainer = Trainer(max_epochs=3, num_sanity_val_steps=0, callbacks=callbacks, **QUIET)
    trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
    return model


def test_resumed_run_equals_an_uninterrupted_one(data: Callable[[], DataModule], tmp_path: Path) -> None:
    whole = train_epochs(data(), tmp_path / "whole", 3)
    train_epochs(data(), tmp_path / "halves", 2)
    resumed = train_epochs(data(), tmp_path / "halves", 3, tmp_path / "halves" / "last.ckpt")
    untrained = make_model(data().classes).state_dict()
    moved = 0.0
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, rtol=1e-5, atol=1e-5)
        moved = max(moved, float((tensor.float() - untrained[name].float()).abs().max()))
    assert moved > 1e-3


def test_same_seed_gives_the_same_metrics(tiny_config: Callable[..., DictConfig], run: Run, tmp_path: Path) -> None:
    results = []
    for name in ("first", "second"):
        cfg = tiny_config(tmp_path / name, "trainer.max_epochs=1", "logger=csv")
        _, trainer = fit(cfg, run.objects["datamodule"])
        results.append({key: float(value) for key, value in trainer.callback_metrics.items()})
    timing = {"train/images_per_second", "train/seconds_left"}
    assert {k: v for k, v in results[0].items() if k not in timing} == {
        k: v for k, v in results[1].items() if k not in timing
    }
    assert "val/f1_macro" in results[0]


@pytest.mark.slow
def test_what_only_fills_up_a_batch_is_not_measured() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (7, 3, 32, 32), np.uint8))
    labels = torch.tensor([0, 1, 0, 1, 1, 0, 0])
    filled = (
        torch.cat([images, torch.zeros(2, 3, 32, 32, dtype=torch.uint8)]),
        torch.cat([labels, torch.full((2,), -100)]),
    )
    model = make_model()
    results = [
        Trainer(**QUIET).validate(model, DataLoader(TensorDataset(*data), batch_size=4), verbose=False)[0]
        for data in ((images, labels), filled)
    ]
    assert results[1] == pytest.approx(results[0], rel=1e-5)
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(images[:4]), model(images[4:])])
    assert results[0]["val/loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert results[0]["val/acc"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()))


def test_balanced_weights_by_hand() -> None:
    assert balanced_weights([6, 3, 1]) == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert balanced_weights([4, 0]) == [0.5, 0.0]


def test_head_learns_faster_than_the_backbone_and_biases_do_not_decay() -> None:
    model = make_model(lr=1e-2, backbone_lr_factor=0.1, weight_decay=0.05, scheduler=None)
    groups = {(round(group["lr"], 9), group["weight_decay"]) for group in model.configure_optimizers().param_groups}
    assert groups == {(1e-2, 0.05), (1e-2, 0.0), (1e-3, 0.05), (1e-3, 0.0)}
    decayed = [p for g in model.configure_optimizers().param_groups if g["weight_decay"] for p in g["params"]]
    assert min(p.ndim for p in decayed) == 2
    assert sum(len(g["params"]) for g in model.configure_optimizers().param_groups) == len(list(model.parameters()))


def test_label_smoothing_is_applied_once_with_mixup() -> None:
    model = make_model(mixup=0.2, label_smoothing=0.1)
    assert model.mixing is not None
    _, targets = model.mixing(torch.rand(4, 3, 8, 8), torch.tensor([0, 0, 0, 0]))
    assert targets.max() == 1.0  # mixing images of one class gives that class, not a smoothed one


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"label_smoothing": 1.0}, {"drop_rate": 1.0}, {"mixup": -0.1}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"model\."):
        make_model(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer": "foo"}, "model.optimizer=foo cannot be used"),
        ({"scheduler": "foo"}, "model.scheduler=foo"),
        ({"scheduler": "plateau"}, "model.scheduler=plateau is not a schedule by steps"),
        ({"class_weights": "even"}, "model.class_weights=even must be balanced, null, or a list of 2 numbers"),
        ({"class_weights": [1.0, 2.0, 3.0]}, "a list of 2 numbers"),
        ({"class_weights": [1.0, -2.0]}, "a list of 2 numbers"),
        ({"seed": -1}, "model.seed=-1 must be a whole number from 0 to 4294967295"),
        ({"seed": 1.5}, "model.seed=1.5"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        make_model(**settings)


def test_classes_can_be_weighed_by_hand() -> None:
    assert make_model(class_weights=[1.0, 3.0]).class_weights.tolist() == [1.0, 3.0]


def test_one_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2 classes"):
        ImageClassifier(["only"], weights="none")


@pytest.fixture(scope="module")
def trained(run: Run) -> ImageClassifier:
    model = run.objects["model"]
    assert isinstance(model, ImageClassifier)
    return model


def test_trainer_test_measures_the_test_split(data: Callable[[], DataModule], trained: ImageClassifier) -> None:
    datamodule = data()
    [metrics] = Trainer(enable_checkpointing=False, **QUIET).test(trained, datamodule=datamodule, verbose=False)
    batches: Any = Trainer(**QUIET).predict(trained, datamodule=datamodule)
    labels = torch.from_numpy(datamodule.dataset("test").labels)
    predictions = torch.cat(batches).argmax(dim=1)
    assert set(metrics) == {"test/loss", "test/acc", "test/f1_macro"}
    assert metrics["test/acc"] == pytest.approx((predictions == labels).float().mean().item())


def test_trainer_predict_gives_logits_in_the_order_of_the_test_split(
    data: Callable[[], DataModule], trained: ImageClassifier
) -> None:
    datamodule = data()
    batches: Any = Trainer(**QUIET).predict(trained, datamodule=datamodule)
    logits = torch.cat(batches)
    assert logits.shape == (len(datamodule.dataset("test")), len(datamodule.classes))
    expected = dataset_logits(trained.network, datamodule.dataset("test"))
    np.testing.assert_allclose(logits.numpy(), expected, atol=1e-4)
    images = torch.stack([datamodule.dataset("test")[0][0]])
    torch.testing.assert_close(trained.predict_step(images, 0), logits[:1], atol=1e-4, rtol=1e-4)
