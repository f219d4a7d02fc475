"""Measure how often the 95 % intervals of an evaluation hold the truth: ``python scripts/bench/coverage.py --require``.

Test sets are drawn from eight settings: 30 to 884 images, single ones and groups of four, classes of 2 %, over- and
under-confident models, mislabeled images. The truth of each metric comes from a million images of the same setting, and
both it and the intervals that others use are computed here, not by Lesion. Where Lesion gives no interval, since the
images are too few, nothing is counted. Required: no metric is shown to be covered by less than 0.93 (99 % bound of its
measured coverage, for all metrics of all settings together), no width of zero, and a mean width of at most 1.3 times
that of the narrowest other method that is not shown to cover less in any setting (99 % bound of each one).
"""

import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from lesion.evaluation.intervals.confidence import estimate_metrics
from scripts.bench.common import bench_parser, bench_table, verdict
from scripts.bench.other_intervals import BINS, Limits, others

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST, LEVEL, WIDER = 0.93, 0.99, 1.3
TRUTH_IMAGES = 1_000_000
MIN_RUNS = 100  # of a cell: an interval that is rarely given is not judged


@dataclass(frozen=True)
class Setting:
    """Where test sets are drawn from: normal classes around the corners of a simplex, and a model of them."""

    name: str
    images: int
    group: int  # images in each group; they share their class and half of their luck
    shares: tuple[float, ...]  # of the classes
    distance: float  # between the middles of the classes
    sharpness: float  # of the model's logits; 1 is calibrated
    mislabeled: float = 0.0  # share of images that look like a random class


SETTINGS = (
    Setting("30 images, 3 classes", 30, 1, (1 / 3, 1 / 3, 1 / 3), 2.6, 1.0),
    Setting("60 images in groups of 4, 2 classes", 60, 4, (0.5, 0.5), 2.4, 1.4, 0.02),
    Setting("100 images, one class of 2 %", 100, 1, (0.38, 0.3, 0.3, 0.02), 3.0, 1.0, 0.01),
    Setting("100 images in groups of 4, over-confident", 100, 4, (0.25, 0.25, 0.25, 0.25), 3.0, 2.0, 0.02),
    Setting("300 images in groups of 4, one class of 2 %", 300, 4, (0.38, 0.3, 0.3, 0.02), 3.2, 1.3, 0.01),
    Setting("300 images, skewed, under-confident", 300, 1, (0.61, 0.13, 0.11, 0.1, 0.05), 2.2, 0.6),
    Setting("884 images, 99 % right", 884, 1, (0.25, 0.25, 0.25, 0.25), 4.4, 1.0, 0.005),
    Setting("884 images in groups of 4, one class of 2 %", 884, 4, (0.4, 0.3, 0.28, 0.02), 3.4, 1.8, 0.01),
)


@dataclass(eq=False)
class Cell:
    """One metric of one setting by one method."""

    held: int = 0
    runs: int = 0
    widths: list[float] = field(default_factory=list)

    def add(self, limits: Limits, truth: float) -> None:
        self.held += limits[0] - 1e-9 <= truth <= limits[1] + 1e-9
        self.runs += 1
        self.widths.append(limits[1] - limits[0])

    @property
    def coverage(self) -> float:
        return self.held / self.runs

    def bound(self, cells: int = 1) -> float:
        """Return the upper 99 % bound of the coverage, for several cells together."""
        misses = self.runs - self.held
        return float(stats.beta.ppf(1 - (1 - LEVEL) / cells, self.held + 1, misses)) if misses else 1.0


def draw(setting: Setting, images: int, rng: np.random.Generator) -> tuple[Floats, Ints, Ints]:
    """Draw a test set: probabilities (N, C), labels (N,) and groups (N,)."""
    classes, groups = len(setting.shares), images // setting.group
    group = np.repeat(np.arange(groups), setting.group)
    label = rng.choice(classes, groups, p=setting.shares)[group]
    shown = np.where(rng.random(len(label)) < setting.mislabeled, rng.integers(classes, size=len(label)), label)
    luck, noise = rng.standard_normal((groups, classes))[group], rng.standard_normal((len(label), classes))
    values = (luck + noise) / np.sqrt(2) if setting.group > 1 else noise
    values[np.arange(len(label)), shown] += setting.distance
    logits = setting.sharpness * (setting.distance * values + np.log(setting.shares))
    logits -= logits.max(axis=1, keepdims=True)
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True), label, group


def binned_error(stated: Floats, right: NDArray[np.bool_]) -> float:
    """Return Σ |share of right answers − stated probability| over 15 bins (lower, upper]."""
    bins = np.clip(np.ceil(stated * BINS).astype(int) - 1, 0, BINS - 1)
    return float(np.abs(np.bincount(bins, right - stated, BINS)).sum() / len(stated))


def measure(probabilities: Floats, labels: Ints) -> dict[str, float]:
    """Compute all metrics of a set of images from their definitions."""
    images, classes = probabilities.shape
    predicted = probabilities.argmax(axis=1)
    found = {"acc": float((predicted == labels).mean())}
    for c in range(classes):
        of_class, said, score = labels == c, predicted == c, probabilities[:, c]
        hits = (of_class & said).sum()
        found[f"recall/{c}"] = hits / of_class.sum()
        found[f"precision/{c}"] = hits / said.sum()
        found[f"specificity/{c}"] = (~of_class & ~said).sum() / (~of_class).sum()
        found[f"npv/{c}"] = (~of_class & ~said).sum() / (~said).sum()
        found[f"f1/{c}"] = 2 * hits / (of_class.sum() + said.sum())
        found[f"roc_auc/{c}"] = roc_auc_score(of_class, score)
        found[f"pr_auc/{c}"] = average_precision_score(of_class, score)
    for key, name in MACRO.items():
        found[key] = float(np.mean([found[f"{name}/{c}"] for c in range(classes)]))
    labeled = probabilities[np.arange(images), labels]
    found["nll"] = float(-np.log(np.maximum(labeled, np.finfo(np.float32).tiny)).mean())
    found["brier"] = float((np.square(probabilities).sum(axis=1) - 2 * labeled + 1).mean())
    found["ece"] = binned_error(probabilities.max(axis=1), predicted == labels)
    found["ece_classwise"] = float(np.mean([binned_error(probabilities[:, c], labels == c) for c in range(classes)]))
    return found


