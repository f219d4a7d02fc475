"""Measure the promotion gate: ``python scripts/bench/gate.py --require``.

Retrainings are simulated and judged by ``decide``, the same function that promotes models. The table has, for each
situation, the mean of what is counted, mostly the share of runs with a (wrong) promotion, and an exact interval. The
intervals of all rows hold together with 95 % confidence (Bonferroni). The requirement is met if no row's interval lies
wholly on the wrong side of its limit. ``docs/gate.md`` explains the rows.

This takes a quarter of an hour on two cores; rows that need many decisions get a quarter or a tenth of the runs. With
``--equal-runs`` they get all of them, which takes about an hour.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from rich.console import Console
from scipy.stats import binomtest, norm

from lesion.core.cpu import available_cores
from scripts.bench.common import bench_parser, bench_table, timed, verdict
from scripts.bench.gates.gate_cells import AT_LEAST, CELLS

COLUMNS = ("situation", "runs", "mean", "interval, all rows together", "required", "seconds")
CONFIDENCE = 0.95


def measure(number: int, runs: int, seed: int) -> tuple[np.ndarray, float]:
    """Return the results of a cell's runs, and the seconds that they took."""
    rng = np.random.default_rng((seed, number))
    return timed(lambda: np.array([CELLS[number].run(rng) for _ in range(runs)], float))


def interval(results: np.ndarray, rows: int) -> tuple[float, float]:
    """Return an interval of the mean: exact for shares, else by the normal distribution; together with all rows."""
    level = 1 - (1 - CONFIDENCE) / rows
    if set(results) <= {0.0, 1.0}:
        exact = binomtest(int(results.sum()), len(results)).proportion_ci(level)
        return float(exact.low), float(exact.high)
    half = float(norm.ppf((1 + level) / 2) * results.std(ddof=1) / len(results) ** 0.5)
    return float(results.mean()) - half, float(results.mean()) + half


def bench(options: argparse.Namespace, console: Console) -> bool:
    numbers = [number for number, cell in enumerate(CELLS) if options.only in cell.title]
    parts = [1 if options.equal_runs else CELLS[number].slow for number in numbers]
    runs = [max(2, options.runs // part) for part in parts]
    with ProcessPoolExecutor(options.processes) as pool:
        measured = list(pool.map(measure, numbers, runs, [options.seed] * len(numbers)))
    table = bench_table(f"The gate's default settings, seed {options.seed}", COLUMNS)
    passed = True
    for number, count, (results, seconds) in zip(numbers, runs, measured, strict=True):
        cell, (low, high) = CELLS[number], interval(results, len(numbers))
        met = high >= cell.limit if cell.relation == AT_LEAST else low <= cell.limit
        passed &= met
        table.add_row(
            cell.title,
            f"{count:,}",
            f"{results.mean():.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{cell.relation} {cell.limit:.0%}{'' if met else ' !'}",
            f"{seconds:.0f}",
        )
    console.print(table)
    console.print(f"Requirement (every row): {verdict(passed)}.")
    return passed


def main() -> int:
    parser = bench_parser(__doc__, require="exit with 1 when the requirement fails")
    parser.add_argument("--runs", type=int, default=2000, help="for each row; slow rows get a part of them")
    parser.add_argument("--equal-runs", action="store_true", help="slow rows get all runs too")
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--processes", type=int, default=available_cores())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if min(options.runs, options.processes) < 1:
        parser.error("--runs and --processes must be at least 1")
    return int(not bench(options, Console(width=140)) and options.require)


if __name__ == "__main__":
    sys.exit(main())
