import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lesion.core.errors import ConfigError
from lesion.promotion.alpha_spending import AlphaSpending, alpha_of_look
from lesion.promotion.gate_settings import GateSettings
from tests.support.paths import REPOSITORY


def test_levels_never_sum_to_more_than_the_total() -> None:
    levels = [alpha_of_look(number, total=0.05, share=0.9) for number in range(1, 300)]
    assert sum(levels) == pytest.approx(0.05, rel=1e-12)
    assert sum(levels) <= 0.05 * (1 + 1e-12)
    assert levels[:3] == pytest.approx([0.045, 0.0045, 0.00045])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_smaller_share_spreads_the_same_total(share: float) -> None:
    spending = AlphaSpending(total=0.1, share=share, min_alpha=1e-5)
    levels = [spending.alpha(number) for number in range(1, spending.looks + 1)]
    assert levels == sorted(levels, reverse=True)
    assert 0.0999 < sum(levels) <= 0.1


def test_a_generation_is_spent_when_the_next_level_is_too_low() -> None:
    spending = AlphaSpending()
    assert spending.looks == 3
    assert [spending.looks_left(used) for used in range(5)] == [3, 2, 1, 0, 0]
    assert [not spending.looks_left(used) for used in range(5)] == [False, False, False, True, True]
    assert spending.alpha(3) == pytest.approx(0.0003825)
    assert spending.alpha(4) == 0


def test_looks_are_counted_from_one() -> None:
    with pytest.raises(ConfigError, match="look 0"):
        alpha_of_look(0, total=0.05, share=0.9)


@pytest.mark.parametrize(
    "values", [{"total": 0}, {"total": 1}, {"share": 0}, {"share": 1}, {"min_alpha": 0}, {"min_alpha": 0.05}]
)
def test_refuses_budgets_that_make_no_sense(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="makes no sense"):
        AlphaSpending(**values)


def test_refuses_a_budget_without_any_look() -> None:
    with pytest.raises(ConfigError, match="nothing could ever be promoted"):
        AlphaSpending(share=0.1, min_alpha=0.01)


def test_the_preset_is_what_the_code_defaults_to() -> None:
    assert instantiate(OmegaConf.load(REPOSITORY / "configs" / "gate" / "default.yaml")) == GateSettings()
