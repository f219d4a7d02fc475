"""Batches of a manifest's splits for Lightning."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lesion.core.cpu import available_cores
from lesion.core.errors import ConfigError
from lesion.core.validation import check_seed, complete_class_names
from lesion.data.cache import PixelCache
from lesion.data.manifest import Manifest, Policy, build_manifest
from lesion.data.masks import read_mask
from lesion.data.samplers import EpochSampler, ShareSampler
from lesion.data.scan import scan_csv, scan_folders
from lesion.data.splits import SPLITS, default_folds
from lesion.imaging.decode import decode, read
from lesion.imaging.limits import Limits
from lesion.imaging.preprocessing import Fit, Interpolation, Preprocessing

UNLABELED = -100  # the label of what only fills up a batch; torch's losses leave it out
FRACTIONS = {"train": 0.70, "val": 0.075, "calibration": 0.075, "test": 0.15}
Augmentation = Callable[[Tensor], Tensor]


class ManifestDataset(Dataset[tuple[Tensor, int]]):
    """Rows of a manifest as (3, S, S) uint8 tensors with class indices.

    An index is a row, a pair of epoch and row, or None for a black image without a label, which fills up the last batch
    of one of several processes. The augmentation of an image depends only on the seed, the epoch and the row, not on
    loader processes or earlier images, so that a resumed run repeats it. The augmentation must draw from torch's random
    numbers, as torchvision's transforms do.
    """

    def __init__(
        self,
        manifest: Manifest,
        rows: pd.DataFrame,
        cache: PixelCache,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self._paths = [manifest.root / path for path in rows["path"]]
        self._masks = [[manifest.root / mask for mask in manifest.masks.get(path, ())] for path in rows["path"]]
        self._hashes = rows["sha256"].tolist()
        self.labels = manifest.labels(rows)
        self._cache = cache
        self._augmentation = augmentation
        self._seed = seed

    def __len__(self) -> int:
        return len(self._paths)

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """Return one row's preprocessed pixels, (S, S, 3) uint8, without augmentation."""
        return self._cache.get(self._paths[row], self._hashes[row])

    def mask(self, row: int) -> NDArray[np.bool_] | None:
        """Return where the lesion of one row is, (S, S), fitted as its pixels are; None without a usable mask.

        Several masks of an image count as one.
        """
        if not self._masks[row]:
            return None
        limits = self._cache.limits
        image = decode(read(self._paths[row], limits), limits)
        found = [mask for path in self._masks[row] if (mask := read_mask(path, limits)) is not None]
        if not found or any(mask.shape != image.shape[:2] for mask in found):
            return None
        return self._cache.preprocessing.fit_mask(np.any(found, axis=0), image)

    def batches(self, rows: Sequence[int] | None = None, size: int = 32) -> Iterator[NDArray[np.uint8]]:
        """Yield the pixels of some rows, or of all, as batches of (B, S, S, 3) uint8, without augmentation."""
        rows = range(len(self)) if rows is None else rows
        for start in range(0, len(rows), size):
            yield np.stack([self.pixels(row) for row in rows[start : start + size]])

    def __getitem__(self, index: int | tuple[int, int] | None) -> tuple[Tensor, int]:
        if index is None:
            side = self._cache.preprocessing.size
            return torch.zeros(3, side, side, dtype=torch.uint8), UNLABELED
        epoch, row = index if isinstance(index, tuple) else (0, index)
        image = torch.from_numpy(self.pixels(row)).permute(2, 0, 1)
        if self._augmentation is not None:
            with torch.random.fork_rng(devices=[]):
                # Only the CPU's generator: dropout on a GPU must not start again with every image.
                seed = np.random.SeedSequence([self._seed, epoch, row]).generate_state(1, np.uint64)[0]
                torch.default_generator.manual_seed(int(seed))
                image = self._augmentation(image)
        return image, int(self.labels[row])


