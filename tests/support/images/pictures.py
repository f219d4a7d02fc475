"""Small picture files for tests of datasets: one seed, one picture, no two of them near-duplicates."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int, side: int = 48) -> np.ndarray:
    """A coarse random pattern: uint8 (side, side, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def write(path: Path, seed: int, side: int = 48, **options: Any) -> Path:
    """Save a picture in the format that the path's suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, side)).save(path, **options)
    return path


def write_classes(root: Path, counts: dict[str, int], suffix: str = ".png", first: int = 0) -> Path:
    """Fill folders ``root/<key>`` with so many different pictures; their seeds count up from ``first``."""
    seed = first
    for folder, count in counts.items():
        for number in range(count):
            write(root / folder / f"{number:03}{suffix}", seed)
            seed += 1
    return root
