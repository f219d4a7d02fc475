"""Leakage of a split that came with the data: its test images with near-duplicates among its training images."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lesion.data.manifest import Manifest
from lesion.imaging.decode import decode, read
from lesion.imaging.montage import montage


@dataclass(frozen=True, eq=False)
class Leakage:
    """The leaked test images of a split."""

    test_images: int  # the number of images of the test split that came with the data
    # One row per leaked test image: path, label, train_path, train_label. The training image is the one in the same
    # duplicate group with the nearest perceptual hash.
    pairs: pd.DataFrame
    per_class: dict[str, dict[str, int]]  # the numbers of test images and of leaked ones for each class

    @property
    def leaked(self) -> int:
        """The number of test images with a near-duplicate in the training split."""
        return len(self.pairs)

    def accuracies(self, paths: Sequence[str], correct: NDArray[np.bool_]) -> tuple[float, float]:
        """Return a model's accuracy on the leaked test images and on the others; NaN without such images.

        ``correct`` tells which of the N test images ``paths`` the model classified correctly, (N,).
        """
        leaked = pd.Index(paths).isin(self.pairs["path"])
        on_leaked, on_others = (
            float(correct[rows].mean()) if rows.any() else float("nan") for rows in (leaked, ~leaked)
        )
        return on_leaked, on_others

    def sentence(self) -> str:
        """Return the finding as a sentence."""
        share = self.leaked / self.test_images
        return (
            f"{self.leaked:,} of the {self.test_images:,} images ({share:.1%}) of the test split that came with the "
            "data have a near-duplicate in its training split."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, ready for JSON."""
        return {"test_images": self.test_images, "leaked": self.leaked, "per_class": self.per_class}


def find_leakage(manifest: Manifest) -> Leakage | None:
    """Find the leaked images of the split that came with the data; return None if it came without one."""
    table = manifest.table[["path", "label", "source_split", "duplicate_group", "phash"]]
    train = table[table["source_split"] == "train"].reset_index(drop=True)
    test = table[table["source_split"] == "test"].reset_index(drop=True)
    if train.empty or test.empty:
        return None
    leaked, nearest = _nearest(test, train)
    pairs = test.loc[leaked, ["path", "label"]].reset_index(drop=True)
    pairs[["train_path", "train_label"]] = train.loc[nearest, ["path", "label"]].to_numpy()
    counts = pairs["label"].value_counts()
    per_class = {
        label: {"test": int((test["label"] == label).sum()), "leaked": int(counts.get(label, 0))}
        for label in manifest.classes
    }
    return Leakage(len(test), pairs, per_class)


def _nearest(test: pd.DataFrame, train: pd.DataFrame) -> tuple[list[int], list[int]]:
    """Return the rows of ``test`` with duplicates in ``train``, and for each the row with the nearest hash."""
    hashes = np.array([int(value, 16) for value in train["phash"]], np.uint64)
    members = train.groupby("duplicate_group").indices
    leaked, nearest = [], []
    for row, (group, phash) in enumerate(zip(test["duplicate_group"], test["phash"], strict=True)):
        if group in members:
            candidates = members[group]
            distances = np.bitwise_count(hashes[candidates] ^ np.uint64(int(phash, 16)))
            leaked.append(row)
            nearest.append(int(candidates[distances.argmin()]))
    return leaked, nearest


def contact_sheet(manifest: Manifest, leakage: Leakage, pairs: int = 12, seed: int = 0) -> bytes | None:
    """Draw a sample of leaked test images, each above its near-duplicate in the training split, as PNG; or None."""
    if leakage.pairs.empty:
        return None
    sample = leakage.pairs.sample(min(pairs, leakage.leaked), random_state=seed).sort_values(["label", "path"])
    paths = [*sample["path"], *sample["train_path"]]
    captions = [f"test: {name}" for name in sample["label"]] + [f"train: {name}" for name in sample["train_label"]]
    images = [decode(read(manifest.root / path, manifest.limits), manifest.limits) for path in paths]
    buffer = io.BytesIO()
    montage(images, captions, columns=len(sample)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
