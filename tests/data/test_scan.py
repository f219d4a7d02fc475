"""Finding the labelled images of a dataset on disk."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from lesion.core.errors import DataError
from lesion.data.scan import COLUMNS, scan_csv, scan_folders


def touch(root: Path, *names: str) -> Path:
    """Empty files: scanning does not open images."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def rows(frame) -> list[tuple[str, ...]]:
    assert tuple(frame.columns) == COLUMNS
    return list(frame.itertuples(index=False, name=None))


def test_class_folders(tmp_path):
    touch(tmp_path, "b/2.PNG", "b/1.jpg", "a/deeper/still/3.TIFF", "a-c/4.jpeg")
    assert rows(scan_folders(tmp_path)) == [
        ("a-c/4.jpeg", "a-c", "", ""),
        ("a/deeper/still/3.TIFF", "a", "", ""),
        ("b/1.jpg", "b", "", ""),
        ("b/2.PNG", "b", "", ""),
    ]


def test_split_folders_and_a_class_of_one_split_alone(tmp_path):
    touch(tmp_path, "Training/glioma/1.jpg", "Testing/glioma/1.jpg", "Testing/rare/2.jpg", "VAL/glioma/3.jpg")
    assert rows(scan_folders(tmp_path)) == [
        ("Testing/glioma/1.jpg", "glioma", "test", ""),
        ("Testing/rare/2.jpg", "rare", "test", ""),
        ("Training/glioma/1.jpg", "glioma", "train", ""),
        ("VAL/glioma/3.jpg", "glioma", "val", ""),
    ]


def test_hidden_files_and_folders_are_skipped_silently(tmp_path, caplog):
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "a/._1.jpg", "a/.cache/3.jpg", ".git/c/4.jpg", ".DS_Store")
    assert [row[0] for row in rows(scan_folders(tmp_path))] == ["a/1.jpg", "b/2.jpg"]
    assert not caplog.records


def test_what_is_left_out_is_said(tmp_path, caplog):
    touch(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "train/b/notes.txt", "train/b/3.gif", "train/loose.png", "x.jpg")
    assert len(scan_folders(tmp_path)) == 2
    others, stray = sorted(record.getMessage() for record in caplog.records)
    assert others.startswith("left out: 2 files of other types")
    assert others.endswith("b/3.gif")
    assert stray.startswith("left out: 2 images in no class folder")


def test_links_and_folders_named_like_images(tmp_path):
    other = touch(tmp_path / "elsewhere", "7.jpg", "deep/8.jpg")
    root = touch(tmp_path / "root", "a/1.jpg", "b/folder.jpg/2.jpg")
    (root / "a" / "link.jpg").symlink_to(other / "7.jpg")
    (root / "linked").symlink_to(other, target_is_directory=True)
    (root / "a" / "loop").symlink_to(root, target_is_directory=True)
    assert [row[0] for row in rows(scan_folders(root))] == [
        "a/1.jpg",
        "a/link.jpg",
        "b/folder.jpg/2.jpg",
        "linked/7.jpg",
        "linked/deep/8.jpg",
    ]


def test_a_folder_without_images_beside_the_splits_is_ignored(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "test/b/2.jpg", "docs/readme.txt", "__MACOSX/train/a/._1.jpg")
    assert len(scan_folders(tmp_path)) == 2


@pytest.mark.parametrize(
    ("name", "split"),
    [("train_set", "train"), ("training_set", "train"), ("Train ", "train"), ("Test set", "test"),
     ("testing_set", "test"), ("validation_set", "val"), ("val-set", "val"), ("devset", "val"), ("seg_train", "train"),
     ("train_images", "train"), ("trn", "train"),
     ("TST set", "test"), ("Test data", "test"), ("test-imgs", "test"), ("split_val", "val")],
)  # fmt: skip
def test_split_folders_go_by_many_names(tmp_path, name, split):
    touch(tmp_path, f"{name}/a/1.jpg", f"{name}/b/2.jpg")
    assert [row[1:3] for row in rows(scan_folders(tmp_path))] == [("a", split), ("b", split)]


