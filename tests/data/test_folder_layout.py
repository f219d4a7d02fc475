"""Folders as people and programs lay them out: what becomes a class, a split or a mask, and what is left out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesion.core.errors import DataError
from lesion.data.manifest import Manifest, build_manifest
from lesion.data.scan import scan_folders

FRACTIONS = {"train": 0.4, "val": 0.2, "calibration": 0.2, "test": 0.2}


def touch(root: Path, *names: str) -> Path:
    """Empty files: scanning does not open images."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(root: Path) -> list[tuple[str, str, str]]:
    frame = scan_folders(root)
    return list(frame[["path", "label", "source_split"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini", "ehthumbs.db", ".DS_Store", "._1.jpg", "Icon\r"])
def test_files_that_programs_add_are_not_mentioned(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg", f"a/{name}", name)
    assert [path for path, *_ in found(tmp_path)] == ["a/1.jpg", "b/2.jpg"]
    assert not caplog.records


@pytest.mark.parametrize("fold", ["fold_{}", "Fold {}", "fold{}", "cv_fold_{}", "kfold-{}"])
def test_folds_are_one_dataset(tmp_path: Path, fold: str, caplog: pytest.LogCaptureFixture) -> None:
    for number in (1, 2, 10):
        touch(tmp_path, *(f"{fold.format(number)}/{label}/{number}.jpg" for label in "ab"))
    assert {(label, split) for _, label, split in found(tmp_path)} == {("a", ""), ("b", "")}
    assert len(found(tmp_path)) == 6
    assert f"the folds {fold.format(1)}, {fold.format(2)}, {fold.format(10)}" in caplog.text


def test_classes_called_like_folds_are_classes(tmp_path: Path) -> None:
    touch(tmp_path, "skin fold/1.jpg", "other/2.jpg", "fold_1/3.jpg")
    assert [label for _, label, _ in found(tmp_path)] == ["fold_1", "other", "skin fold"]


def test_linked_folders_of_patients_are_read(tmp_path: Path) -> None:
    elsewhere = touch(tmp_path / "elsewhere", "p1/1.jpg", "p1/deep/2.jpg", "p2/3.jpg")
    root = touch(tmp_path / "root", "a/0.jpg", "b/4.jpg", ".cache/p3/5.jpg")
    (root / "a" / "p1").symlink_to(elsewhere / "p1", target_is_directory=True)
    (root / "b" / "p2").symlink_to(Path("../../elsewhere/p2"), target_is_directory=True)
    (root / "b" / "p3").symlink_to(Path("../.cache/p3"), target_is_directory=True)
    assert [(path, label) for path, label, _ in found(root)] == [
        ("a/0.jpg", "a"), ("a/p1/1.jpg", "a"), ("a/p1/deep/2.jpg", "a"), ("b/4.jpg", "b"), ("b/p2/3.jpg", "b"),
        ("b/p3/5.jpg", "b"),
    ]  # fmt: skip


@pytest.mark.parametrize("target", [".", "..", "a", "../..", "elsewhere"])
def test_links_that_lead_in_circles_end(tmp_path: Path, target: str) -> None:
    root = touch(tmp_path / "root", "a/1.jpg", "b/2.jpg")
    elsewhere = touch(tmp_path / "elsewhere", "3.jpg")
    (elsewhere / "back").symlink_to(root, target_is_directory=True)
    (elsewhere / "self").symlink_to(elsewhere, target_is_directory=True)
    where = elsewhere if target == "elsewhere" else root / target
    (root / "b" / "link").symlink_to(where, target_is_directory=True)
    wanted = ["a/1.jpg", "b/2.jpg", *(["b/link/3.jpg"] if target == "elsewhere" else [])]
    assert [path for path, *_ in found(root)] == wanted


@pytest.mark.parametrize("target", [".", "..", "/"])
def test_a_link_back_is_no_class(tmp_path: Path, target: str) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "c").symlink_to(target, target_is_directory=True)
    assert [path for path, *_ in found(tmp_path)] == ["a/1.jpg", "b/2.jpg"]


def test_linked_files_are_images_and_broken_links_are_reported(tmp_path: Path) -> None:
    elsewhere = draw(tmp_path / "elsewhere" / "x.png", 99)
    root = tmp_path / "root"
    for number in range(12):
        draw(root / "ab"[number % 2] / f"{number:02}.png", number)
    (root / "a" / "outside.png").symlink_to(elsewhere)
    (root / "a" / "inside.png").symlink_to("00.png")
    (root / "b" / "broken.png").symlink_to("nowhere.png")
    (root / "b" / "of_a.png").symlink_to("../a/02.png")
    manifest = build(root)
    paths = set(manifest.table["path"])
    assert {"a/outside.png", "a/inside.png"} <= paths
    assert [(row["path"], row["code"]) for row in manifest.refused] == [("b/broken.png", "image_not_found")]
    excluded = manifest.table[manifest.table["split"] == "excluded"]["path"]
    assert sorted(excluded) == ["a/02.png", "a/inside.png", "b/of_a.png"]  # two classes, and a copy


@pytest.mark.parametrize(
    ("files", "pairs"),
    [
        (("a/1.png", "a/1_mask.png", "a/1_mask_2.png", "b/2.png"), {"a/1.png": ["a/1_mask.png", "a/1_mask_2.png"]}),
        (("a/x.jpg", "a/x_Segmentation.png", "b/y.png", "b/mask_y.png"),
         {"a/x.jpg": ["a/x_Segmentation.png"], "b/y.png": ["b/mask_y.png"]}),
        (("a/images/1.png", "a/masks/1.png", "b/images/2.png", "b/masks/2_mask.png"),
         {"a/images/1.png": ["a/masks/1.png"], "b/images/2.png": ["b/masks/2_mask.png"]}),
        (("a/1.png", "a/Mask/1.png", "b/2.png", "b/gt/3.png"), {"a/1.png": ["a/Mask/1.png"]}),
        (("images/a/1.png", "images/b/2.png", "masks/a/1.png", "masks/b/2.png"),
         {"images/a/1.png": ["masks/a/1.png"], "images/b/2.png": ["masks/b/2.png"]}),
        (("a/1.png", "b/1.png", "c/2.png", "masks/b/1.png", "masks/a/1_mask.png"),
         {"b/1.png": ["masks/b/1.png"], "a/1.png": ["masks/a/1_mask.png"]}),
        (("train/images/a/1.png", "train/images/b/1.png", "train/masks/b/1.png"),
         {"train/images/b/1.png": ["train/masks/b/1.png"]}),
        (("train/good/1.png", "test/good/2.png", "test/broken/0.png", "ground_truth/broken/0_mask.png"),
         {"test/broken/0.png": ["ground_truth/broken/0_mask.png"]}),
        (("train/a/1.png", "train/b/2.png", "train_masks/1.png", "train_masks/x.png"),
         {"train/a/1.png": ["train_masks/1.png"]}),
    ],
)  # fmt: skip
def test_masks_are_kept_with_their_images(
    tmp_path: Path, files: tuple[str, ...], pairs: dict[str, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    frame = scan_folders(touch(tmp_path, *files))
    assert frame.attrs["masks"] == pairs
    assert not {mask for masks in pairs.values() for mask in masks} & set(frame["path"])
    assert not {"images", "masks", "ground_truth", "train_masks"} & set(frame["label"])
    assert "masks, such as" in caplog.text


@pytest.mark.parametrize(
    "files",
    [
        ("mask/1.jpg", "no_mask/2.jpg"),
        ("masks/1.jpg", "images/2.jpg"),
        ("with_mask/with_mask_1.jpg", "without_mask/2.jpg", "mask_weared_incorrect/3.jpg"),
        ("train/mask/1.jpg", "train/no mask/2.jpg"),
    ],
)
def test_classes_about_masks_are_classes(tmp_path: Path, files: tuple[str, ...]) -> None:
    frame = scan_folders(touch(tmp_path, *files))
    assert (len(frame), frame.attrs["masks"]) == (len(files), {})


def test_a_manifest_keeps_the_masks(tmp_path: Path) -> None:
    for number in range(12):
        draw(tmp_path / "data" / "ab"[number % 2] / f"{number:02}.png", number)
    draw(tmp_path / "data" / "a" / "00_mask.png", 50)
    manifest = build(tmp_path / "data")
    assert manifest.masks == {"a/00.png": ["a/00_mask.png"]}
    loaded = Manifest.load(manifest.save(tmp_path / "manifest.parquet"))
    assert loaded.masks == manifest.masks
    assert loaded.fingerprint == manifest.fingerprint


def test_other_case_in_a_second_split_is_refused_and_other_encoding_is_not(tmp_path: Path) -> None:
    touch(tmp_path / "one", "train/e\u0301/1.jpg", "train/b/2.jpg", "test/\u00e9/3.jpg", "test/b/4.jpg")
    assert {label for _, label, _ in found(tmp_path / "one")} == {"\u00e9", "b"}
    touch(tmp_path / "two", "train/Cats/1.jpg", "train/dogs/2.jpg", "test/cats/3.jpg", "test/dogs/4.jpg")
    with pytest.raises(DataError, match="'Cats' and 'cats', which differ only in case"):
        found(tmp_path / "two")


def draw(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)).save(path)
    return path


def build(root: Path) -> Manifest:
    return build_manifest("tiny", root, scan_folders(root), fractions=FRACTIONS, progress=False)
