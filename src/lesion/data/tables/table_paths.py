r"""Which file each row of a table means: the rules, in one place.

A cell is looked up in the folder of images. The first rule that finds a file decides:

===================================== ======================================================================
a cell such as                        means
===================================== ======================================================================
``a/1.jpg``, ``./a/1.jpg``, ``a\1.jpg`` that file of the folder
``a/1``                               the only image of that name, whatever its suffix is
``/set/on/c/a/1.jpg``,             the file ``a/1.jpg``, or ``1.jpg``: the path of a file in the folder is the
``D:\set\a\1.jpg``, ``set/a/1.jpg``   end of the cell, as in tables that were made elsewhere
``1.jpg``                             the only file of that name below the folder: the cell is the end of its path
===================================== ======================================================================

Where nothing fits exactly, letters may differ in case, and accents in how they are encoded. A cell that fits several
files equally well, and two cells that mean one file, are refused. No file outside of the folder is ever taken.
"""

import logging
import os
import posixpath
import re
import unicodedata
from collections import defaultdict
from functools import cached_property
from pathlib import Path, PurePosixPath

import pandas as pd

from lesion.core.errors import DataError
from lesion.core.text import format_count, join_names
from lesion.data.folder_layout import files_of
from lesion.data.masks import Masks, separate_masks
from lesion.imaging.file_types import is_image, is_image_name

logger = logging.getLogger(__name__)

Parts = tuple[str, ...]
_SAMPLE = 50  # cells that tell whether a column names files
_SHOWN = 200  # characters of a cell in a message
_DRIVE = re.compile(r"[A-Za-z]:(?=/|$)|[A-Za-z][A-Za-z0-9+.-]+:/(?=/)")  # C: and https:/


