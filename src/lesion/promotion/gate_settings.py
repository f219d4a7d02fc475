"""The settings of the promotion gate, as configs/gate gives them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from lesion.core.errors import ConfigError
from lesion.promotion.gate_levels import GateLevels
from lesion.promotion.non_inferiority import ErrorLevels


@dataclass(frozen=True)
class GateSettings:
    """What a challenger must show.

    A check against harm has a margin, and two error probabilities (see ``lesion.promotion.non_inferiority``): that of
    letting a loss of the margin through where there are enough images, and that of blocking where nothing was lost.
    """

    margin: float = 0.0  # the lower bound of the macro-F1 difference on the newest images must be above it
    recall_drop: float = 0.05  # the margin of each class's recall, against the champion and the best model so far
    earlier_margin: float = 0.03  # the margin of macro-F1 on all earlier generations together
    brier_margin: float = 0.02  # the margin of the Brier score on the newest images
    harm_level: float = 0.05  # the highest probability that a loss of a margin is let through
    # The highest probability that one check blocks a challenger that lost nothing. It is low since there is a check for
    # each class: with 30 classes all of them together block one in twenty at most.
    block_level: float = 0.002
    # The probability of calling a class better than under the best model so far though it is not.
    best_level: float = 0.05
    # No class's recall may be shown to be below it, unless the champion's is no higher.
    recall_floor: float = 0.5
    recall_floors: Mapping[str, float] = field(default_factory=dict)  # the same for single classes, by name
    renew_images: int = 200  # held-out images that must gather before a new generation is frozen
    # Whether a retraining begins though the gate could not promote any challenger, so that training it is in vain.
    train_in_vain: bool = False
    levels: GateLevels = GateLevels()  # noqa: RUF009 (it is frozen)

    def __post_init__(self) -> None:
        names = ("margin", "recall_drop", "earlier_margin", "brier_margin", "recall_floor")
        shares = {name: getattr(self, name) for name in names}
        shares |= {f"recall_floors.{name}": floor for name, floor in self.recall_floors.items()}
        if wrong := [f"{name}={value}" for name, value in shares.items() if not 0 <= value < 1]:
            raise ConfigError(
                f"The gate got {', '.join(wrong)}; each must be at least 0 and below 1. Fix configs/gate."
            )
        levels = {name: getattr(self, name) for name in ("harm_level", "block_level", "best_level")}
        if wrong := [f"{name}={value}" for name, value in levels.items() if not 0 < value < 0.5]:
            raise ConfigError(f"The gate got {', '.join(wrong)}; each must be above 0 and below 0.5. Fix configs/gate.")
        if self.renew_images < 1:
            raise ConfigError(f"The gate got renew_images={self.renew_images}; it needs at least one image.")

    @property
    def errors(self) -> ErrorLevels:
        """The error probabilities of each check against harm."""
        return ErrorLevels(not_worse=self.harm_level, worse=self.block_level)

    def to_json(self) -> dict[str, Any]:
        """Return all settings as JSON-ready values."""
        return asdict(self) | {"recall_floors": dict(self.recall_floors)}

    @classmethod
    def from_json(cls, content: object) -> Self:
        """Read what :meth:`to_json` returned, perhaps by another version; settings that are missing have defaults.

        Unknown settings, and values of another type or out of bounds, are a ConfigError.
        """
        try:
            values: dict[str, Any] = dict(content)  # type: ignore[call-overload]
            if not isinstance(values.get("train_in_vain", False), bool):
                raise TypeError("train_in_vain is neither true nor false")
            return cls(**values | {"levels": GateLevels(**values.get("levels", {}))})
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{content!r:.200} are no settings of the gate: {error}.") from error
