"""The ranking of the jobs of a Hydra sweep."""

import csv
import json
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table


class Ranking(Callback):
    """Prints a table of a sweep's jobs, best first, and writes it as ``ranking.csv`` into the sweep's folder.

    It reads the files of the jobs (their overrides and ``metrics.json``), so it does not matter where they ran.
    """

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401 - Hydra's signature
        """Rank the jobs of the finished sweep."""
        folder = Path(config.hydra.sweep.dir)
        rows = rank(folder, config.optimized_metric, minimize="loss" in config.optimized_metric)
        with (folder / "ranking.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _columns(rows))
            writer.writeheader()
            writer.writerows(rows)
        _print(rows, config.optimized_metric, folder)


def rank(folder: Path, metric: str, minimize: bool = False) -> list[dict[str, Any]]:
    """Rank the jobs in a sweep's folder, which has a folder for each job, by a key in their ``metrics.json``.

    Return one row per job, best first: job, ``metric``, and each override by its key. Jobs without a result come last,
    with the value None.
    """
    rows = []
    for overrides in folder.glob("*/.hydra/overrides.yaml"):
        job = overrides.parent.parent
        settings = dict(str(item).lstrip("+").split("=", 1) for item in OmegaConf.load(overrides))
        rows.append({"job": job.name, metric: _value(job / "metrics.json", metric), **settings})
    sign = 1 if minimize else -1
    return sorted(rows, key=lambda row: (row[metric] is None, sign * (row[metric] or 0), row["job"]))


def _value(path: Path, metric: str) -> float | None:
    try:
        value = json.loads(path.read_text("utf-8"))["metrics"].get(metric)
    except (OSError, ValueError, KeyError):
        return None
    return None if value is None else float(value)


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _print(rows: list[dict[str, Any]], metric: str, folder: Path) -> None:
    table = Table("rank", *_columns(rows), title=f"{len(rows)} jobs by {metric} ({folder})")
    for number, row in enumerate(rows, 1):
        values = [row.get(column) for column in _columns(rows)]
        cells = [f"{value:.4f}" if isinstance(value, float) else str(value or "failed") for value in values]
        table.add_row(str(number), *cells)
    Console().print(table)
