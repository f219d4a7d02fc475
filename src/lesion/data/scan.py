"""Find the labeled images of a dataset: class folders, split folders of class folders, or a CSV next to a folder."""

import logging
import os
import re
import unicodedata
from pathlib import Path

import pandas as pd

from lesion.core.errors import DataError
from lesion.core.text import join_names, natural_order
from lesion.data.folder_layout import class_folders, files_of, folders_above_classes, without_masks
from lesion.data.label_tables import read_csv, read_names
from lesion.imaging.file_types import IMAGE_SUFFIXES, is_image

logger = logging.getLogger(__name__)

COLUMNS = ("path", "label", "source_split", "patient")
_SUPPORTED = ", ".join(sorted(IMAGE_SUFFIXES))


def scan_folders(root: Path, group_pattern: str | None = None) -> pd.DataFrame:
    """List the images of a folder laid out as ``class/*`` or ``split/class/*``, at any depth below the class.

    ```
    root                     root
    ├── glioma               ├── Training
    │   ├── a.jpg            │   ├── glioma/a.jpg
    │   └── b.jpg            │   └── notumor/b.jpg
    └── notumor              └── Testing
        └── c.jpg                └── glioma/c.jpg
    ```

    :mod:`lesion.data.folder_layout` has the rules for other layouts, and for masks. Hidden files and folders and those
    of archivers and file servers are skipped; masks, files of other types, and images outside the class folders are
    skipped with a warning. Links to files, class folders and split folders are followed, links to folders within a
    class are not.

    Args:
        root: The dataset's folder.
        group_pattern: A regular expression searched in each path; its only group is the patient's name.

    Returns:
        A row per image, sorted by path: path (posix, relative to ``root``), label, source_split (train, val, test or
        ""), patient ("" if unknown).

    Raises:
        DataError: The folder is missing, mixes both layouts or seems to have another one, has a class without images,
            fewer than two classes or two with nearly the same name, or a path is not UTF-8 or the pattern does not
            match it.
    """
    _check_exists(root)
    folders = class_folders(root)
    images, others, masks = [], list[Path](), list[Path]()
    for folder, split in folders:
        files = files_of(folder)
        pictures = list(filter(is_image, files))
        others += sorted(set(files) - set(pictures))
        pictures, masks_here = without_masks(pictures)
        images += [(file, folder.name, split) for file in pictures]
        masks += masks_here
    empty = sorted({folder.name for folder, _ in folders} - {label for _, label, _ in images})
    if empty:
        raise DataError(
            f"'{root}' has class folders without a single image: {join_names(empty)}. Add images of the types "
            f"{_SUPPORTED}, or remove the folders."
        )
    _warn("files of other types", others)
    _warn("masks", masks)
    outside = [file for folder in folders_above_classes(root) for file in files_of(folder, "*") if is_image(file)]
    _warn("images in no class folder", outside)
    rows = [(file.relative_to(root).as_posix(), label, split, "") for file, label, split in images]
    garbled = [path for path, *_ in rows if path.encode("utf-8", "replace").decode() != path]
    if garbled:
        raise DataError(
            f"'{root}' has {len(garbled)} file names that are not UTF-8 and cannot be written into a manifest, the "
            f"first: {garbled[0]!a}. Rename them."
        )
    return _finish(pd.DataFrame(rows, columns=list(COLUMNS), dtype=str), root, group_pattern)


def scan_csv(
    root: Path,
    csv: str,
    *,
    images: str = ".",
    path_column: str = "image_id",
    label_column: str = "label",
    label_names: str | None = None,
    group_column: str | None = None,
    group_pattern: str | None = None,
) -> pd.DataFrame:
    """List the images of a CSV next to a folder of files, as in Kaggle's cassava competition.

    Args:
        root: The dataset's folder.
        csv: The table, relative to ``root``.
        images: The folder that ``path_column`` is relative to, itself relative to ``root``.
        path_column: The column of file names.
        label_column: The column of labels.
        label_names: A JSON file, relative to ``root``, that maps labels to names.
        group_column: The column that names the patient, plant or other unit that must not be split.
        group_pattern: A regular expression searched in each path; its only group is the patient's name.

    Returns:
        As ``scan_folders``.

    Raises:
        DataError: A file is missing or a column is missing, doubled or named twice, a row has no path or label, a label
            has no name or nearly that of another, a path leads out of the folder, or two rows of one image disagree.
    """
    _check_exists(root)
    if group_column and group_pattern:
        raise DataError(
            f"Both the column '{group_column}' and the pattern '{group_pattern}' name the patients: give only one."
        )
    table = read_csv(root / csv, [column for column in (path_column, label_column, group_column) if column])
    for column in (path_column, label_column):
        empty = table[table[column] == ""]
        if len(empty):
            raise DataError(f"'{csv}' has a row without '{column}': {', '.join(empty.iloc[0])}. Fill it in.")
    paths = [(Path(images) / name).as_posix() for name in table[path_column]]
    frame = pd.DataFrame({"path": paths, "label": table[label_column], "source_split": ""}, dtype=str)
    frame["patient"] = table[group_column] if group_column else ""
    if label_names is not None:
        frame["label"] = _named_labels(frame["label"], root / label_names, csv)
    frame = frame.drop_duplicates()
    _check_paths(frame["path"], root, csv, f"The column '{path_column}' must hold file names relative to '{images}'")
    return _finish(frame, root, group_pattern)


