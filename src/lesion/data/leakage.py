"""How far a split that came with the data leaks: test images whose near-duplicates stand in its training set."""

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
    """What ``find_leakage`` found.

    Attributes:
        test_images: How many images the data's own test split has.
        pairs: One row a leaked test image: path, label, train_path, train_label; the train image is the one of its
            duplicate group with the nearest perceptual hash.
        per_class: For each class the number of test images and of leaked ones.
    """

    test_images: int
    pairs: pd.DataFrame
    per_class: dict[str, dict[str, int]]

    @property
    def leaked(self) -> int:
        """How many test images have a near-duplicate in the training split."""
        return len(self.pairs)

    def accuracies(self, paths: Sequence[str], correct: NDArray[np.bool_]) -> tuple[float, float]:
        """Compare a model's answers on the leaked test images with those on the others.

        Args:
            paths: The test images, N.
            correct: Which of them it got right, ``(N,)``.

        Returns:
            The share it got right of the leaked ones and of the others; NaN where there are none.
        """
        leaked = pd.Index(paths).isin(self.pairs["path"])
        ours, others = (float(correct[part].mean()) if part.any() else float("nan") for part in (leaked, ~leaked))
        return ours, others

    def sentence(self) -> str:
        """Say the finding in one sentence."""
        share = self.leaked / self.test_images
        return (
            f"{self.leaked:,} of the {self.test_images:,} images ({share:.1%}) of the test split that came with the "
            "data have a near-duplicate in its training split."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON-ready values."""
        return {"test_images": self.test_images, "leaked": self.leaked, "per_class": self.per_class}


def find_leakage(manifest: Manifest) -> Leakage | None:
    """Count the leaked images of the split that came with the data; None if none came with it."""
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
    """Rows of ``test`` with duplicates in ``train``, and for each the row of the nearest by perceptual hash."""
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
    """Draw a sample of leaked test images, each above its near-duplicate in the training split, as PNG.

    Args:
        manifest: Where the images are.
        leakage: What was found in it.
        pairs: How many pairs to draw.
        seed: Chooses which.

    Returns:
        PNG bytes, or None when nothing leaks.
    """
    if leakage.pairs.empty:
        return None
    chosen = leakage.pairs.sample(min(pairs, leakage.leaked), random_state=seed).sort_values(["label", "path"])
    paths = [*chosen["path"], *chosen["train_path"]]
    captions = [f"test: {name}" for name in chosen["label"]] + [f"train: {name}" for name in chosen["train_label"]]
    images = [decode(read(manifest.root / path)) for path in paths]
    buffer = io.BytesIO()
    montage(images, captions, columns=len(chosen)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
