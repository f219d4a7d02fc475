"""Batches: their order, their augmentation and their balance, whatever the number of workers."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch.utils.data import Dataset

from lesion.core.errors import ConfigError, DataError
from lesion.data import datamodule as module
from lesion.data.datamodule import DataModule
from lesion.data.samplers import EpochSampler
from lesion.data.splits import SPLITS
from lesion.data.transforms import augmentation
from tests.support.images.pictures import picture, write_classes

AUGMENTATION = augmentation(horizontal_flip=0.5, rotation=20, brightness=0.3)
OPTIONS: dict[str, Any] = {
    "size": 32,
    "batch_size": 4,
    "num_workers": 0,
    "fractions": {"train": 0.6, "val": 0.2, "calibration": 0.1, "test": 0.1},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Three times as many pictures of a as of b, in train and test folders."""
    folder: Path = tmp_path_factory.mktemp("datamodule")
    write_classes(folder, {"Training/a": 27, "Training/b": 9, "Testing/a": 3, "Testing/b": 1})
    return folder


def make(root: Path, **options) -> DataModule:
    return DataModule("tiny", root, **(OPTIONS | options))


@pytest.fixture(scope="module")
def data(root) -> DataModule:
    return make(root, augmentation=AUGMENTATION)


def batches(loader) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(images.clone(), labels.clone()) for images, labels in loader]


def are_equal(one, other) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(one, other, strict=True)
    )


def test_splits_and_classes(data):
    assert data.classes == ("a", "b")
    assert data.class_counts().tolist() == [18, 6]
    assert {name: len(data.dataset(name)) for name in ("train", "val", "calibration", "test")} == {
        "train": 24,
        "val": 8,
        "calibration": 4,
        "test": 4,
    }


def test_classes_are_shown_by_the_names_that_are_configured(root):
    assert make(root).class_names == {"a": "a", "b": "b"}
    assert make(root, class_names={"b": "Second"}).class_names == {"a": "a", "b": "Second"}
    with pytest.raises(ConfigError, match=r"data\.class_names names 'c', which is not a class"):
        make(root, class_names={"c": "Third"})


def test_evaluation_batches_are_the_preprocessed_files_in_order(data):
    rows = data.manifest.split("val")
    loaded = batches(data.val_dataloader())
    images, labels = (torch.cat(parts) for parts in zip(*loaded, strict=True))
    assert (images.shape, images.dtype, labels.dtype) == ((8, 3, 32, 32), torch.uint8, torch.int64)
    assert labels.tolist() == data.manifest.labels(rows).tolist()
    for image, path in zip(images, rows["path"], strict=True):
        pixels = data.preprocessing.read((data.manifest.root / path).read_bytes())
        assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)
    assert are_equal(loaded, batches(data.evaluation_dataloader("val")))
    assert len(batches(data.test_dataloader())) == 1


def test_training_batches_cover_the_split_and_are_augmented(data):
    dataset = data.dataset("train")
    plain = {bytes(dataset.pixels(row)) for row in range(len(dataset))}
    augmented = [bytes(image.permute(1, 2, 0).numpy()) for images, _ in data.train_dataloader() for image in images]
    assert len(augmented) == 24
    assert not plain & set(augmented)
    labels = torch.cat([labels for _, labels in data.train_dataloader()])
    assert torch.bincount(labels).tolist() == [18, 6]


@pytest.mark.slow
def test_workers_change_nothing(root, data):
    two = make(root, augmentation=AUGMENTATION, num_workers=2)
    assert are_equal(batches(two.train_dataloader()), batches(data.train_dataloader()))


def test_augmentation_follows_seed_epoch_and_row_alone(root, data):
    dataset = data.dataset("train", augmented=True)
    image = dataset[1, 5][0]
    torch.manual_seed(99)
    dataset[0, 3]
    assert torch.equal(dataset[1, 5][0], image)
    assert torch.equal(dataset[5][0], dataset[0, 5][0])
    assert not torch.equal(dataset[0, 5][0], image)
    other = make(root, augmentation=AUGMENTATION, seed=1).dataset("train", augmented=True)
    assert not torch.equal(other[1, 5][0], image)


