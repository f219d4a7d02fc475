"""What is said of a dataset follows from its numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lesion.data import dataset_summary
from lesion.data.manifest import COLUMNS, Manifest
from lesion.imaging.montage import montage


def manifest(labels: list[str], brightness: list[float], groups: list[int], sizes: list[tuple[int, int]]) -> Manifest:
    table = pd.DataFrame({name: [""] * len(labels) for name in COLUMNS})
    table["path"] = [f"{i}.png" for i in range(len(labels))]
    table["pixel_sha256"] = table["path"]
    table["label"], table["brightness"], table["duplicate_group"], table["group"] = labels, brightness, groups, groups
    table["width"], table["height"] = zip(*sizes, strict=True)
    table["split"] = "train"
    return Manifest("test", Path(), table, tuple(sorted(set(labels))), "grouped", 0)


SQUARE = [(10, 10)] * 4


def test_class_distribution_counts_and_advises() -> None:
    unbalanced = manifest(["a"] * 9 + ["b"] * 3, [0] * 12, list(range(12)), [(10, 10)] * 12)
    found = dataset_summary.class_distribution(unbalanced)
    assert found.table["images"].to_dict() == {"a": 9, "b": 3}
    assert found.table["share"].to_dict() == {"a": 0.75, "b": 0.25}
    assert "“b” 3, 3.0 times fewer. Weigh them" in found.sentence
    even = dataset_summary.class_distribution(manifest(["a", "a", "b", "b"], [0] * 4, [0, 1, 2, 3], SQUARE))
    assert even.sentence.startswith("The classes are balanced")


@pytest.mark.parametrize(
    ("values", "words"),
    [([10, 12, 200, 202], "may learn the scanner"), ([10, 200, 11, 201], "does not tell them apart")],
)
def test_brightness_says_whether_it_gives_the_class_away(values: list[float], words: str) -> None:
    found = dataset_summary.brightness(manifest(["a", "a", "b", "b"], values, [0, 1, 2, 3], SQUARE))
    assert found.table.loc["a", "50%"] == (values[0] + values[1]) / 2
    assert words in found.sentence


def test_resolutions_by_hand() -> None:
    labels = ["a", "a", "b", "b"]
    found = dataset_summary.resolutions(
        manifest(labels, [0] * 4, [0, 1, 2, 3], [(20, 10), (10, 10), (10, 10), (10, 20)])
    )
    assert found.table.iloc[0].tolist() == [10, 10, 2]
    assert "3 sizes" in found.sentence
    assert "50%" in found.sentence
    assert "0.50 to 2.00" in found.sentence
    same = dataset_summary.resolutions(manifest(labels, [0] * 4, [0, 1, 2, 3], SQUARE))
    assert same.sentence == "Every image has 10 × 10 pixels."


def test_duplicates_by_hand() -> None:
    found = dataset_summary.duplicates(manifest(["a", "a", "a", "b"], [0] * 4, [0, 0, 1, 1], SQUARE))
    assert found.table["in_groups"].to_dict() == {"a": 3, "b": 1}
    assert "4 of 4 images (100%)" in found.sentence
    assert "2 of them have a near-duplicate in another class" in found.sentence


def test_montage_keeps_proportions() -> None:
    red = np.full((10, 20, 3), (255, 0, 0), np.uint8)
    sheet = np.asarray(montage([red, red, red], columns=2, side=40))
    assert sheet.shape == (2 * 44 + 4, 2 * 44 + 4, 3)
    assert sheet[4 + 20, 4 + 20].tolist() == [255, 0, 0]
    assert sheet[4 + 5, 4 + 20].tolist() == [255, 255, 255]  # above the picture, which is half as high as wide
    assert sheet[4 + 44 + 20, 4 + 44 + 20].tolist() == [255, 255, 255]  # the fourth tile is empty
    assert montage([]).size == (4, 4)
