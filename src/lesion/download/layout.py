"""Lay out a download, in whatever arrangement, as the dataset's own folder tree.

A layout gets the folder of the download and an empty folder to fill, and returns the number of images per label.
Images are hard links where the file system allows it: nothing is copied, and the download stays complete until the new
tree is.
"""

import csv
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from lesion.core.errors import DataError
from lesion.imaging.file_types import is_image_name

Layout = Callable[[Path, Path], dict[str, int]]

_SPLITS = {"train": "Training", "training": "Training", "test": "Testing", "testing": "Testing"}
_TUMORS = {"glioma": "glioma", "meningioma": "meningioma", "pituitary": "pituitary", "no": "notumor"}
_CASSAVA = ("cbb", "cbsd", "cgm", "cmd", "healthy")
_DISEASES = {
    "0": "Cassava Bacterial Blight (CBB)",
    "1": "Cassava Brown Streak Disease (CBSD)",
    "2": "Cassava Green Mottle (CGM)",
    "3": "Cassava Mosaic Disease (CMD)",
    "4": "Healthy",
}


def brain_tumor_mri(raw: Path, ready: Path) -> dict[str, int]:
    """Lay out ``{Training,Testing}/{glioma,meningioma,notumor,pituitary}/*``.

    Folders may lie at any depth and be named like ``1-notumor``, ``no_tumor`` or ``glioma_tumor``. A class that is
    missing from a split is a DataError (download_layout).
    """
    counts: Counter[str] = Counter()
    missing = {f"{split}/{tumor}" for split in _SPLITS.values() for tumor in _TUMORS.values()}
    for path in _images(raw):
        split = _SPLITS.get(path.parent.parent.name.lower())
        word = re.sub("[^a-z]", "", path.parent.name.lower()).removesuffix("tumor").removesuffix("tumour")
        if split and word in _TUMORS:
            place(path, ready / split / _TUMORS[word])
            counts[_TUMORS[word]] += 1
            missing.discard(f"{split}/{_TUMORS[word]}")
    _require(raw, sorted(missing))
    return dict(counts)


def cassava(raw: Path, ready: Path) -> dict[str, int]:
    """Lay out ``train.csv`` (image_id, label), ``label_num_to_disease_map.json`` and ``train_images/*``.

    The download may have the arrangement of Kaggle's competition, or one folder per class (``cbb`` … ``healthy``, ``0``
    … ``4`` or the diseases' names). Labels are ``0`` to ``4``. A missing class or image is a DataError
    (download_layout).
    """
    table = next((path for path in sorted(raw.rglob("train.csv")) if (path.parent / "train_images").is_dir()), None)
    rows = _from_table(table) if table else _from_folders(raw)
    labels = {place(path, ready / "train_images").name: label for path, label in rows}
    counts = Counter(labels.values())
    _require(raw, [f"{name} (label {label})" for label, name in _DISEASES.items() if label not in counts])
    with (ready / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image_id", "label"), *sorted(labels.items())])
    (ready / "label_num_to_disease_map.json").write_text(json.dumps(_DISEASES))
    return dict(sorted(counts.items()))


def place(source: Path, folder: Path) -> Path:
    """Put a file into a folder under its own name, or with a number before it if the name exists."""
    folder.mkdir(parents=True, exist_ok=True)
    target, number = folder / source.name, 1
    while target.exists():
        number += 1
        target = folder / f"{number}-{source.name}"
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
    return target


def _images(raw: Path) -> Iterator[Path]:
    """Yield image files in a fixed order; links are not followed, because they may lead anywhere."""
    for path in sorted(raw.rglob("*")):
        if is_image_name(path) and path.is_file() and not path.is_symlink():
            yield path


def _from_table(table: Path) -> Iterator[tuple[Path, str]]:
    """Yield the images that ``train.csv`` lists, with their labels."""
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            name, label = row.get("image_id") or "", row.get("label") or ""
            path = table.parent / "train_images" / name
            if label not in _DISEASES or Path(name).name != name or not path.is_file():
                raise DataError(
                    f"train.csv lists {name!r} with label {label!r}, but there is no such image or label; delete the "
                    "download and run the same command again.",
                    code="download_layout",
                )
            yield path, label


def _from_folders(raw: Path) -> Iterator[tuple[Path, str]]:
    """Yield the images in folders that are named after exactly one class, with their labels."""
    for path in _images(raw):
        word = path.parent.name.lower()
        labels = [str(n) for n, name in enumerate(_CASSAVA) if word == str(n) or re.search(rf"\b{name}\b", word)]
        if len(labels) == 1:
            yield path, labels[0]


def _require(raw: Path, missing: list[str]) -> None:
    if missing:
        folders = sorted({path.relative_to(raw).as_posix() for path in raw.rglob("*") if path.is_dir()})[:12]
        raise DataError(
            f"The download has no images for {', '.join(missing)} (its folders: {', '.join(folders) or 'none'}). "
            "Choose another source.",
            code="download_layout",
        )