def _named_labels(labels: "pd.Series[str]", path: Path, csv: str) -> "pd.Series[str]":
    names = read_names(path)
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise DataError(f"'{csv}' has labels without a name in '{path.name}': {join_names(unknown)}.")
    return labels.map(names)


def _check_paths(paths: "pd.Series[str]", root: Path, csv: str, rule: str) -> None:
    """Refuse paths that lead out of the dataset's folder, come twice or do not exist."""
    outside = [path[:200] for path in paths if Path(path).is_absolute() or ".." in Path(path).parts]
    if outside:
        raise DataError(f"'{csv}' names files outside its folder: {join_names(outside, 3)}. {rule}.")
    ambiguous = paths[paths.duplicated()].unique()
    if len(ambiguous):
        raise DataError(f"'{csv}' gives one image two labels or groups: {join_names(ambiguous, 3)}.")
    missing = [path for path in paths if not os.path.isfile(root / path)]  # noqa: PTH113 (Path's raises)
    if missing:
        raise DataError(
            f"'{csv}' names {len(missing)} files that are not there, the first: {missing[0][:200]}. {rule}, with their "
            "suffix."
        )


def _check_exists(root: Path) -> None:
    if not root.is_dir():
        raise DataError(
            f"The dataset's folder '{root}' does not exist. Give an existing one as data.root, or download a reference "
            "dataset with lesion download."
        )


def _warn(what: str, files: list[Path]) -> None:
    if files:
        logger.warning("left out: %d %s, such as %s", len(files), what, min(files))


def _finish(frame: pd.DataFrame, root: Path, group_pattern: str | None) -> pd.DataFrame:
    """Normalize and check the labels, fill in the patients and sort by path."""
    # macOS writes an accent as a character of its own (NFD): the same name in another folder must be the same class.
    frame["label"] = frame["label"].map(lambda label: unicodedata.normalize("NFC", label))
    classes = sorted(frame["label"].unique(), key=natural_order)
    _check_names(classes, root)
    if len(classes) < 2:
        raise DataError(
            f"'{root}' has images of {len(classes)} classes ({', '.join(classes)}); at least 2 are needed, laid out as "
            f"class/* or split/class/*. Supported file types: {_SUPPORTED}."
        )
    if group_pattern:
        frame["patient"] = _match_groups(frame["path"], group_pattern)
    return frame.sort_values("path", ignore_index=True)


def _check_names(classes: list[str], root: Path) -> None:
    """Refuse two labels that read the same: a difference in typing must not split a class in two."""
    seen: dict[str, str] = {}
    for name in classes:
        other = seen.setdefault(name.strip().casefold(), name)
        if other != name:
            raise DataError(
                f"'{root}' has the labels {other!r} and {name!r}, which differ only in case or spaces. If they are one "
                "class, give them one name; if not, give them names that differ."
            )


def _match_groups(paths: "pd.Series[str]", pattern: str) -> "pd.Series[str]":
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DataError(f"data.group_pattern '{pattern}' is not a regular expression: {error}.") from error
    if expression.groups != 1:
        raise DataError(f"data.group_pattern '{pattern}' needs exactly one group in parentheses, the patient's name.")
    patients = paths.str.extract(expression, expand=False).fillna("")
    unmatched = paths[patients == ""]
    if len(unmatched):
        raise DataError(
            f"data.group_pattern '{pattern}' does not match {len(unmatched)} of {len(paths)} paths, the first: "
            f"{unmatched.iloc[0]}."
        )
    return patients
