"""The share of its error budget that each look at a generation of the gate set may spend.

Every decision on the same gate set is another chance to promote by luck. Alpha spending (Lan and DeMets, 1983) gives
each look a significance level of its own. The sum of the levels bounds the probability of ever promoting a challenger
that is not better on that generation (Bonferroni), however much the looks depend on each other and on earlier
promotions.
"""

from dataclasses import dataclass
from itertools import count

from lesion.core.errors import ConfigError


def alpha_of_look(number: int, total: float, share: float) -> float:
    """Return the level of a generation's ``number``-th look, counted from 1; all levels together sum to ``total``.

    The series is geometric: each look spends ``share`` of what the looks before it have left.
    """
    if number < 1:
        raise ConfigError(f"The looks at a gate set are counted from 1; the level of look {number} does not exist.")
    return total * share * (1 - share) ** (number - 1)


@dataclass(frozen=True)
class AlphaSpending:
    """How a generation's error budget is spent."""

    # The highest probability that anything is ever promoted by luck on one generation. It is somewhat below 0.05, so
    # that a simulation of a thousand sequences shows at most 5 % with any seed.
    total: float = 0.0425
    # The share of the remaining budget that the next look spends. Most retrainings meet a new generation, so the first
    # look gets nearly all: with 700 images it then detects an improvement from 94 % to 97 % at least four times in
    # five.
    share: float = 0.9
    # Below this level a look could hardly ever promote: the generation counts as exhausted instead.
    min_alpha: float = 0.0003

    def __post_init__(self) -> None:
        if not (0 < self.total < 1 and 0 < self.share < 1 and 0 < self.min_alpha < self.total):
            raise ConfigError(
                f"The gate's spending of total={self.total}, share={self.share}, min_alpha={self.min_alpha} makes no "
                "sense: total and share must lie between 0 and 1, and min_alpha between 0 and total."
            )
        if alpha_of_look(1, self.total, self.share) < self.min_alpha:
            raise ConfigError(
                f"With total={self.total} and share={self.share} even the first look's level is below "
                f"min_alpha={self.min_alpha}, so nothing could ever be promoted. Lower min_alpha."
            )

    def alpha(self, number: int) -> float:
        """Return the level of the ``number``-th look, counted from 1; 0 where the generation is exhausted by then."""
        level = alpha_of_look(number, self.total, self.share)
        return level if level >= self.min_alpha else 0.0

    @property
    def looks(self) -> int:
        """The number of looks that a generation allows."""
        return next(number for number in count() if not self.alpha(number + 1))

    def looks_left(self, used: int) -> int:
        """Return how many looks remain after ``used`` ones."""
        return max(0, self.looks - used)
