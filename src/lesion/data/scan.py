"""Find the labelled images of a dataset: class folders, split folders of class folders, or a CSV beside a folder."""

import logging
import os
import re
import unicodedata
from pathlib import Path

import pandas as pd

from lesion.core.errors import DataError
from lesion.core.paths import is_hidden
from lesion.core.validation import some
from lesion.data.label_tables import read_csv, read_names

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".dcm"})
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
COLUMNS = ("path", "label", "source_split", "patient")
_LIKE_A_SPLIT = re.compile(r"train|test|val|eval|dev|hold", re.IGNORECASE)


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

    Splits are told by ``SPLIT_NAMES``, also as in ``train_set`` and ``Test set``. Hidden files and folders and an
    archiver's ``__MACOSX`` are skipped; files of other types, and images outside the class folders, with a warning.
    Links to files, class folders and split folders are followed, links to folders within a class are not.

    Args:
        root: The dataset's folder.
        group_pattern: A regular expression searched in each path; its one group names the patient.

    Returns:
        A row an image, sorted by path: path (posix, relative to ``root``), label, source_split (train, val, test or
        ""), patient ("" if unknown).

    Raises:
        DataError: The folder is missing, mixes both layouts or seems to have another one, has a class without images,
            fewer than two classes or two of nearly one name, or a path is not UTF-8 or not matched by the pattern.
    """
    root = _existing(root)
    class_folders = _class_folders(root)
    files = [(file, folder.name, split) for folder, split in class_folders for file in _files(folder)]
    found = [row for row in files if _is_image(row[0])]
    empty = sorted({folder.name for folder, _ in class_folders} - {label for _, label, _ in found})
    if empty:
        raise DataError(
            f"'{root}' has class folders without a single image: {some(empty)}. Add images of the types "
            f"{', '.join(sorted(SUFFIXES))}, or take the folders away."
        )
    above = [root, *(folder for folder in _folders(root) if _split_of(folder))]
    _warn("files of other types", [file for file, *_ in files if not _is_image(file)])
    _warn("images in no class folder", [file for parent in above for file in _files(parent, "*") if _is_image(file)])
    rows = [(file.relative_to(root).as_posix(), label, split, "") for file, label, split in found]
    garbled = [path for path, *_ in rows if path.encode("utf-8", "replace").decode() != path]
    if garbled:
        raise DataError(
            f"'{root}' has {len(garbled)} file names that are not UTF-8 and could not be written into a manifest, the "
            f"first: {garbled[0]!a}. Rename them."
        )
    return _checked(pd.DataFrame(rows, columns=list(COLUMNS), dtype=str), root, group_pattern)


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
    """List the images of a CSV beside a folder of files, such as Kaggle's cassava competition has it.

    Args:
        root: The dataset's folder.
        csv: The table, relative to ``root``.
        images: The folder that ``path_column`` is relative to, itself relative to ``root``.
        path_column: The column of file names.
        label_column: The column of labels.
        label_names: A JSON file, relative to ``root``, that maps labels to names.
        group_column: The column that names the patient, plant or whatever must not be split.
        group_pattern: A regular expression searched in each path; its first group names the patient.

    Returns:
        As ``scan_folders``.

    Raises:
        DataError: A file is missing or a column is missing, doubled or named twice, a row has no path or label, a label
            has no name or nearly that of another, a path leads out of the folder, or two rows of one image disagree.
    """
    root = _existing(root)
    if group_column and group_pattern:
        raise DataError(
            f"Patients are named twice, by the column '{group_column}' and by the pattern '{group_pattern}': give one."
        )
    table = read_csv(root / csv, [column for column in (path_column, label_column, group_column) if column])
    for column in (path_column, label_column):
        if (table[column] == "").any():
            row = int((table[column] == "").to_numpy().argmax())
            raise DataError(f"'{csv}' has a row without '{column}': {', '.join(table.iloc[row])}. Fill it in.")
    labels = table[label_column]
    if label_names is not None:
        names = read_names(root / label_names)
        unknown = sorted(set(labels) - set(names))
        if unknown:
            raise DataError(f"'{csv}' has labels without a name in '{label_names}': {some(unknown)}.")
        labels = labels.map(names)
    paths = [(Path(images) / name).as_posix() for name in table[path_column]]
    outside = [path[:200] for path in paths if Path(path).is_absolute() or ".." in Path(path).parts]
    if outside:
        raise DataError(
            f"'{csv}' names files outside its folder: {', '.join(outside[:3])}. Give paths relative to the dataset's "
            "folder and the setting 'images'."
        )
    frame = pd.DataFrame({"path": paths, "label": labels, "source_split": ""}, dtype=str)
    frame["patient"] = table[group_column] if group_column else ""
    frame = frame.drop_duplicates()
    twice = frame.loc[frame["path"].duplicated(), "path"].unique()
    if len(twice):
        raise DataError(f"'{csv}' gives one image two labels or groups: {', '.join(twice[:3])}.")
    missing = [path for path in frame["path"] if not os.path.isfile(root / path)]  # noqa: PTH113 (Path's raises)
    if missing:
        raise DataError(
            f"'{csv}' names {len(missing)} files that are not there, the first: {missing[0][:200]}. The column "
            f"'{path_column}' must hold file names with their suffix, relative to '{images}'."
        )
    return _checked(frame, root, group_pattern)


def _existing(root: Path) -> Path:
    root = Path(root)
    if not root.is_dir():
        raise DataError(
            f"The dataset's folder '{root}' does not exist. Give an existing one as data.root, or fetch a reference "
            "dataset with scripts/download.py."
        )
    return root


def _class_folders(root: Path) -> list[tuple[Path, str]]:
    """The folder of each class, once in each split, and the name of that split or ""."""
    top = {folder: _split_of(folder) for folder in _folders(root)}
    if not any(top.values()):
        _check_layout(root, list(top))
        return list(top.items())
    other = [folder.name for folder, split in top.items() if not split and any(map(_is_image, _files(folder)))]
    if other:
        raise DataError(
            f"'{root}' mixes split folders with others ({some(other)}). Lay it out as class/* or "
            f"split/class/*, where split is one of {', '.join(sorted(SPLIT_NAMES))}."
        )
    return [(folder, split) for parent, split in top.items() if split for folder in _folders(parent)]


def _split_of(folder: Path) -> str:
    """The split that a folder's name tells, or ""; ``Train set``, ``train-set`` and ``trainset`` tell the same."""
    word = re.sub(r"[\s_-]+", "", folder.name.lower())
    return SPLIT_NAMES.get(word, "") or SPLIT_NAMES.get(word.removesuffix("set"), "")


