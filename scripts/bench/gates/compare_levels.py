"""Compare schemes that give each look a level: ``python -m scripts.bench.gates.compare_levels``.

Test statistics are normal; an improvement is found with 80 % at the level 5 %. SAFFRON (Ramdas et al., 2018) and
ADDIS-like levels (Tian and Ramdas, 2019) let p-values above ``candidate`` alone use up the series. All but the first
scheme also keep to 5 % for each generation. The last lines compare a betting e-value with McNemar's exact test.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.special import betainc, betaln
from scipy.stats import binom, norm

from scripts.bench.gates.simulated_models import Floats

RUNS, SHIFT, SHARED = 1500, norm.isf(0.05) - norm.ppf(0.2), 0.5
GENERATION, RATE = 0.05, 0.10


def series(first: float, power: float, length: int = 4000) -> Floats:
    """Return shares that sum to 1."""
    rest = np.arange(2, length + 1.0) ** -power
    return np.concatenate([[first], (1 - first) * rest / rest.sum()])


IN_GENERATION = series(0.6, 2.0)


@dataclass
class AlphaSpending:
    """The scheme before: each generation spends 4.25 %, 90 % of what is left at each look."""

    looks: dict[int, int] = field(default_factory=dict)

    def level(self, generation: int) -> float:
        level = float(0.0425 * 0.9 * 0.1 ** self.looks.get(generation, 0))
        return level if level >= 0.0003 else 0.0

    def tell(self, generation: int, level: float, p_value: float) -> None:
        self.looks[generation] = self.looks.get(generation, 0) + 1


@dataclass
class Online:
    """LORD++ with ``candidate`` 0 and ``discard`` 1; SAFFRON with a higher candidate; ADDIS-like with both."""

    shares: Floats
    candidate: float = 0.0
    discard: float = 1.0
    uses: list[bool] = field(default_factory=list)  # whether each look moved along the series
    promotions: list[int] = field(default_factory=list)
    looks: dict[int, int] = field(default_factory=dict)

    def level(self, generation: int) -> float:
        starts = [0, *self.promotions[1:]]
        level = RATE * sum(self.shares[sum(self.uses[start:])] for start in starts) * (self.discard - self.candidate)
        return float(min(level, GENERATION * IN_GENERATION[self.looks.get(generation, 0)]))

    def tell(self, generation: int, level: float, p_value: float) -> None:
        self.uses.append(self.candidate < p_value <= self.discard)
        self.looks[generation] = self.looks.get(generation, 0) + 1
        if p_value <= level:
            self.promotions.append(len(self.uses))


SCHEMES: dict[str, Callable[[], AlphaSpending | Online]] = {
    "alpha spending": AlphaSpending,
    "LORD++": lambda: Online(series(0.3, 1.3)),
    "SAFFRON, candidates below 0.1": lambda: Online(series(0.34, 1.3), 0.1),
    "ADDIS-like, 0.1 and 0.5": lambda: Online(series(0.7, 1.3), 0.1, 0.5),
}


def simulate(scheme: AlphaSpending | Online, better: Floats, p_values: Floats) -> tuple[Floats, float]:
    """Return whether each look found an improvement, ``(generations, looks)``, and the share of false discoveries."""
    found, false = np.zeros(better.shape), 0
    for generation, look in np.ndindex(better.shape):
        level, p_value = scheme.level(generation), float(p_values[generation, look])
        scheme.tell(generation, level, p_value)
        if p_value <= level:
            found[generation, look] = better[generation, look]
            false += not better[generation, look]
    return found, false / max(1.0, found.sum() + false)


def report(title: str, generations: int, looks: int, improvements: float, runs: int = RUNS) -> None:
    rng = np.random.default_rng(0)
    better = rng.random((runs, generations, looks)) < improvements
    shared = rng.standard_normal((runs, generations, 1)) * SHARED**0.5
    single = rng.standard_normal(better.shape) * (1 - SHARED) ** 0.5
    p_values = norm.sf(shared + single + SHIFT * better)
    print(title)
    for name, scheme in SCHEMES.items():
        results = [simulate(scheme(), *run) for run in zip(better, p_values, strict=True)]
        found = np.sum([found for found, _ in results], axis=0)
        false = np.array([share for _, share in results])
        text = f"any false {(false > 0).mean():.1%}, false discoveries {false.mean():.1%}"
        if improvements:
            by_look = (found.sum(axis=0) / np.maximum(better.sum(axis=(0, 1)), 1)).round(2)
            text += f", found {found.sum() / better.sum():.0%}, by look {by_look}"
        print(f"  {name:30} {text}")


def compare_e_value(images: int, gain: float, loss: float, level: float, concentration: float = 1.0) -> None:
    """Print how often a bet on the changed images succeeds, mixed over a beta distribution above one half."""
    rng = np.random.default_rng(0)
    gained, lost, _ = rng.multinomial(images, [gain, loss, 1 - gain - loss], size=20_000).T
    a, b = concentration + gained, concentration + lost
    above = np.log(np.maximum(1 - betainc(a, b, 0.5), 1e-300))
    evidence = (gained + lost) * np.log(2) + betaln(a, b) + above - betaln(concentration, concentration) + np.log(2)
    exact = (binom.sf(gained - 1, gained + lost, 0.5) <= level).mean()
    print(
        f"  {images} images, level {level}: exact test {exact:.0%}, e-value {(evidence >= -np.log(level)).mean():.0%}"
    )


def main() -> None:
    report("20 generations, one look each, no improvement", 20, 1, 0.0, 2 * RUNS)
    for share in (0.2, 0.5, 0.8):
        report(f"20 generations, one look each, {share:.0%} improvements", 20, 1, share)
    report("one generation, three looks, all improvements", 1, 3, 1.0)
    report("one generation, 200 looks, no improvement", 1, 200, 0.0, RUNS // 3)
    print("First look, a betting e-value")
    for images, gain, loss in ((200, 0.0623, 0.0123), (400, 0.0435, 0.0135), (700, 0.0435, 0.0135)):
        for level in (0.05, 0.025):
            compare_e_value(images, gain, loss, level)


if __name__ == "__main__":
    main()
