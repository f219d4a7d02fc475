"""The tables that describe a dataset: a CSV of its images, a JSON object of its labels' names."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lesion.core.errors import DataError


def read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """Return columns of a CSV as texts without spaces around them; "" where there is nothing.

    Raises:
        DataError: It cannot be read, or a column is missing, doubled or named twice.
    """
    if len(set(columns)) < len(columns):
        raise DataError(
            f"One column of '{path.name}' cannot be two things: path_column, label_column and group_column name "
            f"{', '.join(columns)}. Give different ones."
        )
    try:
        # Without a header: pandas would rename doubled columns and take rows that are too long for ones with an index.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, header=None)
    except (OSError, ValueError) as error:
        raise DataError(f"The table '{path.name}' cannot be read as UTF-8 CSV: {error}.") from error
    for place in table:
        table[place] = table[place].str.strip()
    header = table.iloc[0].tolist()
    for column in columns:
        if header.count(column) != 1:
            raise DataError(
                f"'{path.name}' has {header.count(column) or 'no'} columns '{column}', but exactly one is needed; its "
                f"header: {', '.join(header)}."
            )
    return table.iloc[1:].set_axis(header, axis=1).reset_index(drop=True)[columns]


def read_names(path: Path) -> Mapping[str, str]:
    """Return the names of labels that a JSON object maps them to.

    Raises:
        DataError: It cannot be read or is no such object.
    """
    try:
        names = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"The label names '{path.name}' cannot be read: {error}.") from error
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise DataError(f"'{path.name}' must be a JSON object that maps each label to its name.")
    return names
