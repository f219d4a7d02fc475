"""Every place that picks images by their names picks the same ones."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from lesion.cli.predict.inputs import expand_folders
from lesion.data.scan import scan_folders
from lesion.download.archives import unpack
from lesion.download.layout import brain_tumor_mri
from lesion.download.parquet_images import _SUFFIXES as PARQUET_SUFFIXES
from lesion.imaging.file_types import IMAGE_SUFFIXES, is_image_name
from scripts.bench.duplicates import labeled_images
from serve.load.samples import load_images

NAMES = sorted(name for suffix in IMAGE_SUFFIXES for name in (f"x{suffix}", f"x{suffix.upper()}"))
OTHERS = ("x.gif", "x.heic", "x.nii", "x.exe", "x")
TUMORS = ("glioma", "meningioma", "notumor", "pituitary")


def write(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in (*NAMES, *OTHERS):
        (folder / name).write_text(name)
    return folder


def names(paths: "list[Path] | list[str] | pd.Series[str]") -> list[str]:
    return sorted(Path(path).name for path in paths)


def scanned(root: Path) -> list[str]:
    rows = scan_folders(root)
    return names(rows.loc[rows["label"] == "a", "path"])


def predicted(root: Path) -> list[str]:
    # A GIF is picked up as well, so that the user reads why it is refused.
    return [name for name in names(list(expand_folders([str(root / "a")]))) if name != "x.gif"]


def unpacked(root: Path) -> list[str]:
    archive = root / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in (*NAMES, *OTHERS):  # in folders, because names that differ only in case are refused
            file.writestr(f"{'upper' if name.isupper() or name[1:].isupper() else 'lower'}/{name}", name)
    unpack(archive, root / "unpacked")
    return names([path for path in (root / "unpacked").rglob("*") if path.is_file()])


def laid_out(root: Path) -> list[str]:
    for split in ("Training", "Testing"):
        for tumor in TUMORS:
            write(root / "raw" / split / tumor)
    brain_tumor_mri(root / "raw", root / "ready")
    return names(list((root / "ready" / "Testing" / "pituitary").iterdir()))


def benchmarked(root: Path) -> list[str]:
    return names([path for path, _ in labeled_images(root / "a")])


def sent(root: Path) -> list[str]:
    return sorted(data.decode() for data in load_images(str(root / "a")))


@pytest.mark.parametrize("door", [scanned, predicted, unpacked, laid_out, benchmarked, sent])
def test_every_door_takes_the_same_names(tmp_path: Path, door: Callable[[Path], list[str]]) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert door(tmp_path) == NAMES


def test_a_table_of_images_gets_names_that_are_taken() -> None:
    assert set(PARQUET_SUFFIXES.values()) <= IMAGE_SUFFIXES
    assert not is_image_name("x.gif")
