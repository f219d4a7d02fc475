"""Measure the promotion gate: ``python scripts/bench/gate.py --require``.

Retrainings are simulated and judged by ``decide``, the same function that promotes models.

False promotions: sequences of 200 retrainings without any improvement use one generation of the gate set until its
budget is spent. The challenger is the champion plus noise, or the worst case: a twin that errs as often, but on other
images. The share of sequences with any promotion must be at most 5 %.

The default budget is 4.25 %, not 5 %, because a thousand sequences cannot tell a rate of 4.4 % from one of 5 %: with a
budget of 5 % about one seed in six ended above the bound. A precise answer takes ``--sequences 10000``.

Power: a challenger that is right 97 % of the time meets a champion that is right 94 % of the time, on 700 images and
with a fresh budget. At least 80 % must be promoted.

The simulated models are calibrated: the evidence that an image gives for its class is normal with standard deviation 1,
a rival class drawn at random wins where it is negative, and the confidence is the probability of being right, given the
size of the evidence.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import binomtest, norm

from lesion.core.cpu import available_cores
from lesion.promotion.comparison import GateSet
from lesion.promotion.gate import decide
from lesion.promotion.gate_settings import GateSettings
from scripts.bench.common import bench_parser, bench_table, timed, verdict

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
RETRAININGS = 200
MAX_FALSE, MIN_POWER = 0.05, 0.80
COLUMNS = ("simulated retrains", "runs", "promoted", "95 % interval", "required", "seconds")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Images:
    """The images of the gate: their labels, groups, the rival class of each, and names."""

    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    rivals: NDArray[np.int64]
    names: tuple[str, ...]

    @classmethod
    def draw(cls, rng: np.random.Generator, images: int, group: int, weights: tuple[float, ...]) -> "Images":
        groups = np.arange(images) // group
        labels = rng.choice(len(CLASSES), size=groups[-1] + 1, p=weights)[groups]
        rivals = (labels + rng.integers(1, len(CLASSES), images)) % len(CLASSES)
        return cls(labels, groups, rivals, tuple(map(str, range(images))))

    def evidence(self, rng: np.random.Generator) -> Floats:
        """Draw standard normal noise; images of one group share half of its variance."""
        single, shared = rng.standard_normal(len(self.groups)), rng.standard_normal(self.groups[-1] + 1)[self.groups]
        grouped = self.groups[-1] + 1 < len(self.groups)
        return (single + shared) / np.sqrt(2) if grouped else single

    def probabilities(self, evidence: Floats, accuracy: float) -> Floats:
        """Return the predictions of a calibrated model that is right with probability ``accuracy``."""
        mean = norm.ppf(accuracy)
        confidence = 1 / (1 + np.exp(-2 * mean * (mean + evidence)))
        probabilities = np.full((len(self.labels), len(CLASSES)), 1e-4)
        rows, rest = np.arange(len(self.labels)), 1 - 1e-4 * (len(CLASSES) - 2)
        probabilities[rows, self.labels] = rest * confidence
        probabilities[rows, self.rivals] = rest * (1 - confidence)
        return probabilities


@dataclass(frozen=True)
class Scenario:
    """One kind of retrainings and gate sets.

    The evidence of a challenger is ``weight`` × that of the champion + ``noise`` × noise of its own.
    """

    title: str
    weight: float
    noise: float
    images: int = 700
    group: int = 1
    champion: float = 0.94
    challenger: float = 0.94
    weights: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25)


def twin(title: str, correlation: float, **changes: Any) -> Scenario:  # noqa: ANN401 (any field)
    """Describe a challenger whose evidence has the same distribution as the champion's: the two are exchangeable."""
    return Scenario(f"{title}, correlation {correlation:g}", correlation, (1 - correlation**2) ** 0.5, **changes)


