import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lesion.core.errors import ConfigError
from lesion.promotion.gate_levels import GateLevels, RecordedLook
from lesion.promotion.gate_settings import GateSettings
from tests.support.paths import REPOSITORY


def looks_at(generations, levels, promoted=()):
    """The looks that follow each other at some generations, without a promotion but for the numbers ``promoted``."""
    taken: list[RecordedLook] = []
    for number, generation in enumerate(generations):
        taken.append(RecordedLook(generation, levels.next_level(taken, generation), number in promoted))
    return taken


def test_the_first_look_gets_three_hundredths() -> None:
    assert GateLevels().next_level((), 1) == pytest.approx(min(0.05 * 0.6, 0.10 * 0.3))


def test_levels_of_one_generation_never_sum_to_more_than_its_level() -> None:
    levels = GateLevels(min_alpha=1e-12)
    alphas = [look.alpha for look in looks_at([1] * 300, levels)]
    assert 0.045 < sum(alphas) <= 0.05
    assert alphas == sorted(alphas, reverse=True)
    # The rest of 40 % falls as 1/k² over k = 2, 3, …, whose squares' reciprocals sum to π²/6 - 1.
    rest = 0.05 * 0.4 / (np.pi**2 / 6 - 1)
    assert alphas[1:4] == pytest.approx([rest / 4, rest / 9, rest / 16], rel=1e-3)


def test_promotions_do_not_renew_the_level_of_a_generation() -> None:
    alphas = [look.alpha for look in looks_at([1] * 300, GateLevels(min_alpha=1e-12), promoted=range(0, 300, 2))]
    assert sum(alphas) <= 0.05


def test_levels_of_all_generations_sum_to_the_lifetimes_rate_if_nothing_is_promoted() -> None:
    alphas = [look.alpha for look in looks_at(range(2000), GateLevels(min_alpha=1e-12))]
    assert 0.085 < sum(alphas) <= 0.10
    assert alphas[1] / alphas[3] == pytest.approx(2**1.3)  # of the second and the fourth look


def test_promotions_earn_the_lifetimes_rate_from_the_second_on() -> None:
    levels = GateLevels()
    none, one, two = (
        [RecordedLook(number, 0.03, number < promotions) for number in range(3)] for promotions in (0, 1, 2)
    )
    assert levels.next_level(one, 9) == levels.next_level(none, 9)
    # The look after next of the promotion's: the second share of the series, as if it had begun with the promotion.
    start = [RecordedLook(0, 0.03)]
    assert levels.next_level(two, 9) == pytest.approx(levels.next_level(none, 9) + levels.next_level(start, 9))
    assert levels.next_level([*two, RecordedLook(3, 0.01, True)], 9) == pytest.approx(0.03)  # the generation's limit


def test_a_generation_is_exhausted_when_the_next_level_is_too_low() -> None:
    levels = GateLevels()
    assert levels.looks_left((), 1) == 17
    taken = looks_at([1] * 17, levels)
    assert taken[-1].alpha >= levels.min_alpha
    assert levels.next_level(taken, 1) == 0
    assert levels.looks_left(taken[:7], 1) == 10
    assert levels.next_level(taken, 2) > levels.min_alpha


def test_looks_under_an_earlier_rule_count_with_what_they_spent() -> None:
    taken = [RecordedLook(1, 0.03825), RecordedLook(1, 0.003825)]
    levels = GateLevels(first_share=0.9)
    assert levels.next_level(taken, 1) <= 0.05 - 0.03825 - 0.003825
    assert GateLevels().next_level([RecordedLook(1, 0.04995)], 1) == 0


@pytest.mark.parametrize("generations", [1, 2, 3, 10])
def test_looks_of_each_generation_alone_do_not_break_the_guarantee_of_the_lifetime(generations: int) -> None:
    """Earlier versions spent 0.0422 on each generation, however many there were: after three nothing is left of 0.1."""
    levels = GateLevels()
    spent = [RecordedLook(one, 0.03825 * 0.1**look) for one in range(generations) for look in range(3)]
    taken = list(spent)
    for generation in range(100, 400):
        taken.append(RecordedLook(generation, levels.next_level(taken, generation)))
    assert sum(look.alpha for look in taken) <= max(0.1, sum(look.alpha for look in spent)) + 1e-12
    assert (levels.next_level(spent, 100) > 0) == (generations < 3)


def test_a_second_promotion_earns_new_level_where_earlier_rules_spent_too_much() -> None:
    spent = [RecordedLook(one, 0.03825 * 0.1**look) for one in range(3) for look in range(3)]
    promoted = [*spent, RecordedLook(3, 0.01, True), RecordedLook(4, 0.01, True)]
    assert GateLevels().next_level(spent, 5) == 0
    assert 0 < GateLevels().next_level(promoted, 5) <= 0.2 - sum(look.alpha for look in promoted)


def test_looks_under_this_rule_are_limited_by_lord_alone() -> None:
    """The limit for what earlier rules spent is never the lower one: computed by the series of LORD++ itself."""
    rng, levels = np.random.default_rng(1), GateLevels(min_alpha=1e-12, generation_level=0.5)
    tail = sum(k**-1.3 for k in range(2, 10_001))
    taken: list[RecordedLook] = []
    for number in range(200):
        starts = [-1, *[n for n, look in enumerate(taken) if look.promoted][1:]]
        series = [0.3 if number - start == 1 else 0.7 * (number - start) ** -1.3 / tail for start in starts]
        level = levels.next_level(taken, number)
        assert level == pytest.approx(min(0.5 * 0.6, 0.1 * sum(series)))
        taken.append(RecordedLook(number, level, bool(rng.random() < 0.2)))


def test_luck_promotes_as_seldom_as_promised() -> None:
    """Simulated: 20 generations with one retraining each, none of which is an improvement, promote anything in 10 %."""
    rng, levels, runs = np.random.default_rng(0), GateLevels(), 4000
    alphas = np.array([look.alpha for look in looks_at(range(20), levels)])
    lucky = (rng.random((runs, 20)) <= alphas).any(axis=1).mean()
    assert 0.04 < lucky < 0.10


@pytest.mark.parametrize(
    "values",
    [{"generation_level": 0}, {"lifetime_rate": 1}, {"first_share": 0}, {"lifetime_first_share": 1}, {"min_alpha": 0}],
)
def test_refuses_levels_that_make_no_sense(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="make no sense"):
        GateLevels(**values)


def test_refuses_levels_without_any_look() -> None:
    with pytest.raises(ConfigError, match="nothing could ever be promoted"):
        GateLevels(min_alpha=0.04)


def test_the_preset_is_what_the_code_defaults_to() -> None:
    assert instantiate(OmegaConf.load(REPOSITORY / "configs" / "gate" / "default.yaml")) == GateSettings()