def test_loading_leaves_the_random_numbers_of_others_alone(data):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    batches(data.train_dataloader())
    assert torch.equal(torch.rand(3), expected)


def test_a_dataset_ends(data):
    assert isinstance(data.dataset("val"), Dataset)
    dataset: Any = data.dataset("val")
    assert len(list(dataset)) == 8
    with pytest.raises(IndexError):
        dataset[8]


def test_the_order_follows_seed_and_epoch_alone():
    def order(seed: int, epoch: int) -> list[tuple[int, int]]:
        return list(EpochSampler(50, seed, lambda: epoch))

    assert sorted(order(0, 2)) == [(2, row) for row in range(50)]
    assert order(0, 2) == order(0, 2)
    rows = [[row for _, row in order(seed, epoch)] for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert rows[0] != rows[1]
    assert rows[0] != rows[2]
    assert rows[1] != rows[2]


def test_balanced_draws_even_out_the_classes(root):
    data = make(root, balanced=True)
    sampler: Any = data.train_dataloader().sampler
    labels = data.dataset("train").labels
    drawn = [row for epoch in range(40) for _, row in EpochSampler(24, 0, lambda: epoch, sampler._shares)]  # noqa: B023
    assert len(drawn) == 960
    counts = np.bincount(labels[drawn])
    assert abs(counts[0] - 480) < 62  # four standard deviations of √960/2 = 15.5


class Recorder(LightningModule):
    """Learns nothing; notes the batches of every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.epochs: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def test_step(self, batch, batch_idx):
        self.epochs.setdefault(-1, []).append((batch[0].clone(), batch[1].clone()))

    def predict_step(self, batch, _):
        return batch[1]

    def training_step(self, batch, _):
        self.epochs.setdefault(self.current_epoch, []).append((batch[0].clone(), batch[1].clone()))
        return self.weight * 0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.filterwarnings("ignore")
def test_epochs_differ_and_a_resumed_run_repeats_them(root, tmp_path):
    def fit(epochs: int, checkpoint: Path | None = None) -> tuple[Recorder, Trainer]:
        recorder = Recorder()
        trainer = Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path, limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(recorder, datamodule=make(root, augmentation=AUGMENTATION), ckpt_path=checkpoint)
        return recorder, trainer

    whole, _ = fit(3)
    assert [len(whole.epochs[epoch]) for epoch in range(3)] == [6, 6, 6]
    assert not are_equal(whole.epochs[0], whole.epochs[1])
    _, trainer = fit(1)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    resumed, _ = fit(3, tmp_path / "first.ckpt")
    assert sorted(resumed.epochs) == [1, 2]
    assert all(are_equal(resumed.epochs[epoch], whole.epochs[epoch]) for epoch in (1, 2))


@pytest.mark.filterwarnings("ignore")
def test_lightnings_trainer_tests_and_predicts_the_test_split_in_order(root, tmp_path):
    data = make(root, augmentation=AUGMENTATION, batch_size=3)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    recorder = Recorder()
    trainer.test(recorder, datamodule=data, verbose=False)
    assert are_equal(recorder.epochs[-1], batches(data.evaluation_dataloader("test")))
    predictions: Any = trainer.predict(recorder, datamodule=data)
    labels = torch.cat(predictions)
    assert labels.tolist() == data.manifest.labels(data.manifest.split("test")).tolist()


def test_a_last_batch_that_is_not_full_is_left_out_of_training_alone(root):
    data = make(root, batch_size=7)
    assert [len(labels) for _, labels in data.train_dataloader()] == [7, 7, 7]
    assert [len(labels) for _, labels in data.val_dataloader()] == [7, 1]
    assert [len(labels) for _, labels in make(root, batch_size=100).train_dataloader()] == [24]


def test_resplit_leaves_the_first_as_it_was(data):
    before = data.manifest.fingerprint
    other = data.resplit("folder")
    assert data.manifest.fingerprint == before
    assert other.manifest.policy == "folder"
    assert set(other.manifest.split("test")["source_split"]) == {"test"}
    assert len(other.dataset("test")) == 4


def test_a_saved_manifest_is_used_instead_of_a_new_one(root, data, tmp_path):
    path = data.manifest.resplit("grouped", OPTIONS["fractions"], 5).save(tmp_path / "m.parquet")
    again = make(root, manifest=path, split_seed=1)
    assert again.manifest.seed == 5
    assert again.manifest.fingerprint == DataModule("t", root, **(OPTIONS | {"split_seed": 5})).manifest.fingerprint


def test_csv_and_patients(tmp_path):
    write_classes(tmp_path, {"img": 20})
    names = [f"{number:03}.png" for number in range(20)]
    pd.DataFrame({"file": names, "kind": ["x", "y"] * 10}).to_csv(tmp_path / "t.csv", index=False)
    csv = {"csv": "t.csv", "images": "img", "path_column": "file", "label_column": "kind"}
    data = make(tmp_path, csv=csv, group_pattern=r"(\d+)\.png")
    assert data.classes == ("x", "y")
    assert data.manifest.table["patient"].tolist() == [name[:3] for name in names]


def test_the_cache_holds_each_image_once(root, tmp_path):
    data = make(root, cache_dir=tmp_path / "cache", num_workers=2)
    for _ in range(2):
        batches(data.train_dataloader())
    files = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert len(files) == 24
    assert {file.stat().st_size for file in files} == {32 * 32 * 3}


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (2, 0), (3, 3), (8, 8), (64, 8)])
def test_default_workers(monkeypatch, cores, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    assert module._default_workers() == workers


def test_settings_that_cannot_work_are_refused(root):
    with pytest.raises(ConfigError, match="batch_size=1"):
        make(root, batch_size=1)
    with pytest.raises(DataError, match=r"data\.fractions"):
        make(root, fractions={"train": 0.9, "test": 0.9})
    with pytest.raises(ConfigError, match=r"data\.seed=-1 must be a whole number"):
        make(root, seed=-1)
    with pytest.raises(ConfigError, match=r"data\.split_seed=x must be a whole number"):
        make(root, split_seed="x")
    with pytest.raises(ConfigError, match=r"preprocessing\.fit"):
        make(root, fit="squeeze")


@pytest.mark.parametrize("empty", ["val", "calibration", "test"])
def test_a_split_without_images_is_refused(root, tmp_path, empty):
    fractions = {name: 0.0 if name == empty else 0.25 for name in ("val", "calibration", "test")}
    fractions["train"] = 1 - sum(fractions.values())
    with pytest.raises(ConfigError, match=f"There are no images for {empty}\\. .*data\\.fractions"):
        make(root, fractions=fractions)
    whole = make(root).manifest
    manifest = whole.resplit("grouped", fractions, 0).save(tmp_path / "m.parquet")
    with pytest.raises(ConfigError, match=f"There are no images for {empty}"):
        make(root, manifest=manifest)


def test_a_share_that_the_folders_bring_may_be_zero(root):
    shares = {"train": 0.5, "val": 0.25, "calibration": 0.25, "test": 0.0}
    assert len(make(root, split="folder", fractions=shares).dataset("test")) == 4


def test_masks_are_fitted_as_their_images_are(tmp_path):
    """A bright square is the image and its own mask; margins are trimmed from both."""
    rng = np.random.default_rng(0)
    for number in range(40):
        shown = np.zeros((120, 160, 3), np.uint8)
        shown[10:110, 40:140] = 40 + picture(number, 100) * 0.35
        top, left = int(rng.integers(15, 70)), int(rng.integers(45, 105))
        shown[top : top + 30, left : left + 30] = 250
        for path, content in (
            (tmp_path / f"{'ab'[number % 2]}" / f"{number:02}.png", shown),
            (tmp_path / "masks" / f"{'ab'[number % 2]}" / f"{number:02}.png", (shown > 200).astype(np.uint8)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            if number != 3 or "masks" not in str(path):
                Image.fromarray(content).save(path)
    data = DataModule(name="squares", root=tmp_path, size=96, trim=True, num_workers=0, fractions=OPTIONS["fractions"])
    found = 0
    for split in SPLITS:
        dataset = data.dataset(split)
        for row in range(len(dataset)):
            mask = dataset.mask(row)
            if mask is None:
                continue
            found += 1
            bright = dataset.pixels(row)[..., 0] > 190
            assert mask.shape == (96, 96)
            assert (mask & bright).sum() / (mask | bright).sum() > 0.9
    assert found == 39
