"""Measure the promotion gate: ``python scripts/bench/gate.py --require``.

Retrains are simulated, and decided about by the very ``decide`` that promotes models.

Luck: sequences of 200 retrains that improve nothing meet one generation of the gate set, until it is spent. The
challenger is the champion plus noise, or the worst case: a twin that errs as often, on images of its own. The share of
sequences in which anything is promoted must not be above 5 %.

The default budget is 4.25 %, not 5, because a thousand sequences cannot tell a rate of 4.4 % from one of 5: with a
budget of 5 % about one seed in six landed above. A firm answer takes ``--sequences 10000``.

Power: a challenger that is right 97 % of the time meets a champion that is right 94 % of the time, on 700 images and a
fresh budget. At least 80 % must be promoted.

The simulated models are calibrated: an image's evidence for its class is normal with standard deviation 1, a rival
class drawn at random wins where it is negative, and the confidence is the probability of being right given its size.
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest, norm

from lesion.core.cpu import available_cores
from lesion.promotion.gate import GateSet, GateSettings, decide

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
RETRAINS = 200
MAX_LUCK, MIN_POWER = 0.05, 0.80
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Images:
    """The gate's images: their labels, groups, the rival class of each, and names."""

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
        """Standard normal noise that images of one group share half of."""
        own, shared = rng.standard_normal(len(self.groups)), rng.standard_normal(self.groups[-1] + 1)[self.groups]
        grouped = self.groups[-1] + 1 < len(self.groups)
        return (own + shared) / np.sqrt(2) if grouped else own

    def probabilities(self, evidence: Floats, accuracy: float) -> Floats:
        """Answers of a calibrated model that is right with probability ``accuracy``."""
        mean = norm.ppf(accuracy)
        sure = 1 / (1 + np.exp(-2 * mean * (mean + evidence)))
        answers = np.full((len(self.labels), len(CLASSES)), 1e-4)
        rows, rest = np.arange(len(self.labels)), 1 - 1e-4 * (len(CLASSES) - 2)
        answers[rows, self.labels] = rest * sure
        answers[rows, self.rivals] = rest * (1 - sure)
        return answers


@dataclass(frozen=True)
class Scenario:
    """One kind of retrains and gate sets; a challenger's evidence: ``kept`` × the champion's + ``noise`` × its own."""

    title: str
    kept: float
    noise: float
    images: int = 700
    group: int = 1
    champion: float = 0.94
    challenger: float = 0.94
    weights: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25)


def twin(title: str, correlation: float, **changes: Any) -> Scenario:  # noqa: ANN401 (any field)
    """A challenger whose evidence has the champion's distribution, so that the two are exchangeable."""
    return Scenario(f"{title}, correlation {correlation:g}", correlation, (1 - correlation**2) ** 0.5, **changes)


LUCK = (
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
POWER = tuple(twin("94 % → 97 %", correlation, challenger=0.97) for correlation in (0, 0.3, 0.6))


def lucky(scenario: Scenario, settings: GateSettings, rng: np.random.Generator) -> bool:
    """Whether any of 200 retrains on one generation is promoted; the first one that is ends the sequence."""
    images = Images.draw(rng, scenario.images, scenario.group, scenario.weights)
    champion = images.evidence(rng)
    for used in range(RETRAINS):
        if settings.spending.exhausted(used):
            return False  # and so are all that follow: the gate rejects them without a look
        if promoted(scenario, settings, images, champion, images.evidence(rng), used):
            return True
    return False


def improved(scenario: Scenario, settings: GateSettings, rng: np.random.Generator) -> bool:
    """Whether one real improvement is promoted on a fresh budget."""
    images = Images.draw(rng, scenario.images, scenario.group, scenario.weights)
    return promoted(scenario, settings, images, images.evidence(rng), images.evidence(rng), 0)


def promoted(
    scenario: Scenario, settings: GateSettings, images: Images, champion: Floats, own: Floats, used: int
) -> bool:
    gate = GateSet(
        generation=1,
        labels=images.labels,
        groups=images.groups,
        champion=images.probabilities(champion, scenario.champion),
        challenger=images.probabilities(scenario.kept * champion + scenario.noise * own, scenario.challenger),
        names=images.names,
    )
    spending = settings.spending
    return decide([gate], CLASSES, settings, spending.alpha(used + 1), spending.looks_left(used + 1)).promoted


def run(scenario: Scenario, runs: int, settings: GateSettings, seed: int) -> tuple[int, float]:
    """How many runs of one scenario end in a promotion, and the seconds that took."""
    trial, rng, begun = (lucky if scenario in LUCK else improved), np.random.default_rng(seed), time.perf_counter()
    return sum(trial(scenario, settings, rng) for _ in range(runs)), time.perf_counter() - begun


def bench(given: argparse.Namespace, console: Console) -> bool:
    settings = GateSettings(replicates=given.replicates)
    scenarios = (*LUCK, *POWER)
    runs = [given.sequences] * len(LUCK) + [given.improvements] * len(POWER)
    seeds = [given.seed + number for number in range(len(scenarios))]
    with ProcessPoolExecutor(given.processes) as pool:
        results = list(pool.map(run, scenarios, runs, [settings] * len(scenarios), seeds))
    table = Table(title=f"The gate's default settings with {given.replicates:,} replicates, seed {given.seed}")
    for column in ("simulated retrains", "runs", "promoted", "95 % interval", "required", "seconds"):
        table.add_column(column, justify="left" if column == "simulated retrains" else "right")
    passed = True
    for scenario, count, (hits, seconds) in zip(scenarios, runs, results, strict=True):
        luck, interval = scenario in LUCK, binomtest(hits, count).proportion_ci()
        passed &= hits / count <= MAX_LUCK if luck else hits / count >= MIN_POWER
        table.add_row(
            scenario.title,
            f"{count:,}",
            f"{hits / count:.1%}",
            f"{interval.low:.1%} to {interval.high:.1%}",
            f"≤ {MAX_LUCK:.0%}" if luck else f"≥ {MIN_POWER:.0%}",
            f"{seconds:.0f}",
            end_section=scenario is LUCK[-1],
        )
    console.print(table)
    console.print(f"Requirement (every row): {'met' if passed else 'NOT met'}.")
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=1000, help="of 200 retrains each, for every kind")
    parser.add_argument("--improvements", type=int, default=1000, help="for every kind")
    parser.add_argument(
        "--replicates",
        type=int,
        default=2000,
        help="of the bootstrap; the default of configs/gate takes three times as long",
    )
    parser.add_argument("--processes", type=int, default=available_cores())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--require", action="store_true", help="exit with 1 when the requirement fails")
    given = parser.parse_args()
    if min(given.sequences, given.improvements, given.processes) < 1:
        parser.error("--sequences, --improvements and --processes must be at least 1")
    return int(not bench(given, Console(width=120)) and given.require)


if __name__ == "__main__":
    sys.exit(main())