def test_the_only_folder_is_read_if_it_has_splits(tmp_path):
    touch(tmp_path, "chest/train/a/1.jpg", "chest/train/b/2.jpg", "chest/test/a/3.jpg", "__MACOSX/chest/x.jpg")
    assert [row[:3] for row in rows(scan_folders(tmp_path))] == [
        ("chest/test/a/3.jpg", "a", "test"),
        ("chest/train/a/1.jpg", "a", "train"),
        ("chest/train/b/2.jpg", "b", "train"),
    ]


@pytest.mark.parametrize("copy", ["chest", "copy/chest"])
def test_a_copy_of_the_dataset_beside_its_splits_is_left_out(tmp_path, caplog, copy):
    touch(tmp_path, "train/a/1.jpg", "train/b/2.jpg", f"{copy}/train/a/1.jpg", f"{copy}/train/b/2.jpg")
    assert [row[0] for row in rows(scan_folders(tmp_path))] == ["train/a/1.jpg", "train/b/2.jpg"]
    assert f"left out: {copy.partition('/')[0]}, which has split folders itself" in caplog.text


def test_a_class_may_be_called_like_a_split(tmp_path):
    touch(tmp_path, "bus/1.jpg", "car/2.jpg", "train/3.jpg")
    assert [row[1:3] for row in rows(scan_folders(tmp_path))] == [("bus", ""), ("car", ""), ("train", "")]


@pytest.mark.parametrize("names", [("mitral valve", "aortic valve"), ("testis", "test_is"), ("scaffold", "blindfold")])
def test_classes_whose_names_contain_a_split_are_classes(tmp_path, names):
    touch(tmp_path, *(f"{name}/{number}.jpg" for number, name in enumerate(names)))
    assert sorted(scan_folders(tmp_path)["label"]) == sorted(names)


def test_masks_are_left_out_and_named(tmp_path, caplog):
    touch(
        tmp_path, "benign/b (1).png", "benign/b (1)_mask.png", "benign/b (1)_mask_1.png", "benign/x-seg.png",
        "malignant/1.png", "malignant/1_Segmentation.png", "normal/images/1.png", "normal/Masks/1.png",
    )  # fmt: skip
    assert [row[0] for row in rows(scan_folders(tmp_path))] == [
        "benign/b (1).png", "benign/x-seg.png", "malignant/1.png", "normal/images/1.png",
    ]  # fmt: skip
    assert "left out: 4 masks, such as" in caplog.text


def test_classes_about_masks_keep_their_images(tmp_path):
    touch(tmp_path, "with_mask/with_mask_1.jpg", "with_mask/2_mask.jpg", "mask/1.jpg", "mask/2.jpg", "no mask/3.jpg")
    assert len(scan_folders(tmp_path)) == 5


@pytest.mark.parametrize("folder", ["@eaDir", "#recycle", "$RECYCLE.BIN", ".thumbnails", "System Volume Information"])
def test_folders_that_programs_add_are_skipped(tmp_path, folder):
    touch(tmp_path, "a/1.jpg", "b/2.jpg", f"{folder}/3.jpg", f"a/{folder}/4.jpg")
    assert len(scan_folders(tmp_path)) == 2


def test_dicom_files_are_known_by_their_content(tmp_path):
    dicom = bytes(128) + b"DICM" + bytes(8)
    for name in ("a/IM000001", "a/1.2.840.10008", "b/SLICE.IMA", "b/2"):
        touch(tmp_path, name)
        (tmp_path / name).write_bytes(dicom)
    touch(tmp_path, "a/README", "b/3.txt")
    assert [row[0] for row in rows(scan_folders(tmp_path))] == ["a/1.2.840.10008", "a/IM000001", "b/2", "b/SLICE.IMA"]


def test_images_of_a_split_without_class_folders_are_named(tmp_path, caplog):
    touch(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/3.jpg")
    assert len(scan_folders(tmp_path)) == 2
    [record] = caplog.records
    assert record.getMessage() == f"left out: 1 images in no class folder, such as {tmp_path}/test/3.jpg"


def test_an_archivers_folder_is_skipped_at_any_depth(tmp_path, caplog):
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "a/__MACOSX/3.jpg", "__MACOSX/a/4.jpg", "__MACOSX/c/5.jpg")
    assert [row[0] for row in rows(scan_folders(tmp_path))] == ["a/1.jpg", "b/2.jpg"]
    assert not caplog.records