class DataModule(LightningDataModule):
    """A folder of labeled images as train, val, calibration and test batches.

    Args:
        name: The dataset's name.
        root: Its folder: ``class/*`` or ``split/class/*``, or as ``csv`` describes.
        manifest: A saved manifest, which replaces the settings of scan and split.
        csv: The arguments of ``scan_csv`` for a table next to a folder; None for class folders.
        group_pattern: A regular expression whose group is the patient's name in a path.
        split: ``grouped`` makes a new split by group; ``folder`` keeps the test split that came with the data.
        fractions: The shares of train, val, calibration and test.
        split_seed: Seed of the split.
        size: Side in pixels of the images that the network sees.
        fit: How an image becomes a square: ``pad``, ``crop`` or ``stretch``.
        interpolation: How it is resized.
        trim: Whether to cut off dark margins first.
        augmentation: Changes a training image, (3, S, S) uint8.
        batch_size: Images per batch, of each process if several train together.
        balanced: Draw training images so that all classes are equally frequent.
        num_workers: Loader processes of each process; None for one per core, at most 8, and 0 on two cores or fewer.
        cache_dir: The folder for decoded images; None decodes them every epoch.
        seed: Seed of the order and of the augmentation.
        limits: ``max_image_bytes``, ``max_pixels`` and ``min_side`` of images, as for a server; what is left out has
            the usual value. Images of a ``manifest`` were checked when it was made, and are all taken.
        class_names: The names by which classes are shown to persons; a class that is left out is shown by its own.

    Raises:
        ConfigError: A setting makes no sense, or leaves a split without images.
        DataError: The data cannot be used.
    """

    def __init__(
        self,
        name: str,
        root: Path | str,
        *,
        manifest: Path | str | None = None,
        csv: Mapping[str, Any] | None = None,
        group_pattern: str | None = None,
        split: Policy = "grouped",
        fractions: Mapping[str, float] = FRACTIONS,
        split_seed: int = 0,
        size: int = 224,
        fit: Fit = "pad",
        interpolation: Interpolation = "bicubic",
        trim: bool = False,
        augmentation: Augmentation | None = None,
        batch_size: int = 32,
        balanced: bool = False,
        num_workers: int | None = None,
        cache_dir: Path | str | None = None,
        seed: int = 0,
        limits: Mapping[str, int] | None = None,
        class_names: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        if type(batch_size) is not int or batch_size < 2:
            raise ConfigError(
                f"data.batch_size={batch_size} must be a whole number of images, at least 2: batch normalization needs "
                "them."
            )
        check_seed("data.seed", seed)
        check_seed("data.split_seed", split_seed)
        self.preprocessing = Preprocessing(size, fit, interpolation, trim)
        if manifest is not None:
            self.manifest = Manifest.load(Path(manifest), Path(root))
        else:
            root = Path(root)
            rows = scan_csv(root, **csv, group_pattern=group_pattern) if csv else scan_folders(root, group_pattern)
            self.manifest = build_manifest(
                name, root, rows, policy=split, fractions=fractions, seed=split_seed,
                limits=Limits.from_settings(limits),
            )  # fmt: skip
        _check_splits(self.manifest)
        self.class_names = complete_class_names("data.class_names", class_names or {}, self.classes)
        self._fractions = dict(fractions)
        self._cache = PixelCache(Path(cache_dir) if cache_dir else None, self.preprocessing, self.manifest.limits)
        self._augmentation = augmentation
        self._batch_size = batch_size
        self.balanced = balanced
        self._num_workers = num_workers
        self._seed = seed

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in the order of the network's outputs."""
        return self.manifest.classes

    def dataset(self, split: str, augmented: bool = False) -> ManifestDataset:
        """Return the images of one split."""
        augmentation = self._augmentation if augmented else None
        return ManifestDataset(self.manifest, self.manifest.split(split), self._cache, augmentation, self._seed)

    def resplit(self, policy: Policy) -> "DataModule":
        """Return a module of the same images under another split policy."""
        module = copy.copy(self)
        module.manifest = self.manifest.resplit(policy, self._fractions, self.manifest.seed)
        _check_splits(module.manifest)
        return module

    def folds(self, folds: int | None, repeats: int = 1) -> list["DataModule"]:
        """Return a module for each fold of each repeat, with the same images; its test split is the fold.

        ``folds`` is a number of folds, 0 or 1 for none, or None for 5 if there are fewer than 500 images; of a class
        with fewer groups, for as many, and for none if it has fewer than 4. Every repeat divides the images
        differently. A number of folds that the images are too few for is a DataError.
        """
        if folds is None:
            used = self.manifest.used()
            folds = default_folds(self.manifest.labels(used), used["group"].to_numpy(), self.classes)
        if folds < 2:
            return []
        modules = []
        for repeat in range(repeats):
            for manifest in self.manifest.folds(folds, self._fractions, self.manifest.seed + repeat):
                module = copy.copy(self)
                module.manifest = manifest
                _check_splits(manifest)
                modules.append(module)
        return modules

    def class_counts(self) -> NDArray[np.int64]:
        """Return the number of training images per class, (C,)."""
        return np.bincount(self.dataset("train").labels, minlength=len(self.classes)).astype(np.int64)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Return shuffled, augmented training batches, without an incomplete last one."""
        dataset = self.dataset("train", augmented=True)
        weights = 1.0 / self.class_counts()[dataset.labels] if self.balanced else None
        sampler = EpochSampler(len(dataset), self._seed, self._epoch, weights, *self._processes())
        return self._loader(dataset, sampler=sampler, drop_last=len(sampler) >= self._batch_size)

    def train_batches(self, processes: int = 1) -> int:
        """Return the number of training batches per epoch and process."""
        rows = len(self.manifest.split("train")) // processes
        return max(rows // self._batch_size, min(rows, 1))

    def train_batch_paths(self, number: int) -> list[str]:
        """Return the paths, relative to the manifest's root, of this process's training batch of the current epoch."""
        sampler = self.train_dataloader().sampler
        start = number * self._batch_size
        rows = [row for _, row in list(sampler)[start : start + self._batch_size]]
        return [str(path) for path in self.manifest.split("train")["path"].iloc[rows]]

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Return the validation batches."""
        return self._shared_loader("val")

    def test_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Return the test batches."""
        return self._shared_loader("test")

    def predict_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Return the test batches, for ``Trainer.predict``."""
        return self.evaluation_dataloader("test")

    def evaluation_dataloader(self, split: str) -> DataLoader[tuple[Tensor, int]]:
        """Return the batches of any split, in the manifest's order and without augmentation."""
        return self._loader(self.dataset(split))

    def _shared_loader(self, split: str) -> DataLoader[tuple[Tensor, int]]:
        dataset = self.dataset(split)
        return self._loader(dataset, sampler=ShareSampler(len(dataset), *self._processes()))

    def _epoch(self) -> int:
        return int(self.trainer.current_epoch) if self.trainer else 0

    def _processes(self) -> tuple[int, int]:
        """Return how many processes train together, and the number of this one."""
        return (int(self.trainer.world_size), int(self.trainer.global_rank)) if self.trainer else (1, 0)

    def _loader(self, dataset: ManifestDataset, **options: Any) -> DataLoader[tuple[Tensor, int]]:  # noqa: ANN401
        workers = _default_workers(self._processes()[0]) if self._num_workers is None else self._num_workers
        return DataLoader(
            dataset,
            batch_size=self._batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            # The loader draws a seed for its processes, but not from the random numbers of dropout and mixup.
            generator=torch.Generator().manual_seed(self._seed),
            **options,
        )


def _check_splits(manifest: Manifest) -> None:
    """Refuse an empty split now: training, calibration or evaluation would fail later, perhaps after hours."""
    empty = [name for name in SPLITS if manifest.split(name).empty]
    if empty:
        raise ConfigError(
            f"There are no images for {' and '.join(empty)}. The best epoch is chosen on val, probabilities are "
            "calibrated on calibration and scores are measured on test: give each a share above 0 (data.fractions)."
        )


def _default_workers(processes: int = 1) -> int:
    cores = available_cores() // processes
    return 0 if cores <= 2 else min(cores, 8)
