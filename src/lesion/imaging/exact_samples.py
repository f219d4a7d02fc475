"""Pictures whose samples Pillow would cut to 8 bits or mix up, read exactly: see `SampleLayout`."""

import io
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin

from lesion.imaging.color_profiles import to_srgb
from lesion.imaging.formats.header import Header
from lesion.imaging.formats.png_rows import check_rows
from lesion.imaging.formats.sample_layout import SampleLayout
from lesion.imaging.orientation import REVERSED, SWAPPED, orient
from lesion.imaging.pixels import depth_table, finish, highest_in_use, on_black
from lesion.imaging.refusals import corrupt, unsupported

Rows = Callable[[int, int], NDArray[np.uint16]]  # from row to row: (rows, W, stored samples)

_BAND_SAMPLES = 2**20
_OPAQUE = (255, 1023, 4095, 16383)  # the highest alpha of programs that use fewer than 16 bits
_BYTES_OF_GRAY_ALPHA = "RGBA"  # 16 bits of gray and alpha, as the four bytes that they are


def sample_bands(
    header: Header, layout: SampleLayout, reduced: int = 1, orientation: int = 1
) -> Iterator[NDArray[np.uint8]]:
    """Decode a picture with a sample layout to sRGB; blend transparency with black.

    It is ``reduced``, turned upright and given in bands as by `lesion.imaging.pixels.rgb_bands`; with an orientation
    that swaps the axes it is one band.

    The colors are scaled from the depth in use, as gray is (`highest_in_use`), and a picture that is transparent
    everywhere is shown as if it were not.
    """
    if orientation in SWAPPED:
        yield orient(np.concatenate(list(sample_bands(header, layout, reduced))), orientation)
        return
    # Several times, which takes less memory than to keep them; a small picture is a single band, which is kept.
    read = lru_cache(maxsize=1)(_png_rows(header, layout) if header.format == "PNG" else _tiff_rows(header, layout))
    step = reduced * max(1, _BAND_SAMPLES // (header.width * layout.stored) // reduced)
    tops = range(0, header.height, step)

    def bands(tops: Iterable[int] = tops) -> Iterator[NDArray[np.uint16]]:
        return (read(top, min(top + step, header.height)) for top in tops)

    highest = highest_in_use(band[..., : layout.colors] for band in bands()) if layout.bits == 16 else 255
    table, opaque = depth_table(highest), _opaque_alpha(bands(), layout)
    for values in bands(reversed(tops) if orientation in REVERSED else tops):
        color = table[values[..., : layout.colors]]
        alpha = _alpha(values, layout, opaque) if opaque else None
        yield finish(_shown(255 - color if layout.inverted else color, alpha, header.profile), reduced, orientation)


def _shown(color: NDArray[np.uint8], alpha: Image.Image | None, profile: bytes) -> Image.Image:
    """Return some rows in sRGB on black."""
    height, width, channels = color.shape
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[channels]
    picture = Image.frombuffer(mode, (width, height), color.tobytes(), "raw", mode, 0, 1)
    return on_black(to_srgb(picture, profile), alpha)


def _opaque_alpha(bands: Iterable[NDArray[np.uint16]], layout: SampleLayout) -> int:
    """Return the value of full opacity; 0 if the picture has no transparency, or has nothing else."""
    if layout.key:
        return int(any(np.any(_is_visible(band, layout.key)) for band in bands))
    if not layout.has_alpha or layout.premultiplied:
        return 0
    highest = max(int(band[..., layout.colors].max()) for band in bands)
    return highest if highest == 0 or (layout.bits == 16 and highest in _OPAQUE) else 2**layout.bits - 1


def _alpha(values: NDArray[np.uint16], layout: SampleLayout, opaque: int) -> Image.Image:
    """Return the transparency of some rows, 0 to 255."""
    alpha = _is_visible(values, layout.key).astype(np.uint32) if layout.key else values[..., layout.colors]
    return Image.fromarray(((alpha.astype(np.uint32) * 255 + opaque // 2) // opaque).astype(np.uint8))


def _is_visible(values: NDArray[np.uint16], key: tuple[int, ...]) -> NDArray[np.bool_]:
    visible: NDArray[np.bool_] = np.any(values[..., : len(key)] != np.array(key), axis=-1)
    return visible


def _png_rows(header: Header, layout: SampleLayout) -> Rows:
    """Read a PNG of 16 bits: gray as it is, gray and alpha as four bytes, color once for each of its two bytes."""
    if layout.mode == "L":
        gray = _load_png(header, None)
        return lambda top, bottom: _rows(gray, top, bottom).astype(np.uint16)[..., None]
    if layout.mode == "LA":
        four = _load_png(header, _BYTES_OF_GRAY_ALPHA)
        return lambda top, bottom: np.ascontiguousarray(_rows(four, top, bottom)).view(">u2").astype(np.uint16)
    high, low = (_load_png(header, f"{layout.mode};16{order}") for order in "BL")

    def read(top: int, bottom: int) -> NDArray[np.uint16]:
        values: NDArray[np.uint16] = _rows(high, top, bottom).astype(np.uint16)
        return (values << np.uint16(8)) | _rows(low, top, bottom).astype(np.uint16)

    return read


def _load_png(header: Header, raw_mode: str | None) -> Image.Image:
    """Decode a PNG; ``raw_mode`` says which bytes of a sample to keep: PNG stores the high one first."""
    picture = PngImagePlugin.PngImageFile(io.BytesIO(header.picture))
    _check_size(header, picture, header.width)
    if raw_mode is not None:
        picture.tile = [tile._replace(args=raw_mode) for tile in picture.tile]
    picture.load()
    check_rows(header.picture, picture)
    return picture


def _tiff_rows(header: Header, layout: SampleLayout) -> Rows:
    """Read a TIFF that was rewritten as gray: one picture for each plane, or one whose neighbors are the samples."""
    width = header.width if layout.planes else header.width * layout.stored
    pictures = []
    for file in layout.planes or (header.picture,):
        picture = TiffImagePlugin.TiffImageFile(io.BytesIO(file))
        _check_size(header, picture, width)
        if picture.mode not in ("L", "I;16", "I;16B"):
            raise unsupported("TIFF", f"pixels of the kind {picture.mode}")
        picture.load()
        pictures.append(picture)

    def read(top: int, bottom: int) -> NDArray[np.uint16]:
        channels = [_rows(picture, top, bottom).astype(np.uint16) for picture in pictures]
        if layout.planes:
            return np.stack(channels, -1)
        values = channels[0].reshape(bottom - top, header.width, layout.stored)
        return _sums(values, layout) if layout.predicted else values

    return read


def _sums(values: NDArray[np.uint16], layout: SampleLayout) -> NDArray[np.uint16]:
    """Add up differences between neighbors, in each tile on its own; they overflow as those of the file did."""
    dtype = np.uint8 if layout.bits == 8 else np.uint16
    width, sums = layout.tile_width or values.shape[1], np.empty_like(values)
    for left in range(0, values.shape[1], width):
        part = values[:, left : left + width].astype(dtype)
        sums[:, left : left + width] = np.cumsum(part, axis=1, dtype=dtype)
    return sums


def _rows(picture: Image.Image, top: int, bottom: int) -> NDArray[np.integer]:
    return np.asarray(picture.crop((0, top, picture.width, bottom)))


def _check_size(header: Header, picture: ImageFile.ImageFile, width: int) -> None:
    if picture.size != (width, header.height):
        raise corrupt(header.format, "it gives its size twice and differently")