NO_IMPROVEMENT = (
    Scenario("champion + little noise (0.1)", 1, 0.1),
    Scenario("champion + noise (0.3)", 1, 0.3),
    Scenario("champion + much noise (1.0)", 1, 1.0),
    twin("twin", 0),
    twin("twin", 0.6),
    twin("twin", 0.95),
    twin("twin, 150 images", 0.3, images=150),
    twin("twin, groups of 4 images", 0.3, group=4),
    twin("twin, unequal classes", 0.3, champion=0.8, challenger=0.8, weights=(0.7, 0.2, 0.07, 0.03)),
)
IMPROVEMENT = tuple(twin("94 % → 97 %", correlation, challenger=0.97) for correlation in (0, 0.3, 0.6))


def any_promoted(scenario: Scenario, settings: GateSettings, rng: np.random.Generator, retrainings: int) -> bool:
    """Return whether any of some retrainings on one generation is promoted; the first promotion ends the sequence."""
    images = Images.draw(rng, scenario.images, scenario.group, scenario.weights)
    champion, spending = images.evidence(rng), settings.spending
    for used in range(retrainings):
        if not spending.looks_left(used):
            return False  # the gate rejects this one and all later ones without looking at them
        challenger = scenario.weight * champion + scenario.noise * images.evidence(rng)
        gate = GateSet(
            generation=1,
            labels=images.labels,
            groups=images.groups,
            champion=images.probabilities(champion, scenario.champion),
            challenger=images.probabilities(challenger, scenario.challenger),
            hashes=images.names,
        )
        if decide([gate], CLASSES, settings, spending.alpha(used + 1), spending.looks_left(used + 1)).promoted:
            return True
    return False


def run(scenario: Scenario, runs: int, settings: GateSettings, seed: int) -> tuple[int, float]:
    """Return how many runs of one scenario end in a promotion, and the seconds that they took.

    A run is a sequence of retrainings without improvement, or one improvement on a fresh budget.
    """
    retrainings = RETRAININGS if scenario in NO_IMPROVEMENT else 1
    rng = np.random.default_rng(seed)
    return timed(lambda: sum(any_promoted(scenario, settings, rng, retrainings) for _ in range(runs)))


def bench(options: argparse.Namespace, console: Console) -> bool:
    settings = GateSettings(replicates=options.replicates)
    scenarios = (*NO_IMPROVEMENT, *IMPROVEMENT)
    runs = [options.sequences] * len(NO_IMPROVEMENT) + [options.improvements] * len(IMPROVEMENT)
    seeds = [options.seed + number for number in range(len(scenarios))]
    with ProcessPoolExecutor(options.processes) as pool:
        results = list(pool.map(run, scenarios, runs, [settings] * len(scenarios), seeds))
    table = bench_table(
        f"The gate's default settings with {options.replicates:,} replicates, seed {options.seed}", COLUMNS
    )
    passed = True
    for scenario, count, (promotions, seconds) in zip(scenarios, runs, results, strict=True):
        unimproved, interval = scenario in NO_IMPROVEMENT, binomtest(promotions, count).proportion_ci()
        passed &= promotions / count <= MAX_FALSE if unimproved else promotions / count >= MIN_POWER
        table.add_row(
            scenario.title,
            f"{count:,}",
            f"{promotions / count:.1%}",
            f"{interval.low:.1%} to {interval.high:.1%}",
            f"≤ {MAX_FALSE:.0%}" if unimproved else f"≥ {MIN_POWER:.0%}",
            f"{seconds:.0f}",
            end_section=scenario is NO_IMPROVEMENT[-1],
        )
    console.print(table)
    console.print(f"Requirement (every row): {verdict(passed)}.")
    return passed


def main() -> int:
    parser = bench_parser(__doc__, require="exit with 1 when the requirement fails")
    parser.add_argument("--sequences", type=int, default=1000, help="of 200 retrainings each, for every kind")
    parser.add_argument("--improvements", type=int, default=1000, help="for every kind")
    bootstrap = "of the bootstrap; the default of configs/gate takes three times as long"
    parser.add_argument("--replicates", type=int, default=2000, help=bootstrap)
    parser.add_argument("--processes", type=int, default=available_cores())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if min(options.sequences, options.improvements, options.processes) < 1:
        parser.error("--sequences, --improvements and --processes must be at least 1")
    return int(not bench(options, Console(width=120)) and options.require)


if __name__ == "__main__":
    sys.exit(main())
