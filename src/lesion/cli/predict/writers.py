"""Write predictions one by one: a table for users, JSON lines and CSV for programs."""

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lesion.cli.predict.inputs import printable
from lesion.core.errors import ImageError
from lesion.model.predictor import Prediction

_TABLE_ROWS = 200  # of one table: all of them are in memory, since they set the widths of its columns
_FIRST_COLUMNS = ("file", "predicted_class", "confidence")
_LAST_COLUMNS = ("inference_time_ms", "model_version", "domain_distance", "in_domain", "overlay", "code", "error")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Row:
    """The result for one image."""

    name: str
    answer: Prediction | ImageError  # its prediction, or why it was refused
    overlay: str = ""  # the path of its overlay; empty if it has none


class Writer(ABC):
    """Takes rows one by one."""

    @abstractmethod
    def write(self, row: Row) -> None:
        """Take one row."""

    def close(self) -> None:  # noqa: B027 - most writers have none left
        """Write the rows that are not written yet."""


class JsonWriter(Writer):
    """One JSON object per line, in ASCII, so that any file name can be read back; ``top_k`` probabilities or all."""

    def __init__(self, out: IO[str], top_k: int | None) -> None:
        self._out = out
        self._top_k = top_k

    def write(self, row: Row) -> None:
        """Write one line."""
        value: dict[str, Any] = {"file": row.name}
        if isinstance(row.answer, ImageError):
            value |= {"code": row.answer.code, "error": row.answer.message}
        else:
            value |= {
                "predicted_class": row.answer.predicted_class,
                "confidence": row.answer.confidence,
                "probabilities": row.answer.top(self._top_k),
                "inference_time_ms": round(row.answer.inference_time_ms, 3),
                "model_version": row.answer.model_version,
                "domain_distance": row.answer.domain_distance,
                "in_domain": row.answer.in_domain,
            }
            if row.overlay:
                value["overlay"] = row.overlay
        self._out.write(json.dumps(value) + "\n")


class CsvWriter(Writer):
    """CSV for spreadsheets: an apostrophe is put before text that a spreadsheet would run as a formula.

    There is one column per class; with ``top_k`` the most probable classes and their probabilities instead.
    """

    def __init__(self, out: IO[str], classes: Sequence[str], top_k: int | None) -> None:
        self._csv = csv.writer(out, lineterminator="\n")
        self._classes = classes
        self._top_k = None if top_k is None else min(top_k, len(classes))
        middle = [f"probability_{name}" for name in classes]
        if self._top_k is not None:
            middle = [f"{part}_{rank + 1}" for rank in range(self._top_k) for part in ("class", "probability")]
        self._width = len(middle)
        self._put([*_FIRST_COLUMNS, *middle, *_LAST_COLUMNS])

    def write(self, row: Row) -> None:
        """Write one line."""
        if isinstance(row.answer, ImageError):
            self._put([row.name, "", "", *[""] * self._width, *[""] * 5, row.answer.code, row.answer.message])
            return
        answer = row.answer
        middle: list[str] = [f"{answer.probabilities[name]:.6f}" for name in self._classes]
        if self._top_k is not None:
            middle = [part for name, value in answer.top(self._top_k).items() for part in (name, f"{value:.6f}")]
        first = [row.name, answer.predicted_class, f"{answer.confidence:.6f}"]
        domain = [f"{answer.domain_distance:.4f}", str(answer.in_domain).lower()]
        last = [f"{answer.inference_time_ms:.3f}", answer.model_version, *domain, row.overlay, "", ""]
        self._put([*first, *middle, *last])

    def _put(self, cells: Sequence[str]) -> None:
        self._csv.writerow([f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell for cell in cells])


class TableWriter(Writer):
    """Tables of at most 200 rows each, with the ``top_k`` most probable classes of each image."""

    def __init__(self, out: IO[str], top_k: int | None) -> None:
        self._console = Console(file=out, highlight=False, soft_wrap=False)
        self._top_k = top_k or 1
        self._rows: list[Row] = []

    def write(self, row: Row) -> None:
        """Keep the row until a table is full."""
        self._rows.append(row)
        if len(self._rows) >= _TABLE_ROWS:
            self._flush()

    def close(self) -> None:
        """Write the last table."""
        if self._rows:
            self._flush()

    def _flush(self) -> None:
        table = Table()
        table.add_column("file", overflow="fold", ratio=2)
        table.add_column("prediction", overflow="fold", ratio=3)
        table.add_column("ms", justify="right")
        for row in self._rows:
            name = Text(printable(row.name))
            if isinstance(row.answer, ImageError):
                table.add_row(name, Text(f"{row.answer.code}: {printable(row.answer.message)}", style="red"), "")
            else:
                ranked = row.answer.top(self._top_k).items()
                words = ", ".join(f"{label} {100 * value:.1f} %" for label, value in ranked)
                words += "" if row.answer.in_domain else " (unlike the training images)"
                table.add_row(name, Text(words), f"{row.answer.inference_time_ms:.1f}")
        self._console.print(table)
        self._rows.clear()
