"""How the samples of a picture lie in its file, where Pillow would reduce them to 8 bits or mix them up."""

from dataclasses import dataclass
from typing import Literal

Mode = Literal["L", "LA", "RGB", "RGBA", "CMYK", "CMYKA"]

_COLORS: dict[str, int] = {"L": 1, "RGB": 3, "CMYK": 4}


@dataclass(frozen=True, slots=True)
class SampleLayout:
    """The layout of samples of 8 or 16 bits.

    Attributes:
        mode: The colors, and ``A`` if there is transparency.
        bits: Of one sample, 8 or 16.
        stored: Samples per pixel in the file; those after the ones of ``mode`` mean nothing.
        premultiplied: Whether colors are already multiplied with their alpha.
        inverted: Whether 0 is white.
        key: The color that is transparent, one 16-bit value per color; empty without one.
        planes: TIFF: one file per channel, each of one gray channel; empty where ``Header.picture`` has all channels.
        predicted: TIFF: whether each sample is stored as the difference from its left neighbor.
        tile_width: TIFF: the pixels from one column of tiles to the next, where prediction begins again; 0 for strips.
    """

    mode: Mode
    bits: int
    stored: int
    premultiplied: bool = False
    inverted: bool = False
    key: tuple[int, ...] = ()
    planes: tuple[bytes, ...] = ()
    predicted: bool = False
    tile_width: int = 0

    @property
    def colors(self) -> int:
        """Return the number of color channels."""
        return _COLORS[self.mode.removesuffix("A")]

    @property
    def has_alpha(self) -> bool:
        """Return whether there is an alpha channel after the colors."""
        return self.mode.endswith("A")

    @property
    def bytes(self) -> int:
        """Return the bytes of one pixel."""
        return self.stored * self.bits // 8
