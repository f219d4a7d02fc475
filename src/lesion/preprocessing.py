"""From an image of any size to the square that the network sees; the same for training, command line and server."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion.errors import ConfigError
from lesion.images import DEFAULT_LIMITS, Limits, decode

Fit = Literal["pad", "crop", "stretch"]
Interpolation = Literal["bilinear", "bicubic"]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_SIZES = range(16, 4097)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Fits images into a square; resizing is Pillow's, antialiased.

    Normalisation is not here: it is inside the network's graph.

    Args:
        size: Side of the square in pixels, 16 to 4096.
        fit: ``pad`` keeps the whole image and fills with black, as the background of a scan is; ``crop`` fills the
            square and loses the ends of the longer side; ``stretch`` ignores the proportions.
        interpolation: The resizing filter.

    Raises:
        ConfigError: For a value outside these.
    """

    size: int = 224
    fit: Fit = "pad"
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        if type(self.size) is not int or self.size not in _SIZES:
            raise ConfigError(
                f"preprocessing.size is {self.size!r}, but an image side is a whole number from {_SIZES[0]} to "
                f"{_SIZES[-1]}; 224 is what most networks expect."
            )
        for name, choices in (("fit", get_args(Fit)), ("interpolation", get_args(Interpolation))):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"preprocessing.{name} is {getattr(self, name)!r}, which does not exist; choose one of "
                    f"{', '.join(choices)}."
                )

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fit one image.

        Args:
            image: uint8 (H, W, 3).

        Returns:
            uint8 (size, size, 3), writable.
        """
        height, width = image.shape[:2]
        size, resample = self.size, _FILTERS[self.interpolation]
        if (height, width) == (size, size):
            return image.copy()
        picture = Image.fromarray(image)
        if self.fit == "stretch":
            return np.array(picture.resize((size, size), resample))
        if self.fit == "crop":
            # The middle square alone: resizing a 16 × 3,000,000 image before cropping would take gigabytes.
            side = min(height, width)
            left, top = (width - side) / 2, (height - side) / 2
            return np.array(picture.resize((size, size), resample, box=(left, top, left + side, top + side)))
        scale = size / max(height, width)
        inner_height, inner_width = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (size - inner_height) // 2, (size - inner_width) // 2
        fitted = np.zeros((size, size, 3), np.uint8)
        inner = picture.resize((inner_width, inner_height), resample)
        fitted[top : top + inner_height, left : left + inner_width] = np.asarray(inner)
        return fitted

    def read(self, data: bytes, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
        """Decode a file and fit it: the one path from bytes to the network's input.

        Args:
            data: The whole image file.
            limits: What to refuse before decoding.

        Returns:
            uint8 (size, size, 3).

        Raises:
            ImageError: As `lesion.images.decode` does.
        """
        return self(decode(data, limits, at_least=self.size))

    def to_dict(self) -> dict[str, Any]:
        """The plain values, as they stand in a bundle."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            ConfigError: For an unknown key or a bad value.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ConfigError(f"preprocessing has no setting {', '.join(unknown)}; it has {', '.join(known)}.")
        return cls(**values)
