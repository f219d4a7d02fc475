"""The split of the brain MRI preset has no copies on two sides: checked by other means than the search that made it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lesion.data.manifest import Manifest
from lesion.training.run import read_data
from tests.support.training_runs import compose_config

SIDE = 32
COPY = 0.99  # correlation of small gray pictures; neighboring slices of one head reach 0.989 here


@pytest.fixture(scope="module")
def manifest(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    output = tmp_path_factory.mktemp("run")
    root = shared / "data" / "brain_tumor_mri"
    config = compose_config(output, "experiment=brain_tumor_mri", f"data.root={root}")
    return read_data(config, output).manifest


def pictures_of(manifest: Manifest) -> np.ndarray:
    """Gray pictures (N, SIDE, SIDE) of zero mean and unit length."""

    def picture(path: str) -> np.ndarray:
        with Image.open(manifest.root / path) as image:
            gray = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
        return np.asarray(gray - gray.mean())

    pictures = np.stack([picture(path) for path in manifest.table["path"]])
    return np.asarray(pictures / np.linalg.norm(pictures, axis=(1, 2), keepdims=True))


def nearest(query: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The greatest correlation (Q,) of each query, in any orientation and as a negative, with any reference."""
    flat = reference.reshape(len(reference), -1).T
    turned = [np.rot90(side, turns, (1, 2)) for side in (query, query[:, :, ::-1]) for turns in range(4)]
    best = np.zeros(len(query), np.float32)
    for each in turned:
        best = np.maximum(best, np.abs(each.reshape(len(query), -1) @ flat).max(axis=1))
    return best


@pytest.mark.slow
@pytest.mark.real
def test_no_copy_of_a_test_image_is_in_training_in_any_orientation(manifest: Manifest) -> None:
    pictures, split = pictures_of(manifest), manifest.table["split"]
    used = {name: pictures[(split == name).to_numpy()] for name in ("train", "val", "calibration", "test")}
    assert min(map(len, used.values())) > 400
    others = np.concatenate([used["train"], used["val"], used["calibration"]])
    assert nearest(used["test"], others).max() < COPY
    assert nearest(np.concatenate([used["val"], used["calibration"]]), used["train"]).max() < COPY


@pytest.mark.slow
@pytest.mark.real
def test_the_check_finds_the_copies_across_the_published_split(manifest: Manifest) -> None:
    """And those that are upside down: without other orientations it finds fewer."""
    source: pd.Series[str] = manifest.table["source_split"]
    pictures = pictures_of(manifest)
    test, training = (pictures[(source == name).to_numpy()] for name in ("test", "train"))
    copied = nearest(test, training) >= COPY
    upright = (test.reshape(len(test), -1) @ training.reshape(len(training), -1).T).max(axis=1) >= COPY
    assert copied.sum() > 150
    assert (copied & ~upright).sum() > 50
