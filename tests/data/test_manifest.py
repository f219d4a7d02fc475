"""The manifest: what it records, how it groups and splits, and that it comes back from disk as it was."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal
from PIL import Image

from lesion.core.errors import DataError
from lesion.data.manifest import COLUMNS, EXCLUDED, Manifest, build_manifest
from lesion.data.scan import scan_csv, scan_folders
from lesion.data.splits import SPLITS
from tests.support.images.hostile import encode, hostile_images
from tests.support.images.pictures import picture, write, write_classes

FRACTIONS = {"train": 0.4, "val": 0.2, "calibration": 0.2, "test": 0.2}


def build(root: Path, group_pattern: str | None = None, **options: Any) -> Manifest:
    rows = scan_folders(root, group_pattern)
    settings: dict[str, Any] = {"fractions": FRACTIONS, "progress": False}
    return build_manifest("tiny", root, rows, **(settings | options))


def row(manifest: Manifest, path: str) -> Any:
    return manifest.table.set_index("path").loc[path]


def used(manifest: Manifest) -> pd.DataFrame:
    return manifest.table[manifest.table["split"] != EXCLUDED]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two classes of ten pictures; beside them copies, a mislabelled one, a twin of two classes and a bad file."""
    root = write_classes(tmp_path_factory.mktemp("manifest"), {"a": 10, "b": 10})
    shutil.copy(root / "a" / "000.png", root / "a" / "copy.png")
    write(root / "a" / "recoded.jpg", seed=1, quality=60)
    write(root / "b" / "mislabelled.jpg", seed=2, quality=60)
    shutil.copy(root / "a" / "003.png", root / "b" / "twin.png")
    (root / "b" / "broken.jpg").write_bytes(hostile_images()["truncated.jpg"].data)
    return root


@pytest.fixture(scope="module")
def manifest(folder) -> Manifest:
    return build(folder)


def test_what_a_row_records(tmp_path):
    root = write_classes(tmp_path, {"a": 4, "b": 3})
    grey = np.full((20, 30), 51, np.uint8)
    grey[:, 15:] = 153
    (root / "b" / "grey.png").write_bytes(encode(Image.fromarray(grey)))
    manifest = build(root)
    assert tuple(manifest.table.columns) == COLUMNS
    facts = row(manifest, "b/grey.png")
    assert (facts["label"], facts["patient"], facts["source_split"]) == ("b", "", "")
    assert (facts["width"], facts["height"], facts["mode"], facts["format"]) == (30, 20, "L", "PNG")
    assert facts["brightness"] == 102.0
    data = (root / "b" / "grey.png").read_bytes()
    assert facts["sha256"] == hashlib.sha256(data).hexdigest()
    assert facts["bytes"] == len(data)
    assert len(facts["phash"]) == 16
    assert int(facts["phash"], 16) >= 0


def test_near_duplicates_share_a_group_and_a_split(manifest):
    for path, other in (("a/recoded.jpg", "a/001.png"), ("b/mislabelled.jpg", "a/002.png")):
        assert row(manifest, path)["duplicate_group"] == row(manifest, other)["duplicate_group"]
        assert row(manifest, path)["split"] == row(manifest, other)["split"]
    assert manifest.table["group"].nunique() == 20
    assert (used(manifest).groupby("group")["split"].nunique() == 1).all()


def test_of_the_very_same_pixels_one_image_is_used(manifest):
    copy, first = row(manifest, "a/copy.png"), row(manifest, "a/000.png")
    assert copy["pixel_sha256"] == first["pixel_sha256"]
    assert copy["duplicate_group"] == first["duplicate_group"]
    assert (first["split"] in SPLITS, copy["split"]) == (True, EXCLUDED)
    assert manifest.table.loc[manifest.copies(), "path"].tolist() == ["a/copy.png"]


def test_a_split_that_came_with_the_data_keeps_its_copies(tmp_path):
    for seed in range(12):
        write(tmp_path / "Training" / "ab"[seed % 2] / f"{seed}.png", seed)
    for seed in (0, 1, 20, 21):
        write(tmp_path / "Testing" / "ab"[seed % 2] / f"{seed}.png", seed)
    grouped = build(tmp_path)
    assert grouped.split(EXCLUDED)["path"].tolist() == ["Training/a/0.png", "Training/b/1.png"]
    folder = grouped.resplit("folder", FRACTIONS, 0)
    assert folder.split(EXCLUDED).empty
    assert set(folder.split("test")["path"]) == {f"Testing/{'ab'[n % 2]}/{n}.png" for n in (0, 1, 20, 21)}
    assert folder.resplit("grouped", FRACTIONS, grouped.seed).fingerprint == grouped.fingerprint


def test_equal_pixels_of_two_classes_are_excluded_and_mere_look_alikes_listed(manifest):
    excluded = manifest.split(EXCLUDED)
    assert excluded["path"].tolist() == ["a/003.png", "a/copy.png", "b/twin.png"]
    conflicts = manifest.conflicts()
    assert conflicts["path"].tolist() == ["a/002.png", "b/mislabelled.jpg", "a/003.png", "b/twin.png"]
    assert row(manifest, "b/mislabelled.jpg")["split"] in SPLITS