def _check_layout(root: Path, top: list[Path]) -> None:
    """Refuse folders that are no classes by all appearances: one around the dataset, or splits under other names."""
    below = {folder: {inner.name for inner in _folders(folder)} for folder in top}
    if len(set(map(frozenset, below.values()))) != 1 or len(below[top[0]]) < 2:
        return
    if any(_is_image(file) for folder in top for file in _files(folder, "*")):
        return
    names, inner = some(folder.name for folder in top), some(sorted(below[top[0]]))
    if len(top) == 1:
        raise DataError(
            f"'{root}' has one folder alone, '{names}', which has several ({inner}): did you mean data.root={top[0]}?"
        )
    if any(_LIKE_A_SPLIT.search(folder.name) for folder in top):
        raise DataError(
            f"Each folder of '{root}' ({names}) has the same folders ({inner}), so the outer ones seem to be splits. "
            f"Name them train, val and test, or give one of them as data.root={top[0]}. If they are the classes, put "
            "their images into them directly."
        )
    logger.warning("each class folder (%s) has the same folders (%s): taken as parts of the class", names, inner)


def _folders(parent: Path) -> list[Path]:
    return sorted(entry for entry in parent.iterdir() if entry.is_dir() and not is_hidden(Path(entry.name)))


def _files(folder: Path, pattern: str = "**/*") -> list[Path]:
    """Files below a folder, without hidden ones and what lies in hidden folders."""
    return [file for file in folder.glob(pattern) if not is_hidden(file.relative_to(folder)) and not file.is_dir()]


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES


def _warn(what: str, files: list[Path]) -> None:
    if files:
        logger.warning("left out: %d %s, such as %s", len(files), what, min(files))


def _checked(frame: pd.DataFrame, root: Path, group_pattern: str | None) -> pd.DataFrame:
    classes = sorted(frame["label"].unique())
    _check_names(classes, root)
    if len(classes) < 2:
        raise DataError(
            f"'{root}' has images of {len(classes)} classes ({', '.join(classes)}); at least 2 are needed, laid out as "
            f"class/* or split/class/*. File types taken: {', '.join(sorted(SUFFIXES))}."
        )
    if group_pattern:
        frame["patient"] = _match_groups(frame["path"], group_pattern)
    return frame.sort_values("path", ignore_index=True)


def _check_names(classes: list[str], root: Path) -> None:
    """Refuse labels that are one to people: a class must not be split in two by a typing habit."""
    seen: dict[str, str] = {}
    for name in classes:
        other = seen.setdefault(unicodedata.normalize("NFC", name).strip().casefold(), name)
        if other != name:
            raise DataError(
                f"'{root}' has the labels {other!r} and {name!r}, which differ only in case, spaces or the encoding of "
                "accents. If they are one class, give them one name; if not, give them names that differ."
            )


def _match_groups(paths: "pd.Series[str]", pattern: str) -> list[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DataError(f"data.group_pattern '{pattern}' is not a regular expression: {error}.") from error
    if expression.groups != 1:
        raise DataError(f"data.group_pattern '{pattern}' needs exactly one group in parentheses, the patient's name.")
    matches = [expression.search(path) for path in paths]
    unmatched = [path for path, match in zip(paths, matches, strict=True) if not (match and match.group(1))]
    if unmatched:
        raise DataError(
            f"data.group_pattern '{pattern}' does not match {len(unmatched)} of {len(matches)} "
            f"paths, the first: {unmatched[0]}."
        )
    return [match.group(1) for match in matches if match is not None]
