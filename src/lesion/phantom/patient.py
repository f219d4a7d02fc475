"""A phantom patient: one head, one scan, one diagnosis and the slices through it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import ConfigError
from lesion.phantom.anatomy import Anatomy, Section
from lesion.phantom.lesions import CLASSES, Lesion, displace, paint_lesion
from lesion.phantom.scanner import Scanner
from lesion.phantom.tissue import render

MIN_SIZE, MAX_SIZE, MAX_SLICES = 32, 1024, 99


@dataclass(frozen=True, slots=True)
class Patient:
    """The parts of one phantom patient that all its slices share."""

    seed: int
    number: int
    head: Anatomy
    lesion: Lesion
    scanner: Scanner

    @classmethod
    def sample(cls, seed: int, number: int, low_field: bool = False) -> "Patient":
        """Sample patient ``number``; the diagnoses alternate, so consecutive numbers are balanced."""
        if seed < 0 or number < 0:
            raise ConfigError(f"A phantom needs a seed and a patient number of at least 0; got {seed} and {number}.")
        # Random stream [seed, patient, 0] for the patient and [seed, patient, slice + 1] for each slice: NumPy pads
        # short seeds with zeros, so [seed, patient] would also be the stream of slice 0.
        rng = np.random.default_rng([seed, number, 0])
        head = Anatomy.sample(rng)
        lesion = Lesion.sample(CLASSES[number % len(CLASSES)], head, rng)
        return cls(seed, number, head, lesion, Scanner.sample(rng, low_field))

    @property
    def label(self) -> str:
        """The diagnosis."""
        return self.lesion.kind

    def slice(
        self, index: int, *, slices: int = 4, size: int = 224, healthy: bool = False
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Scan one slice of a stack, which passes through the lesion from below to above; ``healthy`` leaves it out.

        Return the picture, uint8 (size, size), and the mask of the tumor, bool (size, size). A number that is out of
        range is a ConfigError.
        """
        if not 0 <= index < slices <= MAX_SLICES:
            raise ConfigError(f"Slice {index} of {slices} does not exist: choose 0 ≤ slice < slices ≤ {MAX_SLICES}.")
        if not MIN_SIZE <= size <= MAX_SIZE:
            raise ConfigError(f"A phantom cannot be {size} pixels wide: choose {MIN_SIZE} to {MAX_SIZE}.")
        place = (index + 0.5) / slices * 2 - 1
        z = self.lesion.z + 0.7 * self.lesion.radius * place
        x, y = self.scanner.grid(size)
        section = Section.cut(self.head, x, y, z)
        has_tumor = self.label != "notumor" and not healthy
        brain = displace(self.lesion, self.head, section) if has_tumor else section
        image, mask = render(self.head, section, brain), np.zeros((size, size), dtype=bool)
        if has_tumor:
            mask = paint_lesion(image, self.lesion, self.head, section) > 0.5
        return self.scanner.acquire(image, np.random.default_rng([self.seed, self.number, index + 1])), mask