def test_refused_images_are_reported_and_have_no_row(manifest):
    assert "b/broken.jpg" not in set(manifest.table["path"])
    (refused,) = manifest.refused
    assert (refused["path"], refused["code"]) == ("b/broken.jpg", "image_truncated")
    assert refused["reason"].endswith(".")


def test_facts(manifest):
    facts = manifest.facts()
    assert facts["groups"] == 20
    assert facts["duplicate_groups"] == 4
    assert facts["duplicate_images"] == 8
    assert facts["patients"] == 0
    assert (facts["excluded"], facts["copies"]) == (3, 1)
    assert facts["images"][EXCLUDED] == {"a": 2, "b": 1}
    assert sum(sum(counts.values()) for counts in facts["images"].values()) == len(manifest.table) == 24
    assert facts["refused"] == list(manifest.refused)
    assert facts["fingerprint"] == manifest.fingerprint
    assert facts["conflicts"][0] == {
        "path": "a/002.png",
        "label": "a",
        "duplicate_group": int(row(manifest, "a/002.png")["duplicate_group"]),
    }


def test_labels_are_places_in_the_sorted_classes(manifest):
    assert manifest.classes == ("a", "b")
    rows = manifest.split("train")
    assert manifest.labels(rows).tolist() == [0 if label == "a" else 1 for label in rows["label"]]


@pytest.mark.parametrize(
    "names",
    [
        [str(number) for number in range(12)],
        ["grade_1", "grade_2", "grade_10"],
        ["T1a", "T1b", "T2", "T11"],
        ["0.5 mm", "2 mm", "10 mm"],
        ["a", "B", "c"],
    ],
)
def test_classes_are_in_natural_order(tmp_path, names):
    for number, name in enumerate(names):
        (tmp_path / name).mkdir()
        for image in range(4):
            write(tmp_path / name / f"{image}.png", 100 * number + image)
    made = build_manifest("x", tmp_path, scan_folders(tmp_path), fractions=FRACTIONS, progress=False)
    assert list(made.classes) == names


def test_patients_join_images_that_do_not_look_alike(tmp_path):
    root = tmp_path
    for seed in range(24):
        write(root / "ab"[seed % 2] / f"p{seed // 4}_{seed}.png", seed)
    manifest = build(root, r"(p\d+)_")
    assert manifest.table["duplicate_group"].nunique() == 24
    assert manifest.table["group"].nunique() == 6
    assert (manifest.table.groupby("patient")["split"].nunique() == 1).all()
    assert manifest.facts()["patients"] == 6


def test_it_comes_back_from_disk_as_it_was(manifest, tmp_path):
    path = manifest.save(tmp_path / "runs" / "manifest.parquet")
    assert [file.name for file in path.parent.iterdir()] == ["manifest.parquet"]
    loaded = Manifest.load(path)
    assert_frame_equal(loaded.table, manifest.table)
    for name in ("name", "root", "classes", "policy", "seed", "refused", "fingerprint"):
        assert getattr(loaded, name) == getattr(manifest, name)
    assert loaded.facts() == manifest.facts()


def test_a_relative_root_is_found_from_another_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    path = build(Path(folder.name)).save(tmp_path / "manifest.parquet")
    monkeypatch.chdir(tmp_path)
    assert Manifest.load(path).root == folder


def test_a_moved_folder_must_be_named(tmp_path):
    old = write_classes(tmp_path / "old", {"a": 4, "b": 4})
    path = build(old).save(tmp_path / "manifest.parquet")
    new = old.rename(tmp_path / "new")
    with pytest.raises(DataError, match=r"not in .*old' any more"):
        Manifest.load(path)
    assert Manifest.load(path, new).root == new


def test_what_is_no_manifest_is_refused(manifest, tmp_path):
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(b"PAR1 not parquet")
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"path": ["a"]}), foreign)
    short = manifest.save(tmp_path / "short.parquet")
    table = pq.read_table(short)
    pq.write_table(table.drop_columns(["sha256"]), short)
    for path in (bad, foreign, short, tmp_path / "missing.parquet", tmp_path):
        with pytest.raises(DataError, match="is not a manifest"):
            Manifest.load(path)


def test_the_fingerprint_is_of_the_content(folder, manifest, tmp_path):
    table = manifest.table
    shuffled = replace(manifest, table=table.sample(frac=1, random_state=0))
    assert shuffled.fingerprint == manifest.fingerprint
    moved = build(Path(shutil.copytree(folder, tmp_path / "moved")))
    assert moved.fingerprint == manifest.fingerprint
    relabelled = table.assign(label=np.where(table["path"] == "a/005.png", "b", table["label"]))
    assert replace(manifest, table=relabelled).fingerprint != manifest.fingerprint
    resplit = table.assign(split=np.where(table["path"] == "a/005.png", EXCLUDED, table["split"]))
    assert replace(manifest, table=resplit).fingerprint != manifest.fingerprint
    assert replace(manifest, table=table.iloc[1:]).fingerprint != manifest.fingerprint
    assert replace(manifest, classes=("b", "a")).fingerprint != manifest.fingerprint


