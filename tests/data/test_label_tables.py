"""Tables as other programs and other people write them: what is read, and what is refused by name."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from lesion.core.errors import DataError
from lesion.data.scan import scan_csv

IMAGES = ("1.jpg", "2.jpg", "3.jpg", "4.jpg")
PLAIN = "image_id,label\n1.jpg,a\n2.jpg,b\n3.jpg,a\n4.jpg,b\n"
WANTED = {"img/1.jpg": "a", "img/2.jpg": "b", "img/3.jpg": "a", "img/4.jpg": "b"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return touch(tmp_path, *(f"img/{name}" for name in IMAGES))


def touch(root: Path, *names: str) -> Path:
    """Empty files: scanning does not open images."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(root: Path, text: str | bytes, **settings: Any) -> dict[str, str]:
    """The label of each image of a table."""
    (root / "t.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    frame = scan_csv(root, "t.csv", **({"images": "img"} | settings))
    return dict(zip(frame["path"], frame["label"], strict=True))


def refusal(root: Path, text: str, **settings: Any) -> str:
    with pytest.raises(DataError) as error:
        found(root, text, **settings)
    return error.value.message


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_separators_and_encodings(root: Path, separator: str, encoding: str) -> None:
    assert found(root, PLAIN.replace(",", separator).encode(encoding)) == WANTED


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("\n", "\r\n"),
        "sep=;\r\n" + PLAIN.replace(",", ";"),
        "\n" + PLAIN.replace("\n", "\n\n") + "\n,\n",
        PLAIN.replace("1.jpg", '"1.jpg"').replace(",a", ', "a"'),
        PLAIN.replace("\n", ",\n"),  # a separator at the end of every line
        ",image_id,label\n" + "".join(f"{i},{i + 1}.jpg,{'ab'[i % 2]}\n" for i in range(4)),  # pandas' row numbers
        'image_id;label;note\n1.jpg;a;"x, y"\n2.jpg;b;"two\nlines"\n3.jpg;a;1,5\n4.jpg;b;,,,\n',
    ],
)
def test_ways_of_writing_a_table(root: Path, text: str) -> None:
    assert found(root, text, label_column="label") == WANTED


def test_the_separator_is_the_one_that_gives_the_named_columns(root: Path) -> None:
    text = "a,b,c;image,x;the label\n1,2,3;1.jpg;a\n4,5,6;2.jpg;b\n"
    assert found(root, text, path_column="image,x", label_column="the label") == {"img/1.jpg": "a", "img/2.jpg": "b"}


@pytest.mark.parametrize(
    "labels",
    [("007", "7"), ("1", "2"), ("1.0", "1"), ("2024-01-15", "15.01.2024"), ("1e3", "1000"), ("True", "False"),
     ("none", "N/A"), ("NaN", "null"), ("0x10", "16"), ("-1", "+1")],
)  # fmt: skip
def test_labels_stay_the_text_that_they_are(root: Path, labels: tuple[str, str]) -> None:
    text = PLAIN.replace(",a", f",{labels[0]}").replace(",b", f",{labels[1]}")
    assert set(found(root, text).values()) == set(labels)


@pytest.mark.parametrize(
    "write",
    [
        lambda name: name.removesuffix(".jpg"),
        lambda name: f"./{name}",
        lambda name: f"img/{name}",
        lambda name: f"../data/img/{name}",
        lambda name: f"/kaggle/input/set/img/{name}",
        lambda name: f"/set/on/c/{name.removesuffix('.jpg')}",
        lambda name: f"C:\\Users\\me\\img\\{name}",
        lambda name: f"\\\\server\\share\\{name}",
        lambda name: f".\\{name}",
        lambda name: f"https://example.org/img/{name}",
        lambda name: name.upper(),
    ],
)
def test_ways_of_naming_a_file(root: Path, write) -> None:
    rows = "".join(f"{write(name)},{label}\n" for name, label in zip(IMAGES, "abab", strict=True))
    assert found(root, f"image_id,label\n{rows}") == WANTED


def test_a_name_alone_is_looked_up_in_every_folder(tmp_path: Path) -> None:
    touch(tmp_path, "part_1/x1.jpg", "part_2/x2.png", "part_2/deep/x3.jpg")
    assert found(tmp_path, "image_id,label\nx1,a\nx2,b\nx3,b\n", images=".") == {
        "part_1/x1.jpg": "a", "part_2/x2.png": "b", "part_2/deep/x3.jpg": "b",
    }  # fmt: skip


def test_accents_and_absolute_paths_of_the_folder_itself(tmp_path: Path) -> None:
    touch(tmp_path, "img/a/l\u00e4.jpg", "img/b/2.jpg")
    text = f"image_id,label\na/la\u0308.jpg,a\n{tmp_path}/img/b/2.jpg,b\n"
    assert found(tmp_path, text) == {"img/a/l\u00e4.jpg": "a", "img/b/2.jpg": "b"}


def test_a_file_of_another_folder_is_not_taken(tmp_path: Path) -> None:
    touch(tmp_path, "img/p1/1.jpg", "img/p2/2.jpg")
    assert "names 1 of 2 files" in refusal(tmp_path, "image_id,label\np1/1.jpg,a\np3/2.jpg,b\n")


def test_a_cell_that_may_be_several_files_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "img/p1/1.jpg", "img/p2/1.jpg", "img/2.jpg", "img/2.png")
    said = refusal(tmp_path, "image_id,label\n1.jpg,a\n2.jpg,b\n")
    assert "names 1.jpg, which may be any of 2 files in 'img': p1/1.jpg, p2/1.jpg" in said
    assert "2.jpg, 2.png" in refusal(tmp_path, "image_id,label\np1/1.jpg,a\n2,b\n")


