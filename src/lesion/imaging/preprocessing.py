"""Fits an image of any size into the square that the network sees, in training, commands and server alike."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion.core.errors import ConfigError
from lesion.imaging.decode import VERSION, decode
from lesion.imaging.limits import DEFAULT_LIMITS, Limits

Fit = Literal["pad", "crop", "stretch"]
Interpolation = Literal["bilinear", "bicubic"]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_SIZES = range(16, 4097)
_CELLS = 64  # side of the reduced image in which the dark margins are searched
_DARK, _BLACK = 0.1, 8  # as a share of the 99th percentile; as a gray value
_BAND_PIXELS = 2**20
_MIN_CONTENT = 0.4  # of a side: smaller content is not a picture with margins but a spot in a picture


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Fits images into a square with Pillow's antialiased resizing.

    Normalization is not part of it: that is inside the network's graph.

    Args:
        size: Side of the square in pixels, 16 to 4096.
        fit: ``pad`` keeps the whole image and fills with black, as the background of a scan is; ``crop`` fills the
            square and loses the ends of the longer side; ``stretch`` ignores the proportions.
        interpolation: The resizing filter.
        trim: First cut off the dark margins, whose width differs between scanners: see `content_box`.
        decoder: The version of the decoder's rules that a model was trained with; see `lesion.imaging.decode.VERSION`.
            It changes nothing: an older model gets what today's decoder reads.

    Raises:
        ConfigError: A value is invalid.
    """

    size: int = 224
    fit: Fit = "pad"
    interpolation: Interpolation = "bicubic"
    trim: bool = False
    decoder: int = field(default=VERSION, compare=False)

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
        if type(self.trim) is not bool:
            raise ConfigError(f"preprocessing.trim is {self.trim!r}; it is true or false.")
        if type(self.decoder) is not int or self.decoder < 1:
            raise ConfigError(f"preprocessing.decoder is {self.decoder!r}; it is a whole number from 1 on.")

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fit one image, uint8 (H, W, 3), and return it as uint8 (size, size, 3), writable."""
        if self.trim:
            left, top, right, bottom = content_box(image)
            image = image[top:bottom, left:right]
        height, width = image.shape[:2]
        size, resample = self.size, _FILTERS[self.interpolation]
        if (height, width) == (size, size):
            return image.copy()
        picture = _picture(image, "RGB")
        if self.fit == "stretch":
            return np.array(picture.resize((size, size), resample))
        if self.fit == "crop":
            # Only the middle square: resizing a 16 × 3,000,000 image before cropping would take gigabytes.
            side = min(height, width)
            left, top = (width - side) / 2, (height - side) / 2
            return np.array(picture.resize((size, size), resample, box=(left, top, left + side, top + side)))
        return self._pad(picture)

    def fit_mask(self, mask: NDArray[np.bool_], image: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Fit the mask, (H, W), of an image, uint8 (H, W, 3), as the image itself is fitted; return it (size, size)."""
        gray = np.repeat(np.where(mask, np.uint8(255), np.uint8(0))[..., None], 3, axis=2)
        if self.trim:
            left, top, right, bottom = content_box(image)
            gray = gray[top:bottom, left:right]
        return np.asarray(replace(self, trim=False)(gray)[..., 0] > 127)

    def _pad(self, picture: Image.Image) -> NDArray[np.uint8]:
        size, (width, height) = self.size, picture.size
        scale = size / max(height, width)
        inner_height, inner_width = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (size - inner_height) // 2, (size - inner_width) // 2
        fitted = np.zeros((size, size, 3), np.uint8)
        inner = picture.resize((inner_width, inner_height), _FILTERS[self.interpolation])
        fitted[top : top + inner_height, left : left + inner_width] = np.asarray(inner)
        return fitted

    def read(self, data: bytes, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
        """Decode and fit a whole image file: the only way from bytes to the network's input, uint8 (size, size, 3)."""
        return self(decode(data, limits, target_side=2 * self.size if self.trim else self.size))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as they are stored in a bundle."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build it from what `to_dict` returned; missing settings get defaults, unknown ones are a ConfigError.

        What was stored before the decoder had versions has version 1.
        """
        names = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(names)):
            raise ConfigError(f"preprocessing has no setting {', '.join(unknown)}; it has {', '.join(names)}.")
        return cls(**{"decoder": 1, **values})


def _picture(image: NDArray[np.uint8], mode: Literal["L", "RGB"]) -> Image.Image:
    """Return an image, uint8 (H, W, 3), as Pillow's; in bands of rows, since Pillow copies what it is given twice."""
    height, width = image.shape[:2]
    if height * width <= _BAND_PIXELS:
        return Image.fromarray(image) if mode == "RGB" else Image.fromarray(image).convert(mode)
    rows, picture = max(1, _BAND_PIXELS // width), Image.new(mode, (width, height))
    for top in range(0, height, rows):
        picture.paste(Image.fromarray(image[top : top + rows]).convert(mode), (0, top))
    return picture


def content_box(image: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Find the part of a uint8 (H, W, 3) image inside its dark margins, with a precision of 1/64 of the side.

    Dark means below a tenth of the bright parts, averaged over a cell: the noise of a scanner, traces of compression
    and specks do not count as bright. An image that is dark almost everywhere is returned whole. Return left, top,
    right and bottom in pixels; the last two are exclusive.
    """
    height, width = image.shape[:2]
    cells = np.asarray(_picture(image, "L").resize((_CELLS, _CELLS), Image.Resampling.BOX))
    bright = cells > max(_DARK * np.percentile(cells, 99), _BLACK)
    rows, columns = (np.flatnonzero(bright.sum(axis=axis) > 1) for axis in (1, 0))  # a single one may be dust
    if min(len(rows) and np.ptp(rows), len(columns) and np.ptp(columns)) < _CELLS * _MIN_CONTENT:
        return 0, 0, width, height
    left, right = columns[0] * width // _CELLS, -(-(columns[-1] + 1) * width // _CELLS)
    top, bottom = rows[0] * height // _CELLS, -(-(rows[-1] + 1) * height // _CELLS)
    return int(left), int(top), int(right), int(bottom)
