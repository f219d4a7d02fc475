"""The settings of the promotion gate, as configs/gate gives them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lesion.core.errors import ConfigError
from lesion.promotion.alpha_spending import AlphaSpending


@dataclass(frozen=True)
class GateSettings:
    """What a challenger must show."""

    margin: float = 0.0  # the lower bound of the macro-F1 difference on the newest generation must be above it
    earlier_margin: float = 0.03  # on each earlier generation the macro-F1 may have fallen by less than this
    # One minus the confidence with which that must hold. Each further generation is another chance to fail, hence not
    # 0.05.
    earlier_alpha: float = 0.2
    # No class's recall may be below it. A class for which the champion is below it already must not get any worse, so
    # that a weak champion does not prevent its own improvement.
    recall_floor: float = 0.5
    recall_floors: Mapping[str, float] = field(default_factory=dict)  # the same for single classes, by name
    # No class's recall may be lower than the champion's by more than this, or by more than one image.
    recall_drop: float = 0.05
    ece_margin: float = 0.03  # the calibration error on the newest generation may grow by this much
    replicates: int = 10_000
    seed: int = 0
    renew_images: int = 200  # held-out images that must gather before a new generation is frozen
    spending: AlphaSpending = AlphaSpending()  # noqa: RUF009 (it is frozen)

    def __post_init__(self) -> None:
        names = ("margin", "earlier_margin", "recall_floor", "recall_drop", "ece_margin")
        shares = {name: getattr(self, name) for name in names}
        shares |= {f"recall_floors.{name}": floor for name, floor in self.recall_floors.items()}
        if wrong := [f"{name}={value}" for name, value in shares.items() if not 0 <= value < 1]:
            raise ConfigError(
                f"The gate got {', '.join(wrong)}; each must be at least 0 and below 1. Fix configs/gate."
            )
        if not 0 < self.earlier_alpha <= 0.5:
            raise ConfigError(f"The gate's earlier_alpha={self.earlier_alpha} must be above 0 and at most 0.5.")
        if self.replicates < 1000 or self.renew_images < 1:
            raise ConfigError(
                f"The gate got replicates={self.replicates} and renew_images={self.renew_images}; it needs at least "
                "1000 replicates for a bound far out in the distribution, and at least one image to renew itself with."
            )
