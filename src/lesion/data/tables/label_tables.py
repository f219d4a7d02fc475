"""Read the tables that describe a dataset: a CSV of its images, and a JSON object with the names of its labels.

======================================= ============================================================
in the file                             is read as
======================================= ============================================================
a byte order mark                       UTF-8, UTF-16 or UTF-32, as it says
no mark, every second byte 0            UTF-16
no mark otherwise                       UTF-8; anything else is refused
a first line such as ``sep=;``          the separator, as Excel writes it
``,`` ``;`` ``|`` or tabs in the header the separator that gives the columns that were named; else most columns
every cell                              text without surrounding spaces: 007, 1e3 and dates stay as they are
blank lines                             nothing; they still count in the numbers of rows
======================================= ============================================================
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from lesion.core.errors import DataError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEPARATORS = ",;\t|"
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
_BLANK_LINE = re.compile(r"()\s*?\n")
_SAMPLE = 400  # bytes that tell the encoding


def read_csv(path: Path, named: Sequence[str] = ()) -> pd.DataFrame:
    """Return a CSV as text, as the module's docstring explains; empty cells are "".

    Args:
        path: The file.
        named: Columns that the user named: they tell which separator is meant.

    Returns:
        The columns of the header, of which several may have one name. The index holds the numbers of the rows as a
        spreadsheet shows them: the header is row 1.

    Raises:
        DataError: The file cannot be read as such a table.
    """
    try:
        text, first_row = _text(path), 1
        separator = None
        while line := _SEPARATOR_LINE.match(text) or _BLANK_LINE.match(text):  # pandas counts the first line's columns
            text, first_row = text[line.end() :], first_row + 1
            separator = line[1] or separator
        separator = separator or _separator(text, named)
        # Without a header: pandas would rename doubled columns and use the first cells of too long rows as an index.
        table = pd.read_csv(
            io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, header=None, skip_blank_lines=False,
            skipinitialspace=True,
        )  # fmt: skip
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"The table '{path.name}' cannot be read as UTF-8 CSV: {error}. Save it as “CSV UTF-8” in the program that "
            "made it."
        ) from error
    table = table.fillna("").apply(lambda cells: cells.str.strip())
    table.index = pd.RangeIndex(first_row, first_row + len(table))
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise DataError(f"The table '{path.name}' cannot be read as UTF-8 CSV: it is empty.")
    rows: pd.DataFrame = table.iloc[1:].set_axis(table.iloc[0].tolist(), axis=1)
    return rows


def read_names(path: Path) -> Mapping[str, str]:
    """Return the names of labels from a JSON object; anything else is a DataError."""
    try:
        names = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"The label names '{path.name}' cannot be read: {error}.") from error
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise DataError(f"'{path.name}' must be a JSON object that maps each label to its name.")
    return names


def _text(path: Path) -> str:
    data = path.read_bytes()
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding)
    low, high = data[:_SAMPLE:2], data[1:_SAMPLE:2]
    if high and 2 * high.count(0) > len(high) and not low.count(0):
        return data.decode("utf-16-le")
    if high and 2 * low.count(0) > len(low) and not high.count(0):
        return data.decode("utf-16-be")
    return data.decode()


def _separator(text: str, named: Sequence[str]) -> str:
    header = next((line for line in text.splitlines() if line.strip()), "")

    def fitness(separator: str) -> tuple[bool, int]:
        fields = [field.strip() for field in next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])]
        return set(named) <= set(fields), len(fields)

    return max(_SEPARATORS, key=fitness)
