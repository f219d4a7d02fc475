"""Find the labeled images of a dataset: class folders, split folders of class folders, or a CSV next to a folder."""

import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import pandas as pd

from lesion.core.errors import DataError
from lesion.core.text import join_names, natural_order
from lesion.data.folder_layout import files_of, find_layout, folders_above_classes
from lesion.data.masks import Masks, pair_masks, separate_masks
from lesion.data.tables.label_tables import read_csv, read_names
from lesion.data.tables.table_columns import choose_columns, labels_of
from lesion.data.tables.table_paths import ImageFolder, table_files
from lesion.imaging.file_types import IMAGE_SUFFIXES, is_image

logger = logging.getLogger(__name__)

COLUMNS = ("path", "label", "source_split", "patient")
MASKS = "masks"  # the key of a scan's ``attrs`` for its masks: their paths by the path of their image
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
    skipped with a warning. Links to files are followed; for links to folders see there.

    Args:
        root: The dataset's folder.
        group_pattern: A regular expression searched in each path; its only group is the patient's name.

    Returns:
        A row per image, sorted by path: path (posix, relative to ``root``), label, source_split (train, val, test or
        ""), patient ("" if unknown). ``attrs["masks"]`` holds the paths of the masks by the path of their image.

    Raises:
        DataError: The folder is missing, mixes both layouts or seems to have another one, has a class without images,
            fewer than two classes or two with nearly the same name, or a path is not UTF-8 or the pattern does not
            match it.
    """
    _check_exists(root)
    layout = find_layout(root)
    images, others, masks = list[tuple[Path, str, str]](), list[Path](), dict[Path, Path | None]()
    for folder, split in layout.classes:
        files = files_of(folder, root)
        pictures = list(filter(is_image, files))
        others += sorted(set(files) - set(pictures))
        pictures, masks_here = separate_masks(pictures)
        images += [(file, folder.name, split) for file in pictures]
        masks |= masks_here
    apart = [file for folder in layout.masks for file in files_of(folder, root) if is_image(file)]
    masks |= pair_masks(apart, [(file, label) for file, label, _ in images])
    empty = sorted({folder.name for folder, _ in layout.classes} - {label for _, label, _ in images})
    if empty:
        raise DataError(
            f"'{root}' has class folders without a single image: {join_names(empty)}. Add images of the types "
            f"{_SUPPORTED}, or remove the folders."
        )
    _warn("files of other types", others)
    _warn("masks", list(masks))
    outside = [file for folder in folders_above_classes(root) for file in files_of(folder, deep=False)]
    outside = list(filter(is_image, outside))
    _warn("images in no class folder", outside)
    rows = [(file.relative_to(root).as_posix(), label, split, "") for file, label, split in images]
    garbled = [path for path, *_ in rows if path.encode("utf-8", "replace").decode() != path]
    if garbled:
        raise DataError(
            f"'{root}' has {len(garbled)} file names that are not UTF-8 and cannot be written into a manifest, the "
            f"first: {garbled[0]!a}. Rename them."
        )
    return _finish(pd.DataFrame(rows, columns=list(COLUMNS), dtype=str), root, group_pattern, masks)


def scan_csv(
    root: Path,
    csv: str,
    *,
    images: str = ".",
    path_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
    label_names: str | None = None,
    group_column: str | None = None,
    group_pattern: str | None = None,
    missing: Literal["refuse", "skip"] = "refuse",
) -> pd.DataFrame:
    """List the images of a table next to a folder of files, as in Kaggle's cassava competition.

    The modules of :mod:`lesion.data.tables` have the rules: ``label_tables`` for separators and encodings,
    ``table_columns`` for columns that are not named here, ``table_paths`` for the names of files. Which columns are
    taken is logged; so are images without a row.

    Args:
        root: The dataset's folder.
        csv: The table, relative to ``root``.
        images: The folder that the files are in, relative to ``root``.
        path_column: The column of file names.
        label_column: The column of labels, or several columns that are the classes, each with a 1 for its images.
        label_names: A JSON file, relative to ``root``, that maps labels to names.
        group_column: The column that names the patient, plant or other unit that must not be split.
        group_pattern: A regular expression searched in each path; its only group is the patient's name.
        missing: What becomes of rows without a file: ``refuse`` the table, or ``skip`` them with a warning.

    Returns:
        As ``scan_folders``.

    Raises:
        DataError: A file is missing or a column is missing, doubled, named twice or not clear, a row has no path or
            label, a label has no name or nearly that of another, a path leads out of the folder or may mean several
            files, or rows of one image disagree.
    """
    _check_exists(root)
    if group_column and group_pattern:
        raise DataError(
            f"Both the column '{group_column}' and the pattern '{group_pattern}' name the patients: give only one."
        )
    folder = ImageFolder(root / images)
    labels = [label_column] if isinstance(label_column, str) else list(label_column or ())
    table = read_csv(root / csv, [column for column in (path_column, *labels, group_column) if column])
    columns = choose_columns(
        table, csv, path=path_column, label=label_column, group=group_column, are_files=folder.has_most
    )
    logger.info(columns.sentence(csv, table.columns.tolist()))
    frame = pd.DataFrame({"cell": table[columns.path], "label": labels_of(table, columns, csv)}, table.index, dtype=str)
    for column, name in (("cell", columns.path), ("label", columns.labels[0])):
        empty = frame.index[frame[column] == ""]
        if len(empty):
            row = ", ".join(table.loc[empty[0]])
            raise DataError(f"'{csv}' has a row without '{name}': {row} (row {empty[0]}). Fill it in.")
    frame["patient"] = table[columns.group] if columns.group else ""
    if label_names is not None:
        frame["label"] = _named_labels(frame["label"], root / label_names, csv)
    frame = table_files(frame, folder, csv, images, missing)
    frame["path"] = [(PurePosixPath(images) / path).as_posix() for path in frame["path"]]
    _warn("masks", list(folder.masks))
    return _finish(frame.assign(source_split="")[list(COLUMNS)], root, group_pattern, folder.masks)


def _named_labels(labels: "pd.Series[str]", path: Path, csv: str) -> "pd.Series[str]":
    names = read_names(path)
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise DataError(f"'{csv}' has labels without a name in '{path.name}': {join_names(unknown)}.")
    return labels.map(names)


def _check_exists(root: Path) -> None:
    if not root.is_dir():
        raise DataError(
            f"The dataset's folder '{root}' does not exist. Give an existing one as data.root, or download a reference "
            "dataset with lesion download."
        )


def _warn(what: str, files: list[Path]) -> None:
    if files:
        logger.warning("left out: %d %s, such as %s", len(files), what, min(files))


def _finish(frame: pd.DataFrame, root: Path, group_pattern: str | None, masks: Masks) -> pd.DataFrame:
    """Normalize and check the labels, fill in the patients, sort by path and note the masks."""
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
    frame = frame.sort_values("path", ignore_index=True)
    by_image = defaultdict[str, list[str]](list)
    for mask, image in sorted(masks.items()):
        if image is not None:
            by_image[image.relative_to(root).as_posix()].append(mask.relative_to(root).as_posix())
    frame.attrs[MASKS] = dict(by_image)
    return frame


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