def test_folders_inside_classes_that_differ_are_part_of_them(tmp_path):
    touch(tmp_path, "a/p1/1.jpg", "a/p2/2.jpg", "b/p3/3.jpg", "b/p4/4.jpg", "c/one/5.jpg")
    assert scan_folders(tmp_path)["label"].tolist() == ["a", "a", "b", "b", "c"]
    touch(tmp_path / "same", "x/images/1.jpg", "y/images/2.jpg")
    assert scan_folders(tmp_path / "same")["label"].tolist() == ["x", "y"]


def test_classes_may_have_the_same_folders(tmp_path, caplog):
    touch(tmp_path, "benign/40X/1.jpg", "benign/100X/2.jpg", "malignant/40X/3.jpg", "malignant/100X/4.jpg")
    assert scan_folders(tmp_path)["label"].tolist() == ["benign"] * 2 + ["malignant"] * 2
    assert "each class folder (benign, malignant) has the same folders (40X, 100X)" in caplog.text


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), "0 classes"),
        (("only/1.jpg",), "1 classes (only)"),
        (("1.jpg", "2.jpg"), "0 classes"),
        (("a/1.jpg", "b/2.jpg", "empty/readme.txt"), "without a single image: empty"),
        (("train/a/1.jpg", "train/b/2.jpg", "test/c/x.txt"), "without a single image: c"),
        (("train/a/1.jpg", "test/b/2.jpg", "glioma/3.jpg"), "mixes split folders with others (glioma)"),
        (("dataset/a/1.jpg", "dataset/b/2.jpg"), "/dataset?"),
        (("train_images/1.jpg", "test_images/2.jpg", "train.csv"), "named like splits, not like classes"),
        (("train/1.jpg", "test/2.jpg", "labels.csv"), "(there is labels.csv)"),
        (("fold_1/1.jpg", "fold_2/2.jpg", "fold_10/3.jpg"), "(fold_1, fold_2, fold_10) are named like splits"),
        (
            ("fold_1/train/1.jpg", "fold_1/test/2.jpg", "fold_2/train/3.jpg", "fold_2/test/4.jpg"),
            "outer ones seem to be",
        ),
        (("part_split/a/1.jpg", "part_split/b/2.jpg", "x/a/3.jpg", "x/b/4.jpg"), "the outer ones seem to be splits"),
        (("devel/a/1.jpg", "devel/b/2.jpg", "x/a/3.jpg", "x/b/4.jpg"), "(devel, x) has the same folders (a, b)"),
        (("train/Glioma/1.jpg", "test/glioma/2.jpg"), "the labels 'Glioma' and 'glioma', which differ only in case"),
        (("a/1.jpg", "a /2.jpg"), "the labels 'a' and 'a '"),
        (("\u00e9/1.jpg", "E\u0301/2.jpg"), "which differ only in case"),
    ],
)
def test_unusable_folders_are_refused(tmp_path, files, words):
    with pytest.raises(DataError) as error:
        scan_folders(touch(tmp_path, *files))
    assert words in error.value.message


def test_one_name_in_two_encodings_is_one_class(tmp_path):
    touch(tmp_path, "train/l\u00e4sion/1.jpg", "train/b/2.jpg", "test/la\u0308sion/3.jpg", "test/b/4.jpg")
    assert sorted(set(scan_folders(tmp_path)["label"])) == ["b", "l\u00e4sion"]
    (tmp_path / "t.csv").write_text("path,label\ntrain/b/2.jpg,la\u0308sion\ntest/b/4.jpg,b\n", "utf-8")
    assert scan_csv(tmp_path, "t.csv", path_column="path")["label"].tolist() == ["b", "l\u00e4sion"]


