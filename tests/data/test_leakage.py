"""Counting test images whose near-duplicates stand in the training split that came with the data."""

import io
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lesion.data.leakage import Leakage, contact_sheet, find_leakage
from lesion.data.manifest import Manifest, build_manifest
from lesion.data.scan import scan_folders
from tests.support.images.pictures import write, write_classes


def manifest_of(rows: list[tuple[str, str, str, int, str]]) -> Manifest:
    """A manifest of the columns that leakage looks at."""
    table = pd.DataFrame(rows, columns=["path", "label", "source_split", "duplicate_group", "phash"])
    return Manifest("hand", Path(), table, tuple(sorted(table["label"].unique())), "grouped", 0)


def leakage_of(manifest: Manifest) -> Leakage:
    leakage = find_leakage(manifest)
    assert leakage is not None
    return leakage


def test_counts_and_the_nearest_training_image():
    leakage = leakage_of(
        manifest_of(
            [
                ("r1", "a", "train", 7, "0000000000000000"),
                ("r2", "b", "train", 7, "00000000000000ff"),
                ("r3", "a", "train", 8, "ffffffffffffffff"),
                ("t1", "a", "test", 7, "00000000000000fe"),  # 7 bits from r1, 1 from r2
                ("t2", "b", "test", 8, "0000000000000000"),  # 64 bits from r3, but its only candidate
                ("t3", "b", "test", 9, "ffffffffffffffff"),  # equal hash, other group: not leaked
                ("v1", "b", "val", 9, "ffffffffffffffff"),  # validation is not training
            ]
        )
    )
    assert list(leakage.pairs.itertuples(index=False, name=None)) == [("t1", "a", "r2", "b"), ("t2", "b", "r3", "a")]
    assert leakage.leaked == 2
    assert leakage.per_class == {"a": {"test": 1, "leaked": 1}, "b": {"test": 2, "leaked": 1}}
    assert leakage.to_dict() == {"test_images": 3, "leaked": 2, "per_class": leakage.per_class}
    assert leakage.sentence().startswith("2 of the 3 images (66.7%) of the test split that came with the data have")


def test_a_clean_split_leaks_nothing():
    leakage = leakage_of(manifest_of([("r", "a", "train", 0, "0" * 16), ("t", "b", "test", 1, "0" * 16)]))
    assert (leakage.leaked, leakage.test_images) == (0, 1)
    assert leakage.per_class == {"a": {"test": 0, "leaked": 0}, "b": {"test": 1, "leaked": 0}}
    assert contact_sheet(manifest_of([("r", "a", "train", 0, "0" * 16)]), leakage) is None


@pytest.mark.parametrize("split", ["", "train", "test"])
def test_data_without_both_splits_has_no_leakage(split):
    assert find_leakage(manifest_of([("x", "a", split, 0, "0" * 16), ("y", "b", split, 0, "0" * 16)])) is None


def test_fifty_thousand_images_take_seconds():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 20_000, 50_000)
    groups[:10_000] = 0  # one great chain of look-alikes
    rows = [(f"{i}", "ab"[i % 2], "test" if i % 5 == 0 else "train", g, f"{i:016x}") for i, g in enumerate(groups)]
    manifest = manifest_of(rows)
    start = time.process_time()
    leakage = leakage_of(manifest)
    assert time.process_time() - start < 5  # 0.3 s
    in_train = {g for i, g in enumerate(groups) if i % 5}
    assert leakage.leaked == sum(g in in_train for g in groups[::5])


@pytest.fixture
def leaky(tmp_path) -> Manifest:
    """Eight training pictures a class, of which three of class a come back in the test folder beside a fresh one."""
    write_classes(tmp_path, {"Training/a": 8, "Training/b": 8, "Testing/b": 2})
    for seed in (0, 1, 2):
        write(tmp_path / "Testing" / "a" / f"{seed}.jpg", seed, quality=50)
    write(tmp_path / "Testing" / "a" / "fresh.jpg", seed=1000)
    fractions = {"train": 0.7, "val": 0.1, "calibration": 0.1, "test": 0.1}
    return build_manifest("leaky", tmp_path, scan_folders(tmp_path), fractions=fractions, progress=False)


def test_planted_copies_are_found_whatever_the_split_is_now(leaky):
    for manifest in (leaky, leaky.resplit("folder", {"train": 0.8, "val": 0.1, "calibration": 0.1}, 0)):
        leakage = leakage_of(manifest)
        assert leakage.per_class == {"a": {"test": 4, "leaked": 3}, "b": {"test": 2, "leaked": 0}}
        assert leakage.pairs["train_path"].tolist() == [f"Training/a/00{n}.png" for n in range(3)]


def test_answers_on_the_leaked_images_are_compared_with_those_on_the_others(leaky):
    leakage = leakage_of(leaky)
    paths = [f"Testing/a/{name}.jpg" for name in ("0", "1", "2", "fresh")]
    assert leakage.accuracies(paths, np.array([True, True, False, False])) == (2 / 3, 0.0)
    alone = leakage.accuracies(paths[:1], np.array([True]))
    assert alone[0] == 1.0
    assert np.isnan(alone[1])


def test_the_contact_sheet_shows_each_pair_one_above_the_other(leaky):
    leakage = leakage_of(leaky)
    data = contact_sheet(leaky, leakage, pairs=2)
    assert data is not None
    assert data == contact_sheet(leaky, leakage, pairs=2)
    sheet = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float)
    # Two columns and two lines of 112 pixels, 14 for the words below each, 4 between all: 2·116 + 4 and 2·130 + 4.
    assert sheet.shape == (264, 236, 3)
    above, below = sheet[4:116], sheet[134:246]
    for left in (4, 120):
        test, train = above[:, left : left + 112].ravel(), below[:, left : left + 112].ravel()
        assert np.corrcoef(test, train)[0, 1] > 0.95
        assert test.std() > 20
