"""What came from a source, in whatever arrangement, laid out as the data set's own folder tree.

Images are hard links where the file system allows it: nothing is copied, and what was downloaded stays whole until the
new tree is complete.
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

Layout = Callable[[Path, Path], dict[str, int]]

_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_SPLITS = {"train": "Training", "training": "Training", "test": "Testing", "testing": "Testing"}
_TUMOURS = {"glioma": "glioma", "meningioma": "meningioma", "pituitary": "pituitary", "no": "notumor"}
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

    Folders may lie at any depth and be named like ``1-notumor``, ``no_tumor`` or ``glioma_tumor``.

    Args:
        raw: What was downloaded.
        ready: An empty folder to fill.

    Returns:
        The number of images of each class.

    Raises:
        DataError: download_layout, if a class is missing from a split.
    """
    counts: Counter[str] = Counter()
    found = set()
    for path in _images(raw):
        split = _SPLITS.get(path.parent.parent.name.lower())
        word = re.sub("[^a-z]", "", path.parent.name.lower()).removesuffix("tumor").removesuffix("tumour")
        if split and word in _TUMOURS:
            place(path, ready / split / _TUMOURS[word])
            counts[_TUMOURS[word]] += 1
            found.add((split, _TUMOURS[word]))
    missing = [f"{s}/{c}" for s in ("Training", "Testing") for c in sorted(_TUMOURS.values()) if (s, c) not in found]
    _require(raw, missing)
    return dict(counts)


def cassava(raw: Path, ready: Path) -> dict[str, int]:
    """Lay out ``train.csv`` (image_id, label), ``label_num_to_disease_map.json`` and ``train_images/*``.

    Takes the Kaggle competition's own arrangement, or folders of one class each (``cbb`` … ``healthy``, ``0`` … ``4``
    or the diseases' names).

    Args:
        raw: What was downloaded.
        ready: An empty folder to fill.

    Returns:
        The number of images of each label, ``0`` to ``4``.

    Raises:
        DataError: download_layout, if a class or a listed image is missing.
    """
    table = next((path for path in sorted(raw.rglob("train.csv")) if (path.parent / "train_images").is_dir()), None)
    rows = _listed(table) if table else _by_folder(raw)
    labels: dict[str, str] = {}
    for path, label in rows:
        labels[place(path, ready / "train_images").name] = label
    counts = Counter(labels.values())
    _require(raw, [f"{_DISEASES[label]} (label {label})" for label in _DISEASES if label not in counts])
    with (ready / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "label"])
        writer.writerows(sorted(labels.items()))
    (ready / "label_num_to_disease_map.json").write_text(json.dumps(_DISEASES))
    return dict(sorted(counts.items()))


def place(source: Path, folder: Path) -> Path:
    """Put a file into a folder under its own name, or with a number before it where the name is taken."""
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
    """Image files in a fixed order; links are not followed, for they may lead anywhere."""
    for path in sorted(raw.rglob("*")):
        if path.suffix.lower() in _IMAGES and path.is_file() and not path.is_symlink():
            yield path


def _listed(table: Path) -> Iterator[tuple[Path, str]]:
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            name, label = row.get("image_id") or "", row.get("label") or ""
            path = table.parent / "train_images" / name
            if label not in _DISEASES or Path(name).name != name or not path.is_file():
                raise DataError(
                    f"train.csv lists {name!r} with label {label!r}, but there is no such image or label; delete what "
                    "was downloaded and fetch it again.",
                    code="download_layout",
                )
            yield path, label


def _by_folder(raw: Path) -> Iterator[tuple[Path, str]]:
    for path in _images(raw):
        word = path.parent.name.lower()
        match = [
            str(label) for label, name in enumerate(_CASSAVA) if re.search(rf"\b{name}\b", word) or word == str(label)
        ]
        if len(match) == 1:
            yield path, match[0]


def _require(raw: Path, missing: list[str]) -> None:
    if missing:
        folders = sorted({path.relative_to(raw).as_posix() for path in raw.rglob("*") if path.is_dir()})[:12]
        raise DataError(
            f"The download has no images for {', '.join(missing)} (its folders: {', '.join(folders) or 'none'}). "
            "Choose another source.",
            code="download_layout",
        )
