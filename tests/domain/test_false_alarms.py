"""The promise of the domain: of images like the training images at most the level is called foreign.

Each image is a row of random numbers, half of whose variance the images of one patient share. No picture is made.
"""

import numpy as np
import pytest

from lesion.domain.appearance import NUMBERS
from lesion.domain.domain import Descriptions, Domain
from lesion.domain.turned_pictures import WIDTH

pytestmark = pytest.mark.slow  # 60 domains are fitted

SLICES = 4


def draw(rng: np.random.Generator, patients: int) -> tuple[Descriptions, np.ndarray]:
    """Images of patients: half of the variance of each number is that of the patient."""

    def numbers(width: int, middle: float) -> np.ndarray:
        own = rng.normal(size=(patients, 1, width)) + rng.normal(size=(patients, SLICES, width))
        return (middle + own.reshape(patients * SLICES, width)).astype(np.float32)

    images = Descriptions(numbers(24, 5.0), numbers(NUMBERS, 0.0), np.abs(numbers(WIDTH, 1.0)))
    return images, np.repeat(np.arange(patients), SLICES)


@pytest.mark.parametrize(("training", "calibration"), [(40, 10), (80, 25), (140, 36)])
def test_the_share_of_false_alarms_is_at_most_the_level(training: int, calibration: int) -> None:
    """On average over 20 draws of small sets, and hardly ever far from it."""
    shares = []
    for seed in range(20):
        rng = np.random.default_rng(1000 * training + seed)
        known, groups = draw(rng, training)
        domain = Domain.fit(known, draw(rng, calibration)[0], groups)
        new, _ = draw(rng, 200)
        judgement = domain.judge_descriptions(new, 0.05)
        shares.append((~judgement.inside).mean())
    error = np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) < 0.05 + 3 * error
    assert np.quantile(shares, 0.9) < 0.12
