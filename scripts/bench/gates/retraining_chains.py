"""Chains of retrainings: many without improvement, and ten by which one class falls step by step."""

from dataclasses import replace

import numpy as np
from scipy.stats import norm

from lesion.promotion.comparison import GateSet
from lesion.promotion.gate import decide
from lesion.promotion.gate_levels import RecordedLook
from lesion.promotion.gate_settings import GateSettings
from lesion.promotion.non_inferiority import Outcome
from scripts.bench.gates.simulated_models import Pair, answer

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
SETTINGS = GateSettings()


def promotes_on_one_gate_set(rng: np.random.Generator, retrainings: int = 200) -> bool:
    """Return whether any of many retrainings without improvement is promoted on one generation."""
    champion = Pair((50, 50, 50, 50), (0.9,) * 4, (0.9,) * 4, 0.5).draw(rng)
    right = champion.champion.argmax(axis=1) == champion.labels
    looks: list[RecordedLook] = []
    for _ in range(retrainings):
        level = SETTINGS.levels.next_level(looks, 1)
        if not level:
            return False
        # As often right as the champion, with a correlation of 0.5.
        kept = np.where(right, 0.95, 0.45)
        hit = rng.random(len(right)) < kept
        given = np.where(hit, champion.labels, (champion.labels + 1) % len(CLASSES))
        if decide([replace(champion, challenger=answer(given, 4))], CLASSES, SETTINGS, level).promoted:
            return True
        looks.append(RecordedLook(1, level))
    return False


def promotes_over_generations(rng: np.random.Generator, generations: int = 20, images: int = 50) -> bool:
    """Return whether anything is promoted if each generation has one retraining without improvement.

    Each look has the images of all generations, since none was promoted.
    """
    sets: list[GateSet] = []
    looks: list[RecordedLook] = []
    for number in range(1, generations + 1):
        new = Pair((images,) * 4, (0.9,) * 4, (0.9,) * 4, 0.5).draw(rng, number)
        sets = [*(_another_challenger(rng, one) for one in sets), new]
        level = SETTINGS.levels.next_level(looks, number)
        if not level:
            return False
        if decide(sets, CLASSES, SETTINGS, level, deciding_since=1).promoted:
            return True
        looks.append(RecordedLook(number, level))
    return False


def _another_challenger(rng: np.random.Generator, gate: GateSet) -> GateSet:
    right = gate.champion.argmax(axis=1) == gate.labels
    hit = rng.random(len(right)) < np.where(right, 0.95, 0.45)
    return replace(gate, challenger=answer(np.where(hit, gate.labels, (gate.labels + 1) % len(CLASSES)), 4))


def lets_a_class_fall(rng: np.random.Generator, step: float, images: int = 300, retrainings: int = 10) -> bool:
    """Return whether ten retrainings let one class fall by 5 points below its best level without naming it.

    Each retraining loses ``step`` of the class's recall and gains in the others, and opens a generation of ``images``
    images of each class. A promotion counts if the challenger's recall is 5 points or more below the highest of any
    champion so far, and the check against the best model so far calls the class not worse.
    """
    recalls = [np.array([0.80, 0.80, 0.80, 0.95]), *(
        np.array([0.80 + 0.02 * k] * 3 + [0.95 - step * k]) for k in range(1, retrainings + 1)
    )]  # fmt: skip
    models = _correlated_hits(rng, recalls, images * retrainings)
    champion, best = 0, dict.fromkeys(range(4), 0)
    highest = recalls[0][3]
    for k in range(1, retrainings + 1):
        sets = [_generation(models, number, images, (champion, k), best) for number in range(k)]
        verdict = decide(sets, CLASSES, SETTINGS, 0.03)
        if not verdict.promoted:
            continue
        outcomes = {check.name: check.outcome for check in verdict.checks}
        judged = outcomes.get("best_recall/pituitary", outcomes["recall/pituitary"])
        if recalls[k][3] <= highest - 0.05 + 1e-9 and judged == Outcome.HOLDS:
            return True
        champion = k
        best |= {CLASSES.index(label): k for label in verdict.improved}
    return False


def _correlated_hits(rng: np.random.Generator, recalls: list[np.ndarray], images: int) -> np.ndarray:
    """Draw whether each model is right on each image of each class, ``(models, 4, images)``.

    Each model's evidence is 0.95 of its predecessor's and noise of its own.
    """
    evidence = rng.standard_normal((4, images))
    hits = []
    for recall in recalls:
        hits.append(evidence < norm.ppf(recall)[:, None])
        evidence = 0.95 * evidence + (1 - 0.95**2) ** 0.5 * rng.standard_normal((4, images))
    return np.stack(hits)


def _generation(models: np.ndarray, number: int, images: int, pair: tuple[int, int], best: dict[int, int]) -> GateSet:
    part = models[:, :, number * images : (number + 1) * images]
    labels = np.repeat(np.arange(4), images)
    given = [np.where(part[model].ravel(), labels, (labels + 1) % 4) for model in pair]
    best_hits = np.concatenate([part[best[c], c] for c in range(4)])
    names = [f"{number}-{row}" for row in range(len(labels))]
    groups = np.arange(len(labels)) + 1_000_000 * number
    return GateSet(number + 1, labels, groups, answer(given[0], 4), answer(given[1], 4), names, best_hits)
