"""Find the labelled images of a dataset: class folders, split folders of class folders, or a CSV beside a folder."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lesion.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".dcm"})
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
COLUMNS = ("path", "label", "source_split", "patient")


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

    Args:
        root: The dataset's folder.
        group_pattern: A regular expression searched in each path; its first group names the patient.

    Returns:
        A row an image, sorted by path: path (posix, relative to ``root``), label, source_split, patient.

    Raises:
        DataError: The folder is missing, has no images, mixes both layouts or has fewer than two classes.
    """
    root = _existing(root)
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    by_split = {folder: SPLIT_NAMES.get(folder.name.lower()) for folder in folders}
    if any(by_split.values()) and not all(by_split.values()):
        other = [folder.name for folder, split in by_split.items() if split is None]
        raise DataError(
            f"'{root}' mixes split folders with others ({', '.join(other[:5])}). Lay it out as class/* or "
            f"split/class/*, where split is one of {', '.join(sorted(SPLIT_NAMES))}."
        )
    rows = []
    for folder, split in by_split.items():
        classes = sorted(entry for entry in folder.iterdir() if entry.is_dir()) if split else [folder]
        for class_folder in classes:
            for file in sorted(class_folder.rglob("*")):
                relative = file.relative_to(root)
                if file.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in relative.parts):
                    rows.append((relative.as_posix(), class_folder.name, split or "", ""))
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
        DataError: A file or column is missing, a label has no name, a path leads out of the folder, or two rows of
            one image disagree.
    """
    root = _existing(root)
    table = _read_csv(root / csv)
    for column in filter(None, (path_column, label_column, group_column)):
        if column not in table:
            raise DataError(f"'{csv}' has no column '{column}'; it has {', '.join(table.columns)}.")
    labels = table[label_column].astype(str)
    if label_names is not None:
        names = _read_names(root / label_names)
        unknown = sorted(set(labels) - set(names))
        if unknown:
            raise DataError(f"'{csv}' has labels without a name in '{label_names}': {', '.join(unknown[:5])}.")
        labels = labels.map(names)
    paths = [(Path(images) / str(name)).as_posix() for name in table[path_column]]
    outside = [path for path in paths if Path(path).is_absolute() or ".." in Path(path).parts]
    if outside:
        raise DataError(f"'{csv}' names files outside its folder: {', '.join(outside[:3])}.")
    frame = pd.DataFrame({"path": paths, "label": labels, "source_split": ""}, dtype=str)
    frame["patient"] = table[group_column].astype(str) if group_column else ""
    frame = frame.drop_duplicates().sort_values("path", ignore_index=True)
    twice = frame.loc[frame["path"].duplicated(), "path"]
    if len(twice):
        raise DataError(f"'{csv}' gives one image two labels or groups: {', '.join(twice[:3])}.")
    missing = [path for path in frame["path"] if not (root / path).is_file()]
    if missing:
        raise DataError(f"'{csv}' names {len(missing)} files that are not there, the first: {missing[0]}.")
    return _checked(frame, root, group_pattern)


def _existing(root: Path) -> Path:
    root = Path(root)
    if not root.is_dir():
        raise DataError(
            f"The dataset's folder '{root}' does not exist. Give an existing one as data.root, or fetch a reference "
            "dataset with scripts/download.py."
        )
    return root


def _checked(frame: pd.DataFrame, root: Path, group_pattern: str | None) -> pd.DataFrame:
    counts = Counter(frame["label"])
    if len(counts) < 2:
        raise DataError(
            f"'{root}' has images of {len(counts)} classes; at least 2 are needed, laid out as class/* or "
            f"split/class/*. File types taken: {', '.join(sorted(SUFFIXES))}."
        )
    if group_pattern:
        frame["patient"] = _match_groups(frame["path"], group_pattern)
    return frame


def _match_groups(paths: "pd.Series[str]", pattern: str) -> list[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DataError(f"data.group_pattern '{pattern}' is not a regular expression: {error}.") from error
    if expression.groups != 1:
        raise DataError(f"data.group_pattern '{pattern}' needs exactly one group in parentheses, the patient's name.")
    matches = [expression.search(path) for path in paths]
    unmatched = [path for path, match in zip(paths, matches, strict=True) if match is None]
    if unmatched:
        raise DataError(
            f"data.group_pattern '{pattern}' does not match {len(unmatched)} of {len(matches)} "
            f"paths, the first: {unmatched[0]}."
        )
    return [match.group(1) for match in matches if match is not None]


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"The table '{path.name}' cannot be read: {error}.") from error


def _read_names(path: Path) -> Mapping[str, str]:
    try:
        names = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"The label names '{path.name}' cannot be read: {error}.") from error
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise DataError(f"'{path.name}' must be a JSON object that maps each label to its name.")
    return names
