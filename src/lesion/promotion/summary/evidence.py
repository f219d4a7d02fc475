"""What a decision was made by, and what waits for the next one."""

from collections.abc import Sequence
from dataclasses import dataclass

from lesion.promotion.comparison import Comparison
from lesion.promotion.gate_checks import Check


@dataclass(frozen=True)
class Gathering:
    """The held-out images that wait for the next generation of the gate set."""

    gathered: int  # accepted images in the open generation
    renew_images: int  # how many of them freeze it
    unreviewed: int = 0  # held-out images in quarantine

    @property
    def missing(self) -> int:
        """How many more images freeze the open generation."""
        return max(0, self.renew_images - self.gathered)


@dataclass(frozen=True)
class Evidence:
    """What a decision was made by: all conditions, and both models on every generation, the newest images last."""

    checks: Sequence[Check]
    comparisons: Sequence[Comparison]
    alpha: float  # the level of the decision

    @property
    def newest(self) -> Comparison:
        """The comparison that must prove the new model better."""
        return self.comparisons[-1]

    @property
    def failed(self) -> list[Check]:
        """The conditions that prevent a promotion."""
        return [check for check in self.checks if not check.passed]

    def fails(self, name: str) -> bool:
        """Return whether a condition prevents a promotion."""
        return any(check.name == name for check in self.failed)

    def hits(self, label: str) -> tuple[int, int, int]:
        """Return the images of a class on all generations, and how many of them each model has right."""
        rows = [recall for one in self.comparisons for recall in one.recalls if recall.label == label]
        champion = sum(row.champion_hits for row in rows)
        return sum(row.images for row in rows), champion, sum(row.challenger_hits for row in rows)
