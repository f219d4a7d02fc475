"""The tables that describe a dataset: a CSV of its images, a JSON object with the names of its labels."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lesion.core.errors import DataError


def read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """Return columns of a CSV as text without surrounding spaces; empty cells are "".

    A table that cannot be read, and a column that is missing, doubled or named twice, are a DataError.
    """
    if len(set(columns)) < len(columns):
        raise DataError(
            f"path_column, label_column and group_column name {', '.join(columns)}: one column of '{path.name}' cannot "
            "have two meanings. Name different columns."
        )
    try:
        # Without a header: pandas would rename doubled columns and use the first cells of too long rows as an index.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, header=None)
    except (OSError, ValueError) as error:
        raise DataError(f"The table '{path.name}' cannot be read as UTF-8 CSV: {error}.") from error
    for column in table:
        table[column] = table[column].str.strip()
    header = table.iloc[0].tolist()
    for column in columns:
        if header.count(column) != 1:
            raise DataError(
                f"'{path.name}' has {header.count(column) or 'no'} columns '{column}', but needs exactly one; its "
                f"header: {', '.join(header)}."
            )
    return table.iloc[1:].set_axis(header, axis=1).reset_index(drop=True)[columns]


def read_names(path: Path) -> Mapping[str, str]:
    """Return the names of labels from a JSON object; anything else is a DataError."""
    try:
        names = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"The label names '{path.name}' cannot be read: {error}.") from error
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise DataError(f"'{path.name}' must be a JSON object that maps each label to its name.")
    return names