class ImageFolder:
    """The files of the folder that a table's cells are relative to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def images(self) -> list[str]:
        """The paths of all images but masks, relative to the folder, sorted."""
        return sorted(image.relative_to(self._folder).as_posix() for image in self._separated[0])

    @property
    def masks(self) -> Masks:
        """The masks among the images, with the images that they belong to."""
        return self._separated[1]

    @cached_property
    def _separated(self) -> tuple[list[Path], Masks]:
        return separate_masks(list(filter(is_image, files_of(self._folder))))

    def find(self, cell: str) -> list[str]:
        """Return the files that a cell may mean, relative to the folder: none, one, or several that fit equally."""
        parts = cell_parts(cell)
        exact = "/".join(parts)
        # Not Path's is_file, which raises for names that are too long.
        if parts and not is_outside(cell) and os.path.isfile(self._folder / exact):  # noqa: PTH113
            return [exact]
        wanted = tuple(map(_plain, parts))
        candidates = self._by_name.get(wanted[-1], []) if wanted else []
        fits = {path: _common_end(names, wanted) for path, names in candidates}
        longest = max(fits.values(), default=0)
        return [path for path, length in fits.items() if length and length == longest]

    def has_most(self, cells: "pd.Series[str]") -> bool:
        """Return whether most of the first cells of a column are names of files."""
        first = cells[cells != ""].iloc[:_SAMPLE]
        return 2 * sum(len(self.find(cell)) == 1 for cell in first) > len(first)

    @cached_property
    def _by_name(self) -> dict[str, list[tuple[str, Parts]]]:
        """Each image with the parts of its path, by its name with its suffix and by its name without it."""
        found: dict[str, list[tuple[str, Parts]]] = defaultdict(list)
        for path in self.images:
            *folders, name = map(_plain, path.split("/"))
            found[name].append((path, (*folders, name)))
            if is_image_name(path):
                stem = PurePosixPath(name).stem
                found[stem].append((path, (*folders, stem)))
        return found


def table_files(frame: pd.DataFrame, folder: ImageFolder, csv: str, images: str, missing: str) -> pd.DataFrame:
    """Replace the cells of a table by the files that they mean, one row for each image.

    Args:
        frame: Columns cell, label and patient; the index holds the numbers of the rows.
        folder: The folder that the cells are relative to.
        csv: The table's name, for messages.
        images: The folder's name, for messages.
        missing: ``refuse`` or ``skip`` rows without a file.

    Returns:
        Columns path (relative to the folder), label and patient.

    Raises:
        DataError: A cell leads out of the folder, has no file or several, or rows of one file differ.
    """
    found = {cell: folder.find(cell) for cell in frame["cell"].unique()}
    several = [cell for cell, paths in found.items() if len(paths) > 1]
    if several:
        raise DataError(
            f"'{csv}' names {several[0][:_SHOWN]}, which may be any of {len(found[several[0]])} files in '{images}': "
            f"{join_names(found[several[0]], 3)}. Write their paths relative to '{images}' into the table."
        )
    lost = frame["cell"].map(lambda cell: not found[cell])
    if lost.any():
        _report_missing(frame[lost], len(frame), csv, images, missing)
    frame = frame[~lost.astype(bool)]
    frame = frame.assign(path=[found[cell][0] for cell in frame["cell"]])
    _check_agreement(frame, csv)
    unnamed = sorted(set(folder.images) - set(frame["path"]))
    if unnamed:
        count = format_count(len(unnamed), "image")
        logger.warning("left out: %s of '%s' without a row in '%s', such as %s", count, images, csv, unnamed[0])
    return frame.drop_duplicates("path")[["path", "label", "patient"]].reset_index(drop=True)


def _report_missing(rows: pd.DataFrame, total: int, csv: str, images: str, missing: str) -> None:
    """Log which files are missing, or raise a DataError that names them."""
    cells = [f"{cell[:_SHOWN]} (row {row})" for row, cell in rows["cell"].drop_duplicates().items()]
    names = f"'{csv}' names {len(cells)} of {total} files that are not in '{images}': {join_names(cells, 3)}"
    if missing == "skip":
        logger.warning("left out: %s", names)
        return
    outside = [cell for cell in rows["cell"] if is_outside(cell)]
    why = " Files outside of this folder are never taken." if outside else ""
    raise DataError(
        f"{names}.{why} Give the folder that the files are in: data.csv={{csv: {csv}, images: FOLDER}}. To leave out "
        "the rows without a file, add missing: skip."
    )


def _check_agreement(frame: pd.DataFrame, csv: str) -> None:
    """Refuse rows of one file with different labels or groups, and different cells for one file."""
    for column, what in (("label", "several labels"), ("patient", "several groups"), ("cell", "several names")):
        differing = frame[frame.groupby("path")[column].transform("nunique") > 1]
        for path, rows in differing.groupby("path", sort=False):
            values = rows[column].drop_duplicates()
            if column == "cell" and all(_same_path(values.iloc[0], value) for value in values):
                continue
            first = join_names((f"{value[:_SHOWN]} (row {row})" for row, value in values.items()), 4)
            count = format_count(differing["path"].nunique(), "image")
            raise DataError(
                f"'{csv}' gives {count} {what}, the first: {path}: {first}. Correct these rows, or remove them."
            )


def cell_parts(cell: str) -> Parts:
    """Return the folders and the name of a path as any system writes it, without drive, ``.`` and ``..``."""
    path = posixpath.normpath(_DRIVE.sub("", cell.replace("\\", "/").strip(), count=1))
    return tuple(part for part in path.split("/") if part not in ("", ".", ".."))


def is_outside(cell: str) -> bool:
    """Return whether a path is absolute or leads out of the folder that it is relative to."""
    path = cell.replace("\\", "/")
    return bool(_DRIVE.match(path)) or path.startswith("/") or posixpath.normpath(path).startswith("..")


def _same_path(first: str, second: str) -> bool:
    """Return whether two cells name one file in one way, apart from case, accents and a suffix that one leaves out."""

    def plain(cell: str) -> Parts:
        *folders, name = map(_plain, cell_parts(cell))
        return *folders, PurePosixPath(name).stem if is_image_name(name) else name

    return plain(first) == plain(second)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _common_end(path: Parts, wanted: Parts) -> int:
    """Return the length of the shorter of two paths if it is the end of the other, else 0."""
    length = min(len(path), len(wanted))
    return length if path[-length:] == wanted[-length:] else 0