def test_a_class_that_is_empty_in_one_split_alone_is_fine(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/a/3.jpg")
    (tmp_path / "test" / "b").mkdir()
    assert len(scan_folders(tmp_path)) == 3


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        scan_folders(tmp_path / "nowhere")


def test_names_that_are_not_utf8_are_refused(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    try:
        (tmp_path / "b" / os.fsdecode(b"\xff.jpg")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    with pytest.raises(DataError, match=r"1 file names that are not UTF-8.*udcff"):
        scan_folders(tmp_path)


def test_group_pattern_names_the_patient(tmp_path):
    touch(tmp_path, "a/patient1_s1.jpg", "a/patient1_s2.jpg", "b/patient22_s1.jpg")
    frame = scan_folders(tmp_path, r"(patient\d+)_")
    assert frame["patient"].tolist() == ["patient1", "patient1", "patient22"]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(patient", "not a regular expression"),
        (r"patient\d+", "exactly one group"),
        (r"(p)(\d)", "exactly one group"),
        (r"(patient\d+)", "does not match 1 of 2 paths, the first: b/other.jpg"),
        (r"(patient\d+)?", "does not match 2 of 2 paths"),  # a group that is optional, and here left out
        (r"a/|b/(.*)", "does not match 1 of 2 paths"),
    ],
)
def test_patterns_that_name_no_patient_are_refused(tmp_path, pattern, words):
    touch(tmp_path, "a/patient1.jpg", "b/other.jpg")
    with pytest.raises(DataError) as error:
        scan_folders(tmp_path, pattern)
    assert words in error.value.message


@pytest.fixture
def leaves(tmp_path: Path) -> Path:
    """Cassava's layout."""
    touch(tmp_path, "img/1.jpg", "img/2.jpg", "img/3.jpg")
    (tmp_path / "names.json").write_text(json.dumps({"0": "blight", "4": "healthy"}))
    return tmp_path


def write_csv(root: Path, text: str, encoding: str = "utf-8") -> str:
    (root / "t.csv").write_text(text, encoding)
    return "t.csv"


def test_csv_with_label_names_and_plants(leaves):
    csv = write_csv(leaves, "image_id,plant,label\n2.jpg,p1,4\n1.jpg,,0\n3.jpg,p1,0\n3.jpg,p1,0\n", "utf-8-sig")
    assert rows(scan_csv(leaves, csv, images="img", label_names="names.json", group_column="plant")) == [
        ("img/1.jpg", "blight", "", ""),
        ("img/2.jpg", "healthy", "", "p1"),
        ("img/3.jpg", "blight", "", "p1"),
    ]


def test_label_names_may_begin_with_a_byte_order_mark(leaves):
    (leaves / "names.json").write_text(json.dumps({"0": "blight", "4": "healthy"}), "utf-8-sig")
    csv = write_csv(leaves, "image_id,label\n1.jpg,0\n2.jpg,4\n")
    assert scan_csv(leaves, csv, images="img", label_names="names.json")["label"].tolist() == ["blight", "healthy"]


def test_csv_keeps_labels_as_they_are_written(leaves):
    csv = write_csv(leaves, "image_id,label\nimg/1.jpg,007\n./img/2.jpg,NA\n")
    assert [row[:2] for row in rows(scan_csv(leaves, csv))] == [("img/1.jpg", "007"), ("img/2.jpg", "NA")]


def test_csv_with_a_group_pattern(leaves):
    csv = write_csv(leaves, "image_id,label\n1.jpg,a\n2.jpg,b\n")
    assert scan_csv(leaves, csv, images="img", group_pattern=r"(\d)\.jpg")["patient"].tolist() == ["1", "2"]
    with pytest.raises(DataError, match="give only one"):
        scan_csv(leaves, csv, images="img", group_pattern=r"(\d)", group_column="label")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("image_id,label\n", "0 classes"),
        ("image_id,label\n1.jpg,0\n2.jpg,0\n", "1 classes"),
        ("number,label\n17,0\n", "no column whose cells are files"),
        ("image_id,label,label\n1.jpg,0,4\n", "has 2 columns 'label'"),
        ("image_id,label\n1.jpg,0,\n", "cannot be read"),  # pandas alone would shift the columns
        ("image_id,label\n1.jpg,0\n2.jpg\n", "row without 'label': 2.jpg"),
        ("image_id,label\n,0\n2.jpg,4\n", "row without 'image_id'"),
        (
            "image_id,label\n1.jpg,0\n9.jpg,4\n8.jpg,4\n",
            "names 2 of 3 files that are not in 'img': 9.jpg (row 3), 8.jpg (row 4)",
        ),
        (
            "image_id,label\n1.jpg,0\n/etc/passwd,4\n",
            "/etc/passwd (row 3). Files outside of this folder are never taken",
        ),
        ("image_id,label\n1.jpg,0\n../names.json,4\n", "../names.json (row 3). Files outside"),
        (
            "image_id,label\n1.jpg,0\n1.jpg,4\n1.jpg,4\n",
            "gives 1 image several labels, the first: 1.jpg: blight (row 2), healthy (row 3)",
        ),
        ("image_id,label\n1.jpg,0\n2.jpg,  \n", "row without 'label': 2.jpg"),
        (f"image_id,label\n1.jpg,0\n{'x' * 5000}.jpg,4\n", "names 1 of 2 files that are not in 'img': xxx"),
        ("image_id,label\n1.jpg,0\n2.jpg,3\n", "labels without a name in 'names.json': 3"),
    ],
)
def test_unusable_tables_are_refused(leaves, text, words):
    with pytest.raises(DataError) as error:
        scan_csv(leaves, write_csv(leaves, text), images="img", label_names="names.json")
    assert words in error.value.message


