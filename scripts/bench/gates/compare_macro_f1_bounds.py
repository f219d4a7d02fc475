"""Compare lower bounds of the macro-F1 difference: ``python -m scripts.bench.gates.compare_macro_f1_bounds``.

Each bound is combined with McNemar's exact test of accuracy at the same level, as in the gate. In the first rows the
macro-F1 is truly equal or lower: the shares are those of false promotions. In the last ones the challenger is better
in each class.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import binom, gamma, norm

from scripts.bench.gates.simulated_models import Floats, Ints, Pair, compensated

RUNS, LEVEL = 2000, 0.05
Z = float(norm.isf(LEVEL))


def tango_lower(better: Floats, worse: Floats, images: Floats) -> Floats:
    """Return Tango's lower limits, by bisection."""
    low, high = -np.ones(len(images)), (better - worse) / images
    for _ in range(30):
        middle = (low + high) / 2
        b = -better - worse + (2 * images - better + worse) * middle
        share = (np.sqrt(np.maximum(b * b + 8 * images * worse * middle * (1 - middle), 0)) - b) / (4 * images)
        spread = np.sqrt(np.maximum(images * (2 * share + middle * (1 - middle)), 1e-12))
        excluded = (better - worse - images * middle) / spread > Z
        low, high = np.where(excluded, middle, low), np.where(excluded, high, middle)
    return low


class Sample:
    """One draw: the difference of macro-F1, its variance, and what may be unseen in each class."""

    def __init__(self, labels: Ints, first: Ints, second: Ints, classes: int) -> None:
        self.images = np.bincount(labels, minlength=classes).astype(float)
        influence = np.zeros(len(labels))
        scores: list[Floats] = []
        sizes: list[Floats] = []
        for sign, given in ((-1, first), (1, second)):
            size: Floats = self.images + np.bincount(given, minlength=classes).astype(float)
            f1: Floats = 2 * np.bincount(labels[given == labels], minlength=classes) / size
            influence += sign * (2 * (given == labels) / size[labels] - (f1 / size)[given]) / classes
            scores.append(f1)
            sizes.append(size)
        self.difference = float((scores[1] - scores[0]).mean())
        self.variances = np.array(
            [influence[labels == c].var(ddof=1) * (labels == c).sum() for c in range(classes)]
        )  # at least two images of each class
        before, after = first == labels, second == labels
        self.gained = np.bincount(labels[after & ~before], minlength=classes).astype(float)
        self.lost = np.bincount(labels[before & ~after], minlength=classes).astype(float)
        self.scores, self.sizes, self.classes = scores, sizes, classes
        self.weight = (2 - scores[1]) / sizes[1] * self.images / classes
        new = np.bincount(second[(second != labels) & (first != second)], minlength=classes)
        self.unseen_false = scores[1] / sizes[1] / classes * (gamma.ppf(1 - LEVEL, new + 1) - new)
        self.accepted = binom.sf(self.gained.sum() - 1, (self.gained + self.lost).sum(), 0.5) <= LEVEL

    def unseen(self, more_lost: int) -> Floats:
        """Return how much macro-F1 each class may have lost beyond what was observed."""
        lower = tango_lower(self.gained, self.lost + more_lost, self.images + more_lost)
        return np.asarray(self.weight * np.maximum((self.gained - self.lost) / self.images - lower, 0))

    def unseen_f1(self) -> Floats:
        """Do the same with the F1 at the limit, of the challenger with fewer hits and of the champion with more."""
        lower = tango_lower(self.gained, self.lost + 1, self.images + 1)
        changed = np.maximum((self.gained - self.lost) / self.images - lower, 0) * self.images
        hits = self.scores[1] * self.sizes[1] / 2
        fewer = np.minimum(changed, hits)
        fall = self.scores[1] - 2 * (hits - fewer) / (self.sizes[1] - fewer)
        rise = changed * (2 - self.scores[0]) / self.sizes[0]
        return np.asarray(np.maximum(fall, rise) / self.classes)

    def bound(self, squared_distances: float) -> float:
        return self.difference - float(np.sqrt(squared_distances))


def _excess(sample: Sample, more_lost: int, false: bool = False) -> Floats:
    squared = sample.unseen(more_lost) ** 2 + (sample.unseen_false**2 if false else 0)
    return np.maximum(squared - Z**2 * sample.variances, 0)


BOUNDS: dict[str, Callable[[Sample], float]] = {
    "variance": lambda s: s.bound(Z**2 * s.variances.sum()),
    "sum of limits": lambda s: s.bound((s.unseen(0) ** 2).sum()),
    "greatest, Tango": lambda s: s.bound(Z**2 * s.variances.sum() + _excess(s, 0).max()),
    "greatest, one more lost": lambda s: s.bound(Z**2 * s.variances.sum() + _excess(s, 1).max()),
    "the same, F1 at the limit": lambda s: s.bound(
        Z**2 * s.variances.sum() + np.maximum(s.unseen_f1() ** 2 - Z**2 * s.variances, 0).max()
    ),
    "one more lost and false positives": lambda s: s.bound(Z**2 * s.variances.sum() + _excess(s, 1, false=True).max()),
    "all, one more lost": lambda s: s.bound(Z**2 * s.variances.sum() + _excess(s, 1).sum()),
}


def measure(title: str, pair: Pair) -> None:
    """Print how often the accuracy test and each bound together promote."""
    rng = np.random.default_rng(0)
    promoted = dict.fromkeys(BOUNDS, 0)
    accepted = 0
    for _ in range(RUNS):
        gate = pair.draw(rng)
        sample = Sample(
            np.asarray(gate.labels, np.int64),
            gate.champion.argmax(axis=1),
            gate.challenger.argmax(axis=1),
            len(pair.sizes),
        )
        if sample.accepted:
            accepted += 1
            for name, bound in BOUNDS.items():
                promoted[name] += bound(sample) > 0
    shares = ", ".join(f"{name} {count / RUNS:.1%}" for name, count in promoted.items())
    print(f"{title}: accuracy test {accepted / RUNS:.0%}; {shares}", flush=True)


def main() -> None:
    four, recalls = {3: 0.37}, (0.8, 0.8, 0.8, 0.85)
    for sizes in ((99, 99, 99, 3), (65, 65, 66, 4), (32, 32, 33, 3), (33, 33, 32, 2)):
        for difference, correlation in ((0.0, 0.0), (0.0, 0.5), (0.0, 0.9), (-0.02, 0.5)):
            pair = Pair(sizes, recalls, compensated(sizes, recalls, four, difference), correlation)
            measure(f"{sizes}, difference {difference:+.2f}, correlation {correlation:g}", pair)
    many, start = (30,) * 4 + (2,) * 6, (0.7,) * 4 + (0.85,) * 6
    fallen = compensated(many, start, dict.fromkeys(range(4, 10), 0.65), 0.0)
    measure("six classes of 2 fall", Pair(many, start, fallen, 0.5))
    shapes: tuple[tuple[int, ...], ...] = ((10,) * 30, (50,) * 4, (97, 97, 97, 9), (90, 90, 90, 30))
    for shape in shapes:
        measure(f"better, {shape}", Pair(shape, (0.9,) * len(shape), (0.95,) * len(shape), 0.5))


if __name__ == "__main__":
    main()
