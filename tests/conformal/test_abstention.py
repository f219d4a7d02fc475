"""Abstention: the promise over many draws, by a simulation that knows the truth, and the cases at the ends."""

import numpy as np
import pytest

from lesion.conformal.abstention import LEAST_CONFIDENCE, Abstention


def drawn(
    rng: np.random.Generator, groups: int, sizes: int = 1, risk: str = "falling"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidences from 0.5 to 1 of two classes; images of a group agree. See :func:`true_error`."""
    confidence = 0.5 + 0.5 * rng.random(groups) ** 0.3
    right = rng.random(groups) >= error_at(confidence, risk)
    rows = np.repeat(np.arange(groups), rng.integers(1, sizes + 1, groups))
    probabilities = np.stack([confidence, 1 - confidence], axis=1)[rows].astype(np.float32)
    return probabilities, np.where(right, 0, 1)[rows], rows


def error_at(confidence: np.ndarray, risk: str) -> np.ndarray:
    """How often an answer of a confidence is wrong; ``flat`` is the hardest case, just above what is promised."""
    error: np.ndarray = (1 - confidence) ** 1.5 if risk == "falling" else np.full_like(confidence, 0.0501)
    return error


def true_error(confidence: float, risk: str) -> float:
    """The share of wrong answers above a confidence, integrated over the distribution of :func:`drawn`."""
    values = 0.5 + 0.5 * np.linspace(0, 1, 20_001) ** 0.3
    return float(error_at(values[values >= confidence], risk).mean())


@pytest.mark.parametrize("risk", ["falling", "flat"])
@pytest.mark.parametrize(("groups", "sizes"), [(90, 1), (300, 4), (600, 1)])
def test_the_promised_error_holds_in_95_percent_of_200_calibrations(groups: int, sizes: int, risk: str) -> None:
    rng = np.random.default_rng(groups)
    draws, broken, promised = 200, 0, 0
    for _ in range(draws):
        rule = Abstention.fit(*drawn(rng, groups, sizes, risk), error=0.05)
        promised += rule.confidence is not None
        broken += rule.confidence is not None and true_error(rule.confidence, risk) > 0.05
    assert broken <= 0.05 * draws, broken
    if risk == "falling" and groups >= 300:
        assert promised > draws / 2  # the promise is of use, and not only true because nothing is promised


def test_the_lowest_confidence_that_passes_is_taken() -> None:
    """Of 400 answers the 200 less confident ones are wrong; the shares that are tried go up by 2 %."""
    confidence = np.linspace(0.99, 0.6, 400)
    probabilities = np.stack([confidence, 1 - confidence], axis=1).astype(np.float32)
    labels = np.repeat([0, 1], 200)
    rule = Abstention.fit(probabilities, labels, np.arange(400))
    assert rule.confidence is not None
    # Half of them pass; with the next 8, which are wrong, 9 of 209 are, and as few would be in 40 % of cases.
    assert rule.confidence == pytest.approx(confidence[200], abs=1e-6)
    assert (rule.abstains(0.6), rule.abstains(0.9)) == (True, False)
    assert rule.notes() == []


def test_all_right_is_enough_from_86_groups_on() -> None:
    """A quarter of the risk is 0.0125, and 0.95 to the power of 86 is 0.0121."""
    for groups, confidence in ((85, None), (86, LEAST_CONFIDENCE)):
        sure = np.repeat(np.linspace(0.6, 0.99, groups), 3)
        probabilities = np.stack([sure, 1 - sure], axis=1).astype(np.float32)
        rule = Abstention.fit(probabilities, np.zeros(3 * groups, dtype=int), np.arange(3 * groups) // 3)
        assert (rule.confidence, rule.groups) == (confidence, groups)
        assert (rule.abstains(0.59), rule.abstains(0.61)) == (True, False)
        assert bool(rule.notes()) == (confidence is None)


def test_a_model_that_guesses_promises_nothing() -> None:
    rng = np.random.default_rng(2)
    probabilities = np.tile(np.array([0.99, 0.01], np.float32), (400, 1))
    rule = Abstention.fit(probabilities, rng.integers(0, 2, 400), np.arange(400))
    assert rule.confidence is None
    assert "400 groups of calibration images do not show" in rule.notes()[0]


def test_what_is_written_is_read_back_and_other_values_are_refused() -> None:
    rule = Abstention.fit(*drawn(np.random.default_rng(3), 600))
    assert Abstention.from_json(rule.to_json()) == rule
    for changes in ({"confidence": 2.0}, {"error": float("nan")}, {"risk": "small"}, {"groups": None}):
        with pytest.raises((ValueError, TypeError, KeyError)):
            Abstention.from_json(rule.to_json() | changes)
