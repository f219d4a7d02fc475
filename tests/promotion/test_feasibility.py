import numpy as np
import pytest
from scipy.stats import binom

from lesion.promotion.feasibility import LIKELY, assess, chance_of_proof


def test_the_chance_is_that_of_a_simulated_exact_test() -> None:
    """.90 → .95 on 200 images with a correlation of 0.5: 6.2 % get better and 1.2 % worse."""
    both = 0.9 * 0.95 + 0.5 * (0.9 * 0.1 * 0.95 * 0.05) ** 0.5
    gain, loss = 0.95 - both, 0.9 - both
    assert (gain, loss) == pytest.approx((0.0623, 0.0123), abs=1e-4)
    drawn = np.random.default_rng(0).multinomial(200, [gain, loss, 1 - gain - loss], size=40_000)
    proved = binom.sf(drawn[:, 0] - 1, drawn[:, 0] + drawn[:, 1], 0.5) <= 0.05
    assert chance_of_proof(200, 0.9, 0.95, 0.05) == pytest.approx(proved.mean(), abs=0.01)


@pytest.mark.parametrize(
    ("groups", "champion", "challenger", "level", "power"),
    [(200, 0.90, 0.95, 0.05, 0.80), (400, 0.94, 0.97, 0.05, 0.87), (700, 0.94, 0.97, 0.025, 0.96),
     (200, 0.94, 0.97, 0.025, 0.39)],
)  # fmt: skip
def test_powers_of_an_exact_paired_test(groups, champion, challenger, level, power) -> None:
    """The values were computed by somebody else for the exact test; the conditional one has a few points less."""
    assert power - 0.1 < chance_of_proof(groups, champion, challenger, level) < power + 0.01


def test_without_a_difference_the_chance_is_within_the_level() -> None:
    assert 0 < chance_of_proof(300, 0.9, 0.9, 0.03) <= 0.03


def test_a_gate_set_of_common_size() -> None:
    one = assess(250, 200, 0.03, 0.9)
    assert (one.possible, one.accuracy_known, one.images, one.groups) == (True, True, 250, 200)
    assert [chance.rise for chance in one.chances] == [0.01, 0.02, 0.05]
    assert [chance.probability for chance in one.chances] == sorted(chance.probability for chance in one.chances)
    assert one.likely_rise is not None
    assert chance_of_proof(200, 0.9, 0.9 + one.likely_rise, 0.03) >= LIKELY
    assert chance_of_proof(200, 0.9, 0.9 + one.likely_rise - 0.005, 0.03) < LIKELY
    assert one.more_groups
    assert chance_of_proof(200 + one.more_groups, 0.9, 0.95, 0.03) >= LIKELY > chance_of_proof(200, 0.9, 0.95, 0.03)
    assert f"{one.more_groups:,} more groups" in one.reason


def test_a_large_gate_set_needs_no_more_images() -> None:
    assert assess(2000, 2000, 0.03, 0.9).more_groups == 0


def test_an_unknown_champion_is_assumed_to_be_right_nine_times_in_ten() -> None:
    one = assess(200, 200, 0.03)
    assert (one.accuracy, one.accuracy_known) == (0.9, False)
    assert "as is assumed" in one.reason


@pytest.mark.parametrize(
    ("groups", "level", "improvable", "words"),
    [(200, 0.0, None, "budget is used up"), (3, 0.03, None, "too small"), (200, 0.03, 2, "errs in only 2 of")],
)
def test_a_look_that_cannot_promote_anything(groups, level, improvable, words) -> None:
    one = assess(groups, groups, level, 0.9, improvable)
    assert not one.possible
    assert one.chances == ()
    assert words in one.reason


def test_a_champion_that_errs_often_enough_can_be_improved_on() -> None:
    assert assess(200, 200, 0.03, 0.9, 20).possible
