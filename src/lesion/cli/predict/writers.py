"""Write predictions as they come: tables for users, JSON lines and CSV for programs."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lesion.cli.predict.inputs import printable
from lesion.core.errors import ImageError
from lesion.core.text import defuse_formulas
from lesion.model.predictor import Prediction

_TABLE_ROWS = 200  # of one table: all of them are in memory, since they set the widths of its columns
_FIRST_COLUMNS = ("file", "abstain_reason", "predicted_class", "confidence")
_LAST_COLUMNS = (
    "inference_time_ms",
    "model_version",
    "domain_distance",
    "in_domain",
    "domain_p_value",
    "prediction_set",
    "overlay",
    "code",
    "error",
)


@dataclass(frozen=True, slots=True)
class Row:
    """The result for one image."""

    name: str
    answer: Prediction | ImageError  # its prediction, or why it was refused
    overlay: str = ""  # the path of its overlay; empty if it has none


def write_json(rows: Iterable[Row], out: IO[str], top_k: int | None) -> None:
    """Write one JSON object per line, in ASCII, so that any file name can be read back; ``top_k`` classes or all."""
    for row in rows:
        value: dict[str, Any] = {"file": row.name}
        if isinstance(row.answer, ImageError):
            value |= {"code": row.answer.code, "error": row.answer.message}
        else:
            similar = row.answer.similar_answers
            value |= {
                "abstain_reason": row.answer.abstention,
                "predicted_class": row.answer.predicted_class,
                "confidence": row.answer.confidence,
                "probabilities": row.answer.top(top_k),
                "inference_time_ms": round(row.answer.inference_time_ms, 3),
                "model_version": row.answer.model_version,
                "domain_distance": row.answer.domain_distance,
                "in_domain": row.answer.in_domain,
                "domain_p_value": row.answer.domain_p_value,
                "unnoticed_kinds": row.answer.unnoticed_kinds,
                "prediction_set": row.answer.prediction_set(),
                "similar_answers": None if similar is None else similar.to_json(),
            }
            if row.overlay:
                value["overlay"] = row.overlay
        out.write(json.dumps(value) + "\n")


def write_csv(rows: Iterable[Row], out: IO[str], classes: Sequence[str], top_k: int | None) -> None:
    """Write CSV for spreadsheets: an apostrophe is put before text that a spreadsheet would run as a formula.

    There is one column per class; with ``top_k`` the most probable classes and their probabilities instead.
    """
    table = csv.writer(out, lineterminator="\n")
    middle = [f"probability_{name}" for name in classes]
    if top_k is not None:
        middle = [f"{part}_{rank + 1}" for rank in range(min(top_k, len(classes))) for part in ("class", "probability")]
    columns = [*_FIRST_COLUMNS, *middle, *_LAST_COLUMNS]
    table.writerow(columns)
    for row in rows:
        if isinstance(row.answer, ImageError):
            cells = [row.name, *[""] * (len(columns) - 3), row.answer.code, row.answer.message]
        else:
            cells = _csv_cells(row.answer, row, classes, top_k)
        table.writerow([defuse_formulas(cell) for cell in cells])


def _csv_cells(answer: Prediction, row: Row, classes: Sequence[str], top_k: int | None) -> list[str]:
    middle = [f"{answer.probabilities[name]:.6f}" for name in classes]
    if top_k is not None:
        middle = [part for name, value in answer.top(top_k).items() for part in (name, f"{value:.6f}")]
    first = [row.name, answer.abstention or "", answer.predicted_class, f"{answer.confidence:.6f}"]
    domain = [f"{answer.domain_distance:.4f}", str(answer.in_domain).lower()]
    domain += ["" if answer.domain_p_value is None else f"{answer.domain_p_value:.4f}"]
    domain += ["|".join(answer.prediction_set() or ())]
    return [*first, *middle, f"{answer.inference_time_ms:.3f}", answer.model_version, *domain, row.overlay, "", ""]


def write_tables(rows: Iterable[Row], out: IO[str], class_names: Mapping[str, str], top_k: int | None) -> None:
    """Write tables of at most 200 rows each, with the ``top_k`` most probable classes (1 by default) of each image.

    Classes are shown by their ``class_names``. An error that ends ``rows`` is raised after the rows before it are
    written.
    """
    console = Console(file=out, highlight=False, soft_wrap=False)
    pending: list[Row] = []
    try:
        for row in rows:
            pending.append(row)
            if len(pending) >= _TABLE_ROWS:
                console.print(_table(pending, class_names, top_k or 1))
                pending = []
    finally:
        if pending:
            console.print(_table(pending, class_names, top_k or 1))


def _table(rows: Iterable[Row], class_names: Mapping[str, str], top_k: int) -> Table:
    table = Table()
    table.add_column("file", overflow="fold", ratio=2)
    table.add_column("prediction", overflow="fold", ratio=3)
    table.add_column("ms", justify="right")
    for row in rows:
        name = Text(printable(row.name))
        if isinstance(row.answer, ImageError):
            table.add_row(name, Text(f"{row.answer.code}: {printable(row.answer.message)}", style="red"), "")
        else:
            table.add_row(name, Text(_words(row.answer, class_names, top_k)), f"{row.answer.inference_time_ms:.1f}")
    return table


def _words(answer: Prediction, class_names: Mapping[str, str], top_k: int) -> str:
    """Return the most probable classes, after what keeps the first of them from being an answer."""
    words = ", ".join(f"{class_names[label]} {100 * value:.1f} %" for label, value in answer.top(top_k).items())
    if answer.abstention == "not_recognized":
        return f"not recognized, unlike the training images (nearest: {words})"
    if answer.abstention == "unsure":
        members = answer.prediction_set()
        listed = ", ".join(class_names[label] for label in members or ())
        possible = "" if members is None else f"; possible: {listed or 'none of the classes'}"
        return f"unsure: {words}{possible}"
    return words