def test_resplit_repeats_by_seed_and_keeps_excluded_images_out(manifest):
    again = manifest.resplit("grouped", FRACTIONS, manifest.seed)
    assert_frame_equal(again.table, manifest.table)
    other = manifest.resplit("grouped", FRACTIONS, 1)
    assert other.seed == 1
    assert other.fingerprint != manifest.fingerprint
    assert other.split(EXCLUDED)["path"].tolist() == manifest.split(EXCLUDED)["path"].tolist()
    assert (used(other).groupby("group")["split"].nunique() == 1).all()


def test_folder_policy_keeps_the_test_folder_though_a_patient_stands_on_both_sides(tmp_path):
    for seed in range(20):
        write(tmp_path / "Training" / "ab"[seed % 2] / f"p{seed // 2}_{seed}.png", seed)
    for seed in range(20, 24):
        write(tmp_path / "Testing" / "ab"[seed % 2] / f"p{seed % 2}_{seed}.png", seed)
    manifest = build(tmp_path, r"(p\d+)_", policy="folder")
    table = manifest.table
    assert (manifest.policy, set(table["split"])) == ("folder", set(SPLITS))
    assert ((table["split"] == "test") == (table["source_split"] == "test")).all()
    train = table[table["source_split"] == "train"]
    assert (train.groupby("group")["split"].nunique() == 1).all()
    grouped = manifest.resplit("grouped", FRACTIONS, 0)
    assert (grouped.table.groupby("patient")["split"].nunique() == 1).all()
    assert grouped.resplit("folder", FRACTIONS, 0).fingerprint == manifest.fingerprint


def test_impossible_splits_are_refused(manifest):
    with pytest.raises(DataError, match="no split folders"):
        manifest.resplit("folder", FRACTIONS, 0)
    with pytest.raises(DataError, match=r"data\.split is 'random'"):
        manifest.resplit("random", FRACTIONS, 0)


def test_a_class_of_which_nothing_is_left_is_refused(tmp_path):
    root = write_classes(tmp_path, {"a": 4, "b": 4})
    (root / "c").mkdir()
    (root / "c" / "text.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"No image of 1 classes can be used \(c\): of all images 1 are refused"):
        build(root)
    shutil.copy(root / "a" / "000.png", root / "c" / "text.jpg")
    with pytest.raises(DataError, match=r"\(c\): of all images 0 are refused and 2 have the same pixels"):
        build(root)


def test_nothing_that_can_be_read_is_refused(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.jpg").touch()
    with pytest.raises(DataError, match="None of the 2 images"):
        build(tmp_path)


def test_a_link_to_nowhere_is_refused_alone(tmp_path):
    root = write_classes(tmp_path, {"a": 4, "b": 4})
    (root / "a" / "lost.png").symlink_to(root / "nowhere.png")
    manifest = build(root)
    assert [(one["path"], one["code"]) for one in manifest.refused] == [("a/lost.png", "image_not_found")]
    assert len(manifest.table) == 8


def test_equal_pictures_in_two_formats_have_equal_pixels(tmp_path):
    root = write_classes(tmp_path, {"a": 4, "b": 4})
    Image.fromarray(picture(0)).save(root / "a" / "000.bmp")
    manifest = build(root)
    png, bmp = row(manifest, "a/000.png"), row(manifest, "a/000.bmp")
    assert png["sha256"] != bmp["sha256"]
    assert png["pixel_sha256"] == bmp["pixel_sha256"]
    assert png["group"] == bmp["group"]


@pytest.mark.real
def test_brain_tumor_mri_sample(shared):
    root = shared / "data" / "brain_tumor_mri"
    rows = scan_folders(root).groupby("label").sample(30, random_state=0).sort_values("path", ignore_index=True)
    manifest = build_manifest("mri", root, rows, fractions=FRACTIONS, progress=False)
    assert manifest.classes == ("glioma", "meningioma", "notumor", "pituitary")
    assert not manifest.refused
    assert set(manifest.table["width"]) == set(manifest.table["height"]) == {224}
    assert set(manifest.table["mode"]) == {"L", "RGB"}
    assert (manifest.table.groupby("group")["split"].nunique() == 1).all()


@pytest.mark.real
def test_cassava(shared):
    root = shared / "data" / "cassava"
    rows = scan_csv(root, "train.csv", images="train_images", label_names="label_num_to_disease_map.json")
    manifest = build_manifest("cassava", root, rows, fractions=FRACTIONS, progress=False)
    assert len(manifest.classes) == 5
    assert len(manifest.table) + len(manifest.refused) == 253
    for name in SPLITS:
        assert set(manifest.split(name)["label"]) == set(manifest.classes)
