"""Which columns of a table hold the files, the labels and the groups: the rules, in one place.

A column that the user names is taken. For the others the first rule that applies decides:

===== ============================================ =======================================================
for   if                                           then
===== ============================================ =======================================================
files columns' cells are names of existing files   the first of them in the order of ``PATH_NAMES``
files a column has a name of ``PATH_NAMES``        the first of them; its files are reported as missing
label a column is called ``label``                 that one
label one column has a name of ``LABEL_NAMES``     that one
label several columns hold only 0 and 1            they are the classes: each row has its 1 in one of them
label one column is left                           that one
label several columns are left                     the table is refused, and the user is asked which one is meant
===== ============================================ =======================================================

Nobody guesses the groups: only the user knows what must not be split.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from lesion.core.errors import DataError
from lesion.core.text import join_names

# In the order in which they are tried; compared in lower case, with _ for everything but letters and digits.
PATH_NAMES = (
    "image_id", "image_path", "filepath", "file_path", "filepaths", "path", "filename", "file_name", "file",
    "image_name", "image_index", "image", "images", "img", "img_path", "name", "id", "id_code", "isic_id",
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "class", "class_name", "classes", "category", "target", "diagnosis", "dx", "finding_labels",
    "finding", "disease", "grade", "level", "label_name", "class_id", "y",
)  # fmt: skip
_ZEROS, _ONES = frozenset({"0", "0.0", "false", "False"}), frozenset({"1", "1.0", "true", "True"})


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table that are used."""

    path: str
    labels: tuple[str, ...]  # one that holds the labels, or several that are the classes, with a 1 in one of them
    group: str | None

    def sentence(self, csv: str, header: Sequence[str]) -> str:
        """Say which columns are taken as what, for the log."""
        if len(self.labels) > 1:
            label = f"{join_names(self.labels, 12, quote=chr(39))} as the classes, with 1 for the class of a row"
        else:
            label = f"'{self.labels[0]}' as the label"
        group = f", '{self.group}' as the group" if self.group else ""
        unused = [name for name in header if name and name not in {self.path, *self.labels, self.group}]
        rest = f"; not used: {join_names(unused, 8)}" if unused else ""
        return f"took the columns of '{csv}': '{self.path}' as the file, {label}{group}{rest}"


def choose_columns(
    table: pd.DataFrame,
    csv: str,
    *,
    path: str | None,
    label: str | Sequence[str] | None,
    group: str | None,
    are_files: Callable[["pd.Series[str]"], bool],
) -> Columns:
    """Choose the columns of a table by the rules of this module.

    Args:
        table: The table as ``read_csv`` returned it.
        csv: Its name, for messages.
        path: The column of files, if the user named it.
        label: The column of labels, or the columns that are the classes, if the user named them.
        group: The column of groups, if the user named it.
        are_files: Returns whether most of some cells are names of files.

    Raises:
        DataError: A column is missing, doubled, named twice or not clear.
    """
    header = table.columns.tolist()
    labels = (label,) if isinstance(label, str) else tuple(label or ())
    named = [name for name in (path, *labels, group) if name]
    taken = [*named, *(["label"] if not labels and "label" in (path, group) else [])]
    if len(set(taken)) < len(taken):
        raise DataError(
            f"path_column, label_column and group_column name {', '.join(taken)}: one column of '{csv}' cannot have "
            "two meanings. Name different columns."
        )
    for name in named:
        _check_once(header, name, csv)
    path = path or _path_column(table, csv, {*labels, group}, are_files)
    return Columns(path, labels or _label_columns(table, csv, {path, group}), group)


def labels_of(table: pd.DataFrame, columns: Columns, csv: str) -> "pd.Series[str]":
    """Return the label of each row; of several columns, the name of the one that holds a 1.

    Raises:
        DataError: A cell of several columns is neither 0 nor 1, or a row does not have exactly one 1.
    """
    if len(columns.labels) == 1:
        return table[columns.labels[0]]
    cells = table[list(columns.labels)]
    strange = ~cells.isin(_ZEROS | _ONES)
    if strange.any(axis=None):
        column = next(name for name in columns.labels if strange[name].any())
        row, cell = next(iter(cells[column][strange[column]].items()))
        raise DataError(
            f"'{csv}' has {cell!r} in row {row} of '{column}'. Columns that are classes hold 1 for "
            "the class of a row and 0 for the others."
        )
    ones = cells.isin(_ONES)
    for wrong, what in ((ones.sum(axis=1) > 1, "several classes"), (~ones.any(axis=1), "no class")):
        if wrong.any():
            raise DataError(
                f"'{csv}' gives {what} to the images of {int(wrong.sum())} rows (row {join_names(table.index[wrong])}) "
                f"in its columns {join_names(columns.labels, 12)}. An image has one class: correct or remove these "
                "rows, or name the columns that are the classes in data.csv: {label_column: [NAME, NAME]}."
            )
    return pd.Series([columns.labels[place] for place in ones.to_numpy().argmax(axis=1)], cells.index, dtype=str)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")


def _check_once(header: Sequence[str], name: str, csv: str) -> None:
    if header.count(name) != 1:
        raise DataError(
            f"'{csv}' has {header.count(name) or 'no'} columns '{name}', but needs exactly one; its header: "
            f"{', '.join(header)}."
        )


def _path_column(
    table: pd.DataFrame, csv: str, others: set[str | None], are_files: Callable[["pd.Series[str]"], bool]
) -> str:
    header = table.columns.tolist()
    names = [name for name in header if name and name not in others and header.count(name) == 1]
    known = sorted(
        (name for name in names if _plain(name) in PATH_NAMES), key=lambda name: PATH_NAMES.index(_plain(name))
    )
    rest = [name for name in names if name not in known and _plain(name) not in LABEL_NAMES]
    found = next((name for name in (*known, *rest) if are_files(table[name])), known[0] if known else None)
    if found is None:
        raise DataError(
            f"'{csv}' has no column whose cells are files of the dataset; its header: {', '.join(header)}. Name it, "
            f"and the folder of the files: data.csv={{csv: {csv}, path_column: NAME, images: FOLDER}}."
        )
    return found


def _label_columns(table: pd.DataFrame, csv: str, others: set[str | None]) -> tuple[str, ...]:
    header = table.columns.tolist()
    if "label" in header and "label" not in others:
        _check_once(header, "label", csv)
        return ("label",)
    names = [name for name in header if name and name not in others and header.count(name) == 1]
    known = [name for name in names if _plain(name) in LABEL_NAMES]
    if len(known) == 1:
        return (known[0],)
    candidates = known or [name for name in names if _plain(name) not in PATH_NAMES]
    hot = [name for name in candidates if _is_hot(table[name])]
    if len(hot) > 1 and (len(hot) == len(candidates) or (table[hot].isin(_ONES).sum(axis=1) == 1).all()):
        return tuple(hot)
    if len(candidates) == 1:
        return (candidates[0],)
    if not candidates:
        raise DataError(f"'{csv}' has no columns 'label', but needs exactly one; its header: {', '.join(header)}.")
    raise DataError(
        f"'{csv}' has several columns that may hold the labels: {join_names(candidates, 12)}. Name the right one: "
        f"data.csv={{csv: {csv}, label_column: {candidates[0]}}}."
    )


def _is_hot(cells: "pd.Series[str]") -> bool:
    """Return whether a column holds only 0 and 1, of both some."""
    values = set(cells)
    return values <= _ZEROS | _ONES and bool(values & _ZEROS)