def test_two_names_for_one_file_are_refused(root: Path) -> None:
    said = refusal(root, "image_id,label\n/p1/1.jpg,a\n/p2/1.jpg,a\n2.jpg,b\n")
    assert "gives 1 image several names, the first: 1.jpg: /p1/1.jpg (row 2), /p2/1.jpg (row 3)" in said
    assert found(root, "image_id,label\n1,a\n./1.jpg,a\n2.jpg,b\n") == {"img/1.jpg": "a", "img/2.jpg": "b"}


def test_contradictions_are_named_with_their_rows(root: Path) -> None:
    said = refusal(root, "image_id,label\n1.jpg,a\n\n2.jpg,b\n1,b\n2.jpg,b\n2.jpg,a\n")
    assert "gives 2 images several labels, the first: 1.jpg: a (row 2), b (row 5)" in said
    said = refusal(root, "image_id,label,p\n1.jpg,a,x\n1.jpg,a,y\n2.jpg,b,z\n", group_column="p")
    assert "gives 1 image several groups, the first: 1.jpg: x (row 2), y (row 3)" in said


def test_missing_files_are_counted_and_may_be_skipped(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = PLAIN + "".join(f"x{number}.jpg,a\n" for number in range(5))
    assert "names 5 of 9 files that are not in 'img': x0.jpg (row 6), x1.jpg (row 7), x2.jpg (row 8) and 2 more" in (
        refusal(root, text)
    )
    assert found(root, text, missing="skip") == WANTED
    assert "left out: 't.csv' names 5 of 9 files" in caplog.text


def test_images_without_a_row_are_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(root, "img/1_mask.png", "img/.hidden.jpg", "img/readme.txt", "img/@eaDir/1.jpg")
    assert len(found(root, "image_id,label\n1.jpg,a\n2.jpg,b\n")) == 2
    assert "left out: 2 images of 'img' without a row in 't.csv', such as 3.jpg" in caplog.text


def test_a_class_a_column(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    text = "image,MEL,NV,BCC,age\n1,1.0,0.0,0.0,40\n2,0.0,1.0,0.0,50\n3,1,0,0,60\n4,0,0,1,70\n"
    assert list(found(root, text).values()) == ["MEL", "NV", "MEL", "BCC"]
    assert "took the columns of 't.csv': 'image' as the file, 'MEL', 'NV', 'BCC' as the classes" in caplog.text
    assert "not used: age" in caplog.text
    assert list(found(root, text, label_column=["NV", "BCC", "MEL"]).values()) == ["MEL", "NV", "MEL", "BCC"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("1,1,0\n2,1,1\n3,0,1\n", "gives several classes to the images of 1 rows (row 3)"),
        ("1,1,0\n2,0,0\n3,0,1\n", "gives no class to the images of 1 rows (row 3)"),
        ("1,1,0\n2,0,2\n3,0,1\n", "'2' in row 3 of 'dog'"),
    ],
)
def test_columns_that_do_not_give_one_class_are_refused(root: Path, rows: str, words: str) -> None:
    assert words in refusal(root, f"image_id,cat,dog\n{rows}", label_column=["cat", "dog"])


@pytest.mark.parametrize(
    ("header", "path", "label"),
    [
        ("image_id,dx,lesion_id", "image_id", "dx"),
        ("Image Index,Patient ID,Finding Labels", "Image Index", "Finding Labels"),
        ("filepaths,labels,data set", "filepaths", "labels"),
        ("id_code,diagnosis", "id_code", "diagnosis"),
        ("what,kind", "what", "kind"),
        ("label,diagnosis,image", "image", "label"),
        ("Class,Image_Name", "Image_Name", "Class"),
    ],
)
def test_columns_are_recognized_and_said(
    root: Path, header: str, path: str, label: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cells = [{path: name, label: "ab"[number % 2]} for number, name in enumerate(IMAGES)]
    rows = "".join(",".join(row.get(name, "x") for name in header.split(",")) + "\n" for row in cells)
    assert found(root, f"{header}\n{rows}") == WANTED
    assert f"took the columns of 't.csv': '{path}' as the file, '{label}' as the label" in caplog.text


@pytest.mark.parametrize("header", ["image_id,diagnosis,grade", "image_id,kind,sort"])
def test_several_label_columns_are_asked_about_by_name(root: Path, header: str) -> None:
    said = refusal(root, f"{header}\n1.jpg,a,x\n2.jpg,b,y\n")
    _, first, second = header.split(",")
    assert f"several columns that may hold the labels: {first}, {second}" in said
    assert f"data.csv={{csv: t.csv, label_column: {first}}}" in said


def test_a_named_column_is_taken_whatever_the_others_are(root: Path) -> None:
    text = "label,real,file,image_id\nx,a,1.jpg,9\nx,b,2.jpg,8\n"
    assert found(root, text, label_column="real", path_column="file") == {"img/1.jpg": "a", "img/2.jpg": "b"}
    assert "has no columns 'truth'" in refusal(root, text, label_column="truth")


def test_names_of_labels_fit_columns_too(root: Path) -> None:
    (root / "names.json").write_text(json.dumps({"c": "cat", "d": "dog"}))
    text = "image_id,c,d\n1,1,0\n2,0,1\n"
    assert found(root, text, label_names="names.json") == {"img/1.jpg": "cat", "img/2.jpg": "dog"}
