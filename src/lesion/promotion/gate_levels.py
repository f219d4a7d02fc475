"""The significance level of each look at the gate set, so that one guarantee holds for a system's lifetime.

Every decision is another chance to promote by luck: on the same images, and over the generations of the gate set. Two
limits apply, and a look gets the lower one:

- The levels of all looks at one generation sum to ``generation_level`` at most. This bounds the probability of ever
  promoting by luck on that generation, however much its looks depend on each other (Bonferroni; alpha spending of Lan
  and DeMets, 1983).
- Over all looks ever, LORD++ controls the false discovery rate at ``lifetime_rate`` (Javanmard and Montanari, 2018;
  Ramdas, Yang, Wainwright and Jordan, 2017): each look spends a part of what is left, and each promotion earns new
  level. Where no challenger is ever better, this is the probability of ever promoting one.

``docs/gate.md`` compares this with other schemes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lesion.core.errors import ConfigError

_LONGEST = 10_000  # looks over which a series of shares is normalized; later looks get nothing


@dataclass(frozen=True)
class RecordedLook:
    """A look that was taken."""

    generation: int
    alpha: float
    promoted: bool = False


@dataclass(frozen=True)
class GateLevels:
    """How much error a look may spend."""

    # The highest probability that anything is ever promoted by luck on one generation.
    generation_level: float = 0.05
    # The highest expected share of promotions by luck among all promotions of the system's lifetime.
    lifetime_rate: float = 0.10
    # The share of a generation's level that its first look gets; the k-th look gets a part of the rest that falls as
    # 1/k². Most retrainings meet a new generation, hence much for the first.
    first_share: float = 0.6
    # The same of the lifetime's rate, over all looks since the beginning or since a promotion; the rest falls as
    # 1/k to the power of 1.3.
    lifetime_first_share: float = 0.3
    # Below this level a look could hardly ever promote: the generation counts as exhausted instead.
    min_alpha: float = 0.0001

    def __post_init__(self) -> None:
        shares = (self.generation_level, self.lifetime_rate, self.first_share, self.lifetime_first_share)
        if not (all(0 < share < 1 for share in shares) and self.min_alpha > 0):
            raise ConfigError(
                f"The gate's levels make no sense: {self}. All must lie between 0 and 1; fix configs/gate."
            )
        if self.next_level((), 1) < self.min_alpha:
            raise ConfigError(
                f"Even the first look's level is below min_alpha={self.min_alpha}, so nothing could ever be promoted. "
                "Lower min_alpha."
            )

    def next_level(self, looks: Sequence[RecordedLook], generation: int) -> float:
        """Return the level of the next look at ``generation`` after all earlier ``looks`` at any generation.

        It is 0 if that generation is exhausted: its look would get less than ``min_alpha``.
        """
        level = min(self._generation_share(looks, generation), self._lifetime_share(looks))
        return level if level >= self.min_alpha else 0.0

    def looks_left(self, looks: Sequence[RecordedLook], generation: int) -> int:
        """Return how many further looks at ``generation`` there are if none of them promotes."""
        taken, count = list(looks), 0
        while level := self.next_level(taken, generation):
            taken.append(RecordedLook(generation, level))
            count += 1
        return count

    def _generation_share(self, looks: Sequence[RecordedLook], generation: int) -> float:
        earlier = [look.alpha for look in looks if look.generation == generation]
        share = self.generation_level * _series(len(earlier), self.first_share, 2.0)
        # Looks under an earlier rule may have spent more than this one gives.
        return max(0.0, min(share, self.generation_level - sum(earlier)))

    def _lifetime_share(self, looks: Sequence[RecordedLook]) -> float:
        """Return the level of LORD++ with an initial wealth of the whole rate.

        The first promotion earns nothing then, each later one the whole rate.
        """
        promotions = [number for number, look in enumerate(looks) if look.promoted]
        starts = [-1, *promotions[1:]]
        shares = (_series(len(looks) - start - 1, self.lifetime_first_share, 1.3) for start in starts)
        # The sum of all levels may not exceed the rate for each promotion. LORD++ keeps to that by itself; looks under
        # an earlier rule, which knew the generation alone, may have spent more than it gives.
        left = self.lifetime_rate * len(starts) - sum(look.alpha for look in looks)
        return max(0.0, min(self.lifetime_rate * sum(shares), left))


def _series(number: int, first: float, power: float) -> float:
    """Return the ``number``-th share, counted from 0, of a series whose shares sum to 1."""
    if number == 0:
        return first
    if number >= _LONGEST:
        return 0.0
    return float((1 - first) * (number + 1) ** -power / _tail(power))


@lru_cache
def _tail(power: float) -> float:
    return float(sum(number**-power for number in range(2, _LONGEST + 1)))
