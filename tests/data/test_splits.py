"""Splitting by group."""

import doctest
import re
import time

import numpy as np
import pytest

from lesion.core.errors import DataError
from lesion.data import splits as module
from lesion.data.splits import SPLITS, assign_folds, default_folds, split_by_folder, split_groups

FRACTIONS = {"train": 0.70, "val": 0.075, "calibration": 0.075, "test": 0.15}


def counts(splits: np.ndarray) -> dict[str, int]:
    return {name: int((splits == name).sum()) for name in SPLITS}


def is_divided(splits: np.ndarray, groups: np.ndarray) -> bool:
    return any(len(set(splits[groups == group])) > 1 for group in np.unique(groups))


def test_the_worked_example_of_the_docstring():
    assert doctest.testmod(module) == doctest.TestResults(failed=0, attempted=3)
    rows = re.findall(r"^ +\d +(\d) +(\S+) +(\S+)  (train|test)", str(split_groups.__doc__), re.MULTILINE)
    assert [int(images) for images, *_ in rows] == [4, 3, 2, 1]
    targets, reached = {"train": 6, "test": 4}, {"train": 0, "test": 0}
    for images, in_train, in_test, split in rows:
        distance = {
            name: [(count - target) ** 2 / target for count in (reached[name], reached[name] + int(images))]
            for name, target in targets.items()
        }
        gains = {name: before - after for name, (before, after) in distance.items()}
        assert gains == pytest.approx({"train": float(in_train), "test": float(in_test)}, abs=0.005)
        assert max(gains, key=lambda name: gains[name]) == split
        reached[split] += int(images)
    assert reached == targets


def test_shares_of_single_images_are_met_in_every_class():
    labels = np.repeat([0, 1, 2], [400, 200, 40])
    splits = split_groups(labels, np.arange(640), FRACTIONS, 0)
    assert counts(splits[labels == 0]) == {"train": 280, "val": 30, "calibration": 30, "test": 60}
    assert counts(splits[labels == 1]) == {"train": 140, "val": 15, "calibration": 15, "test": 30}
    assert counts(splits[labels == 2]) == {"train": 28, "val": 3, "calibration": 3, "test": 6}


def test_groups_stay_whole_and_every_split_gets_its_share_of_large_ones():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 20, 800)
    groups = rng.permutation(800)[np.repeat(np.arange(800), sizes)] * 7 - 3  # any integers
    labels = (groups % 3).astype(np.int64)
    splits = split_groups(labels, groups, FRACTIONS, 0)
    assert not is_divided(splits, groups)
    for label in range(3):
        for name, share in FRACTIONS.items():
            assert abs((splits[labels == label] == name).mean() - share) < 0.005
    for name in SPLITS:
        inside = groups[splits == name]
        assert len(inside) / len(np.unique(inside)) == pytest.approx(sizes.mean(), rel=0.05)


def test_large_groups_do_not_overfill_small_splits():
    # Of 100 images, 70 wanted: chi-square puts 40 and 30 into train, and one of the tens into each other split.
    groups = np.repeat(np.arange(5), [40, 30, 10, 10, 10])
    splits = split_groups(np.zeros(100, np.int64), groups, FRACTIONS, 0)
    assert counts(splits) == {"train": 70, "val": 10, "calibration": 10, "test": 10}


def test_one_group_that_holds_nearly_everything_goes_to_train():
    groups = np.r_[np.zeros(900, np.int64), np.arange(1, 101)]
    splits = split_groups(np.zeros(1000, np.int64), groups, dict(reversed(FRACTIONS.items())), 0)
    assert counts(splits) == {"train": 900, "val": 25, "calibration": 25, "test": 50}


@pytest.mark.parametrize("size", [1, 50])
def test_four_groups_a_class_are_enough_for_four_splits(size):
    labels = np.repeat([0, 1], 4 * size)
    splits = split_groups(labels, np.repeat(np.arange(8), size), FRACTIONS, 0)
    for label in (0, 1):
        assert counts(splits[labels == label]) == dict.fromkeys(SPLITS, size)


def test_three_images_a_class_are_not_enough():
    labels = np.repeat([0, 1], 3)
    with pytest.raises(DataError, match=r"no image of 2 of 2 classes \(0, 1\)"):
        split_groups(labels, np.arange(6), FRACTIONS, 0)
    with pytest.raises(DataError, match=r"no image of 2 of 2 classes \(blight, rust\)"):
        split_groups(labels, np.arange(6), FRACTIONS, 0, ["blight", "rust"])
    with pytest.raises(DataError, match=r"7 of 7 classes \(a, b, c, d, e and 2 more\)"):
        split_groups(np.arange(7), np.arange(7), FRACTIONS, 0, "abcdefg")
    without = {"train": 0.7, "val": 0.15, "calibration": 0.0, "test": 0.15}
    splits = split_groups(labels, np.arange(6), without, 0)
    assert counts(splits) == {"train": 2, "val": 2, "calibration": 0, "test": 2}


def test_groups_of_several_classes_stay_whole():
    labels = np.tile([0, 1], 40)
    groups = np.repeat(np.arange(20), 4)  # two images of each class
    splits = split_groups(labels, groups, FRACTIONS, 0)
    assert not is_divided(splits, groups)
    assert counts(splits[labels == 0]) == counts(splits[labels == 1])
    assert counts(splits)["train"] == 56