def test_cells_of_a_table_are_stripped(leaves):
    csv = write_csv(leaves, "image_id , label\n1.jpg , a\n 2.jpg,a \n3.jpg,b\n")
    assert scan_csv(leaves, csv, images="img")["label"].tolist() == ["a", "a", "b"]


@pytest.mark.parametrize(
    "columns", [{"group_column": "label"}, {"label_column": "image_id", "path_column": "image_id"}]
)
def test_a_column_that_shall_be_two_things_is_refused(leaves, columns):
    csv = write_csv(leaves, "image_id,label\n1.jpg,0\n2.jpg,4\n")
    with pytest.raises(DataError, match="cannot have two meanings"):
        scan_csv(leaves, csv, images="img", **columns)


def test_labels_of_nearly_one_name_are_refused(leaves):
    csv = write_csv(leaves, "image_id,label\n1.jpg,Blight\n2.jpg,blight\n3.jpg,x\n")
    with pytest.raises(DataError, match="the labels 'Blight' and 'blight'"):
        scan_csv(leaves, csv, images="img")


@pytest.mark.parametrize("names", ["", "[1]", '{"0": 1}', "{"])
def test_unusable_label_names_are_refused(leaves, names):
    (leaves / "names.json").write_text(names)
    with pytest.raises(DataError, match=r"names\.json"):
        scan_csv(leaves, write_csv(leaves, "image_id,label\n1.jpg,0\n"), images="img", label_names="names.json")


def test_a_table_that_is_missing_or_not_utf8_is_refused(leaves):
    with pytest.raises(DataError, match="cannot be read"):
        scan_csv(leaves, "missing.csv")
    with pytest.raises(DataError, match="cannot be read as UTF-8"):
        scan_csv(leaves, write_csv(leaves, "image_id,label\nü.jpg,0\n", "latin-1"))


@pytest.mark.real
def test_brain_tumor_mri(shared):
    frame = scan_folders(shared / "data" / "brain_tumor_mri")
    assert Counter(zip(frame["source_split"], frame["label"], strict=True)) == {
        ("train", "glioma"): 1170,
        ("train", "meningioma"): 1193,
        ("train", "notumor"): 1444,
        ("train", "pituitary"): 1310,
        ("test", "glioma"): 271,
        ("test", "meningioma"): 272,
        ("test", "notumor"): 372,
        ("test", "pituitary"): 267,
    }


@pytest.mark.real
def test_cassava(shared):
    frame = scan_csv(
        shared / "data" / "cassava",
        "train.csv",
        images="train_images",
        label_names="label_num_to_disease_map.json",
    )
    assert len(frame) == 253
    assert sorted(frame["label"].unique()) == [
        "Cassava Bacterial Blight (CBB)",
        "Cassava Brown Streak Disease (CBSD)",
        "Cassava Green Mottle (CGM)",
        "Cassava Mosaic Disease (CMD)",
        "Healthy",
    ]
