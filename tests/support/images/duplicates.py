"""Pictures for tests of the search for near-duplicates."""

import importlib.util
import sys
from types import ModuleType

import numpy as np
from scipy.ndimage import gaussian_filter

from lesion.deduplication.features import Thumbnails, make_thumbnail
from lesion.deduplication.pictures import SIDE
from tests.support.paths import SCRIPTS

SCRIPT = SCRIPTS / "bench" / "duplicates.py"


def load_bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("duplicates_bench", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


bench = load_bench()


def textured(seed: int, height: int = 120, width: int = 150, smoothness: float = 5) -> np.ndarray:
    """A smooth random picture, unlike that of any other seed."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    field = gaussian_filter(noise, smoothness)
    grey = np.clip(120 + 40 * field / field.std(), 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def thumbnails_of(*images: np.ndarray) -> Thumbnails:
    return np.array([make_thumbnail(image) for image in images], np.uint8).reshape(-1, SIDE, SIDE)


def as_lists(pairs: np.ndarray) -> list[list[int]]:
    assert pairs.dtype == np.int64
    assert pairs.shape[1:] == (2,)
    lists: list[list[int]] = pairs.tolist()
    return lists
