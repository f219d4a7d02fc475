import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import beta, binom, norm

from lesion.promotion.score_limits import cautious_lower_limit, lower_limit, score_statistic, upper_limit

Z = float(norm.isf(0.05))


def test_published_interval() -> None:
    """Airway hyper-responsiveness before and after a transplantation (Bentur et al., 2009), 1 and 7 of 21 changed.

    Fagerland, Lydersen and Laake (2014), "Recommended tests and confidence intervals for paired binomial proportions",
    Statistics in Medicine 33, give -0.517 to -0.026 for Tango's interval.
    """
    z = float(norm.isf(0.025))
    assert lower_limit(1, 7, 21, z) == pytest.approx(-0.517, abs=5e-4)
    assert upper_limit(1, 7, 21, z) == pytest.approx(-0.026, abs=5e-4)


@pytest.mark.parametrize(
    ("better", "worse", "images", "difference"), [(1, 7, 21, -0.1), (12, 2, 54, 0.05), (0, 3, 9, -0.4)]
)
def test_the_statistic_is_that_of_the_likeliest_shares(better, worse, images, difference) -> None:
    """An independent maximization of the trinomial likelihood under the supposed difference."""

    def negative(share_worse):
        share_better = share_worse + difference
        same = 1 - share_better - share_worse
        terms = ((better, share_better), (worse, share_worse), (images - better - worse, same))
        return -sum(count * np.log(share) for count, share in terms if count)

    low, high = max(0, -difference), (1 - difference) / 2
    share = minimize_scalar(negative, bounds=(low + 1e-12, high - 1e-12), method="bounded", options={"xatol": 1e-12}).x
    variance = images * (2 * share + difference - difference**2)
    expected = (better - worse - images * difference) / np.sqrt(variance)
    values = (np.array(float(value)) for value in (better, worse, images, difference))
    assert score_statistic(*values) == pytest.approx(expected, rel=1e-4)


def test_without_a_changed_image_the_limit_has_a_closed_form() -> None:
    """Then the statistic of a loss d is n d / sqrt(n d (1 - d)), which is z at d = z² / (n + z²)."""
    assert lower_limit(0, 0, [3, 50, 400], Z) == pytest.approx([-(Z**2) / (n + Z**2) for n in (3, 50, 400)])


def test_no_difference_is_excluded_where_mcnemars_test_rejects() -> None:
    """Under no difference the statistic is McNemar's, (b - c) / sqrt(b + c)."""
    for better, worse in ((9, 2), (8, 2), (7, 2), (30, 18), (30, 19), (30, 20)):
        rejects = (better - worse) / np.sqrt(better + worse) > Z
        assert (lower_limit(better, worse, 300, Z) > 0) == rejects


def test_limits_mirror_each_other_and_enclose_the_difference() -> None:
    assert upper_limit([1, 0], [7, 2], [21, 60], Z) == pytest.approx(-lower_limit([7, 2], [1, 0], [21, 60], Z))
    assert lower_limit(1, 7, 21, Z) < -6 / 21 < upper_limit(1, 7, 21, Z)


@pytest.mark.parametrize("images", [2, 3, 5, 10, 40, 150])
def test_the_cautious_limit_is_close_to_the_exact_one(images) -> None:
    """Where no image gets better, the number of worse ones is binomial, and Clopper and Pearson's limit is exact."""
    worse = np.arange(images)
    exact = -beta.isf(0.05, worse + 1, images - worse)
    cautious = cautious_lower_limit(np.zeros(images), worse, images, Z)
    assert np.abs(cautious - exact).max() < 0.07


@pytest.mark.parametrize("images", [3, 10, 100])
def test_the_cautious_limit_keeps_its_level(images) -> None:
    """The probability that a limit excludes the true loss, over true losses; the score limit alone reaches 15 %."""
    worse = np.arange(images + 1)
    limits = cautious_lower_limit(np.zeros(images + 1), worse, images, Z)
    plain = lower_limit(np.zeros(images + 1), worse, images, Z)
    losses = np.linspace(0.005, 0.7, 140)
    cautious, liberal = (
        max(binom.pmf(worse, images, loss)[limit > -loss].sum() for loss in losses) for limit in (limits, plain)
    )
    assert cautious <= 0.06
    assert liberal > 0.06