def test_the_seed_alone_decides():
    labels, groups = np.arange(200) % 2, np.arange(200)
    first = split_groups(labels, groups, FRACTIONS, 3)
    assert np.array_equal(first, split_groups(labels, groups, FRACTIONS, 3))
    assert not np.array_equal(first, split_groups(labels, groups, FRACTIONS, 4))
    shuffled = split_groups(labels, groups, dict(reversed(FRACTIONS.items())), 3)
    assert np.array_equal(first, shuffled)


def test_thousand_classes_and_seven_thousand_images_take_less_than_a_second():
    labels = np.arange(7000) % 1000
    start = time.process_time()
    splits = split_groups(labels, np.arange(7000), FRACTIONS, 0)
    assert time.process_time() - start < 1  # 0.1 s
    for name in SPLITS:
        assert len(np.unique(labels[splits == name])) == 1000


@pytest.mark.parametrize(
    "fractions",
    [
        {},
        {"train": 0.5, "test": 0.4},
        {"train": 1.2, "test": -0.2},
        {"train": float("nan"), "test": 0.5},
        {"train": 0.7, "valid": 0.15, "test": 0.15},
        {"train": 0.0, "test": 1.0},
        {"val": 0.5, "test": 0.5},
    ],
)
def test_fractions_that_are_no_shares_are_refused(fractions):
    labels, groups = np.arange(40) % 2, np.arange(40)
    source = np.where(np.arange(40) < 20, "train", "test")
    with pytest.raises(DataError, match=r"data\.fractions"):
        split_groups(labels, groups, fractions, 0)
    with pytest.raises(DataError, match=r"data\.fractions"):
        split_by_folder(source, labels, groups, fractions, 0)


def test_nothing_to_split_is_refused():
    with pytest.raises(DataError, match="no image"):
        split_groups(np.empty(0, np.int64), np.empty(0, np.int64), FRACTIONS, 0)


def test_folder_split_keeps_test_and_takes_the_others_from_train():
    labels = np.arange(500) % 2
    source = np.where(np.arange(500) < 340, "train", "test")
    splits = split_by_folder(source, labels, np.arange(500) // 2, FRACTIONS, 0)
    assert np.array_equal(splits == "test", source == "test")
    # 0.7 : 0.075 : 0.075 of 340 images is 280 : 30 : 30
    assert counts(splits) == {"train": 280, "val": 30, "calibration": 30, "test": 160}
    assert not is_divided(splits[source == "train"], (np.arange(500) // 2)[source == "train"])


def test_folder_split_keeps_a_validation_folder():
    labels = np.arange(400) % 2
    source = np.repeat(["train", "val", "test"], [310, 50, 40])
    splits = split_by_folder(source, labels, np.arange(400), FRACTIONS, 0)
    assert np.array_equal(splits == "val", source == "val")
    assert counts(splits) == {"train": 280, "val": 50, "calibration": 30, "test": 40}  # 0.7 : 0.075 of 310


def test_folder_split_needs_its_folders_and_every_class_in_train():
    labels = np.arange(8) % 2
    with pytest.raises(DataError, match="this data has no split folders"):
        split_by_folder(np.full(8, ""), labels, np.arange(8), FRACTIONS, 0)
    with pytest.raises(DataError, match="this data has train, val"):
        split_by_folder(np.repeat(["train", "val"], 4), labels, np.arange(8), FRACTIONS, 0)
    with pytest.raises(DataError, match="no image of 1 of 3 classes"):
        split_by_folder(np.repeat(["train", "test"], 4), np.r_[labels[:7], 2], np.arange(8), FRACTIONS, 0)


def test_folds_divide_every_class_and_no_group():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, 400)
    groups = np.repeat(np.arange(400), sizes)
    labels = np.repeat(rng.choice(3, 400, p=[0.6, 0.3, 0.1]), sizes)
    folds = assign_folds(labels, groups, 5, seed=0)
    assert set(folds.tolist()) == set(range(5))
    for group in range(400):
        assert len(set(folds[groups == group].tolist())) == 1
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 2
    assert (assign_folds(labels, groups, 5, seed=1) != folds).any()
    np.testing.assert_array_equal(assign_folds(labels, groups, 5, seed=0), folds)


def test_folds_need_a_group_of_each_class():
    labels, groups = np.array([0] * 6 + [1] * 6), np.array([0, 1, 2, 3, 4, 5, 6, 6, 7, 7, 8, 8])
    with pytest.raises(DataError, match=r"evaluation.folds=5 needs 5 groups .* \(rare: 3\): set evaluation.folds=3"):
        assign_folds(labels, groups, 5, seed=0, classes=("common", "rare"))
    assert set(assign_folds(labels, groups, 3, seed=0).tolist()) == {0, 1, 2}


def test_small_data_have_folds_by_default(caplog):
    def default(images, groups):
        return default_folds(np.arange(images) % 2, np.arange(images) % (2 * groups), ("x", "y"))

    assert default(499, 100) == 5
    assert default(500, 100) == 0
    assert default(100, 4) == 4
    assert not caplog.messages
    assert default(100, 3) == 0
    assert "class x has 3 groups" in caplog.text
