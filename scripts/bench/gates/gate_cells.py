"""The situations in which the gate is measured, and what is counted in each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.stats import binom

from lesion.promotion.gate import Verdict, decide
from lesion.promotion.non_inferiority import Outcome
from scripts.bench.gates.retraining_chains import (
    SETTINGS,
    lets_a_class_fall,
    promotes_on_one_gate_set,
    promotes_over_generations,
)
from scripts.bench.gates.simulated_models import Pair, compensated
from scripts.bench.gates.worst_populations import LARGE_GROUPS_FALL, WORST, Population

AT_MOST, AT_LEAST = "≤", "≥"
FIRST = SETTINGS.levels.next_level((), 1)
LOSS, NOT_WORSE_AND_BLOCK = 0.05, 1.6449 + 2.8782  # the normal quantiles of the two error levels, 5 % and 0.2 %


@dataclass(frozen=True)
class Cell:
    """One row of the table: a run returns a number, whose mean is compared with the limit."""

    title: str
    run: Callable[[np.random.Generator], float]
    relation: str
    limit: float
    slow: int = 1  # how many times fewer runs it gets


def judge(pair: Pair | Population, rng: np.random.Generator, level: float, earlier: tuple[Pair, ...] = ()) -> Verdict:
    """Let the gate decide about one pair on the newest generation."""
    sets = [one.draw(rng, number) for number, one in enumerate(earlier, 1)]
    newest = pair.draw(rng, len(sets) + 1)
    return decide([*sets, newest], [f"class {c}" for c in range(newest.champion.shape[1])], SETTINGS, level)


def promoted(pair: Pair | Population, level: float, rng: np.random.Generator) -> float:
    return float(judge(pair, rng, level).promoted)


def lets_through(pair: Pair | Population, rng: np.random.Generator) -> float:
    """Return whether the first class, which lost 5 points, is called not worse, or passes without being named."""
    check = next(check for check in judge(pair, rng, FIRST).checks if check.name == "recall/class 0")
    return float(check.outcome == Outcome.HOLDS)


def blocked(pair: Pair, earlier: tuple[Pair, ...], names: tuple[str, ...], rng: np.random.Generator) -> float:
    """Return whether the checks whose names begin so reject a challenger."""
    checks = judge(pair, rng, FIRST, earlier).checks
    return float(any(check.name.startswith(names) and not check.passed for check in checks))


def more_than_exact_test(pair: Pair, level: float, rng: np.random.Generator) -> float:
    """Return 1 where the gate's test alone finds an improvement, minus 0.9 where McNemar's exact test does."""
    gate = pair.draw(rng)
    first, second = (given.argmax(axis=1) == gate.labels for given in (gate.champion, gate.challenger))
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    exact = float(binom.sf(gained - 1, gained + lost, 0.5)) <= level
    checks = decide([gate], [f"class {c}" for c in range(len(pair.sizes))], SETTINGS, level).checks
    return float(next(check for check in checks if check.name == "exact_test").passed) - 0.9 * exact


def third_look(level: float, rng: np.random.Generator) -> float:
    """Return 1 where a look with 100 new images succeeds, minus 1 where a fresh test of all 300 images does."""
    old, new = (even(4, images, 0.9, 0.95, 0.5).draw(rng, number) for number, images in ((1, 50), (2, 25)))
    verdict = decide([old, new], [f"class {c}" for c in range(4)], SETTINGS, level, deciding_since=1)
    right = [
        np.concatenate([getattr(one, model).argmax(axis=1) == one.labels for one in (old, new)])
        for model in ("champion", "challenger")
    ]
    gained, lost = int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum())
    fresh = float(binom.sf(gained - 1, gained + lost, 0.5)) <= level
    return float(next(check for check in verdict.checks if check.name == "exact_test").passed) - float(fresh)


def even(classes: int, images: int, champion: float, challenger: float, correlation: float, group: int = 1) -> Pair:
    return Pair((images,) * classes, (champion,) * classes, (challenger,) * classes, correlation, group)


def _collapses() -> list[Cell]:
    """Macro-F1 truly equal or lower while accuracy rises: rare classes fall, and the others rise to make up for it."""
    shapes: list[tuple[str, tuple[int, ...], tuple[float, ...], dict[int, float]]] = [
        ("300 images, class of 1 %", (99, 99, 99, 3), (0.8, 0.8, 0.8, 0.85), {3: 0.37}),
        ("200 images, class of 2 %", (65, 65, 66, 4), (0.8, 0.8, 0.8, 0.85), {3: 0.37}),
        ("100 images, class of 3 %", (32, 32, 33, 3), (0.8, 0.8, 0.8, 0.85), {3: 0.37}),
        ("50 images, class of 2 images", (24, 24, 2), (0.7, 0.7, 0.85), {2: 0.37}),
        ("100 images, 2 classes, one of 2", (98, 2), (0.6, 0.8), {1: 0.5}),
        ("500 images, class of 1 %", (165, 165, 165, 5), (0.8, 0.8, 0.8, 0.85), {3: 0.37}),
        ("1,000 images, class of 5 %", (317, 317, 316, 50), (0.8, 0.8, 0.8, 0.85), {3: 0.6}),
        ("200 images, 2 classes, one of 25 %", (150, 50), (0.8, 0.85), {1: 0.7}),
        ("300 images, 10 classes, 6 of them of 2", (72, 72, 72, 72, *(2,) * 6), (0.7,) * 4 + (0.85,) * 6,
         dict.fromkeys(range(4, 10), 0.65)),
        ("600 images, 30 classes, 15 fall", (20,) * 30, (0.8,) * 30, dict.fromkeys(range(15), 0.7)),
    ]  # fmt: skip
    cells = []
    variants = ((0.0, 0.5), (0.0, 0.95), (-0.025, 0.0), (-0.05, 0.6))
    for number, (title, sizes, recalls, collapsed) in enumerate(shapes):
        # All variants of the first three, which the gate before this one promoted most often.
        for difference, correlation in variants if number < 3 else variants[number % 2 :: 2]:
            pair = Pair(sizes, recalls, compensated(sizes, recalls, collapsed, difference), correlation)
            name = f"macro-F1 {difference:+.3f}, correlation {correlation:g}: {title}"
            cells.append(Cell(name, partial(promoted, pair, FIRST), AT_MOST, 0.05))
    return cells


def _equals() -> list[Cell]:
    """Two models that are right equally often."""
    rows = ((2, 25, 0.9, 0.5, 1), (4, 50, 0.9, 0.0, 1), (4, 175, 0.94, 0.95, 1), (30, 10, 0.8, 0.5, 1),
            (4, 20, 0.85, 0.3, 4))  # fmt: skip
    return [
        Cell(
            f"no difference, correlation {correlation:g}: {classes} classes of {images}, groups of {group}",
            partial(promoted, even(classes, images, right, right, correlation, group), FIRST), AT_MOST, 0.05,
        )
        for classes, images, right, correlation, group in rows
    ]  # fmt: skip


def _lost_classes() -> list[Cell]:
    """A class with enough images lost 5 points, while the others gained."""
    cells = []
    for before, correlation in ((0.95, 0.9), (0.95, 0.5), (0.8, 0.8)):
        after = before - LOSS
        both = min(before * after + correlation * (before * (1 - before) * after * (1 - after)) ** 0.5, after)
        images = int(np.ceil((before + after - 2 * both) * (NOT_WORSE_AND_BLOCK / LOSS) ** 2))
        pair = Pair((images, 300, 300), (before, 0.8, 0.8), (after, 0.9, 0.9), correlation)
        title = f"a class of {images} images falls from {before} to {after:.2f}, correlation {correlation}"
        cells.append(Cell(title, partial(lets_through, pair), AT_MOST, 0.05))
    for step in (0.01, 0.012, 0.02):
        run = partial(lets_a_class_fall, step=step)
        title = f"ten retrainings, a class falls by {100 * step:g} points at each"
        cells.append(Cell(title, run, AT_MOST, 0.05, slow=10))
    return cells


def _worst() -> list[Cell]:
    """What was found by those who tried to refute the gate."""
    through = "15 patients of 20 images beside 1,500 single ones: the class falls by 5 points"
    return [
        *(Cell(f"macro-F1 equal or lower: {title}", partial(promoted, population, FIRST), AT_MOST, 0.05)
          for title, population in WORST.items()),
        Cell(through, partial(lets_through, LARGE_GROUPS_FALL), AT_MOST, 0.05),
    ]  # fmt: skip


def _costs() -> list[Cell]:
    """How often the checks against harm reject a challenger that is better everywhere."""
    small = tuple(even(4, 50, 0.9, 0.9, 0.5) for _ in range(10))
    one = even(4, 100, 0.85, 0.95, 0.5)
    harm = ("recall/", "best_recall/", "recall_floor/")
    return [
        Cell("class checks reject: 4 classes of 150, .94 → .95", partial(blocked, even(4, 150, 0.94, 0.95, 0.5), (),
             harm), AT_MOST, 0.05),
        Cell("class checks reject: 30 classes of 150, .94 → .95", partial(blocked, even(30, 150, 0.94, 0.95, 0.5), (),
             harm), AT_MOST, 0.05, slow=4),
        Cell("class checks reject: 30 classes of 10, .90 → .95", partial(blocked, even(30, 10, 0.9, 0.95, 0.5), (),
             harm), AT_MOST, 0.05),
        Cell("ten earlier generations without a change reject", partial(blocked, one, small, ("earlier",)), AT_MOST,
             0.05, slow=4),
        Cell("all checks against harm: ten earlier generations", partial(blocked, one, small,
             (*harm, "earlier", "brier")), AT_MOST, 0.05, slow=4),
    ]  # fmt: skip


def _power() -> list[Cell]:
    cells = []
    for before, after, images in ((0.90, 0.95, 200), (0.94, 0.97, 400), (0.94, 0.97, 700), (0.94, 0.97, 200)):
        pair = even(4, images // 4, before, after, 0.5)
        title = f"{before:.2f} → {after:.2f} on {images} images"
        for level in (0.05, FIRST):
            run = partial(more_than_exact_test, pair, level)
            cells.append(Cell(f"test alone minus 0.9 × exact test, level {level:g}: {title}", run, AT_LEAST, 0.0))
        cells.append(Cell(f"whole gate, level {FIRST:g}: {title}", partial(promoted, pair, FIRST), AT_LEAST, 0.0))
    third = SETTINGS.levels.generation_level / 15
    cells.append(Cell("look with 100 new images minus a fresh test of all", partial(third_look, third), AT_LEAST, 0.0))
    return cells


def _chains() -> list[Cell]:
    return [
        Cell("200 retrainings without improvement on one generation", promotes_on_one_gate_set, AT_MOST, 0.05, slow=4),
        Cell("20 generations with one each", promotes_over_generations, AT_MOST, 0.10, slow=4),
    ]


CELLS = (*_collapses(), *_equals(), *_lost_classes(), *_worst(), *_costs(), *_power(), *_chains())
