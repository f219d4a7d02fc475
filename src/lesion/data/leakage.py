"""How far a split that came with the data leaks: test images whose near-duplicates stand in its training set."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lesion.data.manifest import Manifest
from lesion.images import decode, read

THUMBNAIL = 112


@dataclass(frozen=True, eq=False)
class Leakage:
    """What ``find_leakage`` found.

    Attributes:
        test_images: How many images the data's own test split has.
        pairs: One row a leaked test image: path, label, train_path, train_label; the train image is the most alike of
            its near-duplicates.
        per_class: For each class the number of test images and of leaked ones.
    """

    test_images: int
    pairs: pd.DataFrame
    per_class: dict[str, dict[str, int]]

    @property
    def leaked(self) -> int:
        """How many test images have a near-duplicate in the training split."""
        return len(self.pairs)

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
    table = manifest.table
    train, test = table[table["source_split"] == "train"], table[table["source_split"] == "test"]
    if train.empty or test.empty:
        return None
    by_group = dict(iter(train.groupby("duplicate_group")))
    pairs = [
        _nearest(row, by_group[row["duplicate_group"]])
        for row in test.to_dict("records")
        if row["duplicate_group"] in by_group
    ]
    frame = pd.DataFrame(pairs, columns=["path", "label", "train_path", "train_label"])
    leaked = frame["label"].value_counts()
    per_class = {
        label: {"test": int((test["label"] == label).sum()), "leaked": int(leaked.get(label, 0))}
        for label in manifest.classes
    }
    return Leakage(len(test), frame, per_class)


def _nearest(row: Mapping[Any, Any], candidates: pd.DataFrame) -> tuple[str, str, str, str]:
    hashes = np.array([int(value, 16) for value in candidates["phash"]], np.uint64)
    distances = np.bitwise_count(hashes ^ np.uint64(int(row["phash"], 16)))
    best = candidates.iloc[int(distances.argmin())]
    return row["path"], row["label"], best["path"], best["label"]


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
    text, gap = 14, 4
    sheet = Image.new("RGB", (len(chosen) * (THUMBNAIL + gap) + gap, 2 * (THUMBNAIL + text + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for column, row in enumerate(chosen.to_dict("records")):
        left = gap + column * (THUMBNAIL + gap)
        for line, (path, caption) in enumerate(
            [(row["path"], f"test: {row['label']}"), (row["train_path"], f"train: {row['train_label']}")]
        ):
            top = gap + line * (THUMBNAIL + text + gap)
            sheet.paste(_thumbnail(manifest, path), (left, top))
            draw.text((left, top + THUMBNAIL + 1), caption[:20], fill="black")
    return _png(sheet)


def _thumbnail(manifest: Manifest, path: str) -> Image.Image:
    pixels: NDArray[np.uint8] = decode(read(manifest.root / path))
    return Image.fromarray(pixels).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)


def _png(sheet: Image.Image) -> bytes:
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
