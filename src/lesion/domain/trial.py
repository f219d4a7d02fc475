"""A trial of a domain before it serves: which kinds of foreign images it recognizes, and which it does not."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lesion.core.text import format_count
from lesion.domain.domain import LEVEL, Domain
from lesion.domain.foreign_images import KINDS, foreign_images

IMAGES = 40  # of each kind
_ENOUGH_IMAGES = 100  # of calibration: with fewer, the border is said to be uncertain
_RECOGNIZED = 0.9  # of its images: a kind with a smaller share is named as one that is not recognized


@dataclass(frozen=True, slots=True)
class KindTrial:
    """How many images of a kind were called foreign."""

    kind: str
    images: int
    foreign: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS or not 0 <= self.foreign <= self.images or self.images < 1:
            raise ValueError(f"{self} is not the trial of a known kind of images.")

    @property
    def recognized(self) -> bool:
        """Whether at least nine of ten were called foreign."""
        return self.foreign >= _RECOGNIZED * self.images


@dataclass(frozen=True, slots=True)
class DomainTrial:
    """How many images of the test split were called foreign, and how many of each kind of foreign images."""

    calibration_images: int  # that set the border
    strays: int  # calibration images that were left out, since they are unlike all others
    test_images: int
    test_foreign: int
    kinds: tuple[KindTrial, ...]

    @classmethod
    def run(
        cls, domain: Domain, features: Callable[[NDArray[np.uint8]], NDArray[np.float32]], images: NDArray[np.uint8]
    ) -> Self:
        """Try a domain out at its usual level.

        Args:
            domain: The domain.
            features: Returns the network's features, (B, D), of images, (B, S, S, 3) uint8.
            images: Of the test split, (N, S, S, 3) uint8, which the domain was not fitted on.
        """

        def count(pictures: NDArray[np.uint8]) -> int:
            return int((~domain.judge(features(pictures), pictures, LEVEL).inside).sum())

        pictures = foreign_images(images, IMAGES)
        kinds = tuple(KindTrial(kind, len(drawn), count(drawn)) for kind, drawn in pictures.items())
        return cls(domain.calibration_images, domain.strays, len(images), count(images), kinds)

    @property
    def missed(self) -> tuple[str, ...]:
        """The kinds of which fewer than nine in ten images were called foreign."""
        return tuple(trial.kind for trial in self.kinds if not trial.recognized)

    def sentences(self) -> list[str]:
        """Return what was found, in sentences."""
        found = [KINDS[trial.kind] for trial in self.kinds if trial.recognized]
        missed = [
            f"{KINDS[trial.kind]} ({trial.foreign} of {trial.images})" for trial in self.kinds if not trial.recognized
        ]
        lines = [
            f"Of {format_count(self.test_images, 'test image')}, {self.test_foreign:,} "
            f"{'was' if self.test_foreign == 1 else 'were'} called unlike the training images.",
            f"Recognized as foreign, at least nine in ten: {', '.join(found) or 'no kind that was tried'}.",
        ]
        if self.calibration_images < _ENOUGH_IMAGES:
            lines.insert(
                1,
                f"The border comes from only {format_count(self.calibration_images, 'image')}: how many images like "
                "the training images are called unlike them is not known well.",
            )
        return [*lines, f"Not reliably recognized: {', '.join(missed)}."] if missed else lines

    def to_json(self) -> dict[str, Any]:
        """Return the trial, JSON-ready."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_json` wrote; anything else is a ValueError, TypeError or KeyError."""
        kinds = tuple(KindTrial(each["kind"], each["images"], each["foreign"]) for each in value["kinds"])
        return cls(
            int(value["calibration_images"]),
            int(value["strays"]),
            int(value["test_images"]),
            int(value["test_foreign"]),
            kinds,
        )