MACRO = {
    "balanced_acc": "recall", "recall_macro": "recall", "precision_macro": "precision", "f1_macro": "f1",
    "roc_auc": "roc_auc", "pr_auc": "pr_auc",
}  # fmt: skip


Cells = dict[tuple[str, str], Cell]
OWN = "Lesion"


def run(setting: Setting, runs: int, seed: int) -> tuple[Cells, float]:
    """Draw many test sets of one setting; return the cells by metric and method, and the seconds of our own method."""
    rng = np.random.default_rng(seed)
    truth = measure(*draw(setting, TRUTH_IMAGES, rng)[:2])
    cells: Cells = defaultdict(Cell)
    seconds = 0.0
    names = [str(c) for c in range(len(setting.shares))]
    for _ in range(runs):
        probabilities, labels, groups = draw(setting, setting.images, rng)
        begin = time.perf_counter()
        estimates = estimate_metrics(probabilities, labels, groups, names)
        seconds += time.perf_counter() - begin
        for key, estimate in estimates.items():
            if estimate.has_interval:
                cells[key, OWN].add((estimate.low, estimate.high), truth[key])
        for key, method, limits in others(probabilities, labels, groups, rng):
            cells[key, method].add(limits, truth[key])
    return {name: cell for name, cell in cells.items() if cell.runs >= MIN_RUNS}, seconds / runs


@dataclass(frozen=True)
class Row:
    """One metric over all settings, the classes of a metric together."""

    metric: str
    lowest: Cell  # our cell with the lowest coverage
    setting: str  # where that is
    given: float  # share of the test sets for which an interval was given
    narrowest: float  # the smallest width
    best: str  # the narrowest other method that is not shown to cover too little in any setting; empty without one
    ratio: float  # of our width to its width, the mean of all settings; NaN without one


def summarize(measured: list[tuple[Setting, Cells]], runs: int) -> list[Row]:
    """Summarize the cells of all settings by metric."""
    cells = {(key, method, setting.name): cell for setting, found in measured for (key, method), cell in found.items()}
    families: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for key, method, setting in cells:
        if method == OWN:
            families[key.split("/")[0]].append((key, setting))
    result = []
    for family, places in families.items():
        own = [cells[key, OWN, setting] for key, setting in places]
        lowest = min(places, key=lambda place: cells[place[0], OWN, place[1]].coverage)
        ratios = {}
        for method in sorted({method for _, method, _ in cells} - {OWN}):
            theirs = [cells.get((key, method, setting)) for key, setting in places]
            valid = [cell for cell in theirs if cell is not None and cell.bound() >= LEAST]
            if len(valid) == len(places):
                pairs = zip(own, valid, strict=True)
                ratios[method] = float(np.mean([np.mean(ours.widths) / np.mean(cell.widths) for ours, cell in pairs]))
        best = max(ratios, key=lambda method: ratios[method], default="")
        result.append(
            Row(
                family, cells[lowest[0], OWN, lowest[1]], lowest[1],
                float(np.mean([cell.runs / runs for cell in own])), min(min(cell.widths) for cell in own),
                best, ratios.get(best, float("nan")),
            )
        )  # fmt: skip
    return result


def report(found: list[Row], count: int, console: Console, title: str) -> bool:
    """Print each metric, and return whether the requirement is met for ``count`` cells together."""
    columns = ("metric", "lowest coverage", "99 % bound", "where", "given", "narrowest", "width / best", "best other")
    table = bench_table(title, columns)
    for row in found:
        table.add_row(
            row.metric, f"{row.lowest.coverage:.3f}", f"{row.lowest.bound(count):.3f}", row.setting,
            f"{row.given:.2f}", f"{row.narrowest:.4f}", "–" if np.isnan(row.ratio) else f"{row.ratio:.2f}", row.best,
        )  # fmt: skip
    console.print(table)
    return not any(row.lowest.bound(count) < LEAST or row.narrowest <= 0 or row.ratio > WIDER for row in found)


def main() -> int:
    parser = bench_parser(__doc__, require="exit with 1 when the requirement fails")
    parser.add_argument("--runs", type=int, default=400, help="test sets of each setting")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.runs < MIN_RUNS:
        parser.error(f"--runs must be at least {MIN_RUNS}")
    console = Console(width=200)
    measured = []
    for number, setting in enumerate(SETTINGS):
        cells, seconds = run(setting, options.runs, options.seed + number)
        console.print(f"{setting.name}: {1000 * seconds:.1f} ms for all intervals of a test set")
        measured.append((setting, cells))
    count = sum(method == OWN for _, cells in measured for _, method in cells)
    title = f"{options.runs} test sets of each setting, {count} cells, seed {options.seed}"
    passed = report(summarize(measured, options.runs), count, console, title)
    required = f"bound at least {LEAST}, no width of 0, width at most {WIDER} of the best"
    console.print(f"Requirement ({required}): {verdict(passed)}.")
    return int(options.require and not passed)


if __name__ == "__main__":
    sys.exit(main())
