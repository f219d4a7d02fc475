"""ICC color profiles: pictures of any color space that LittleCMS knows become sRGB, as browsers show them."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

_MAX_BYTES = 4 * 2**20  # of a profile; those of printers have about 2 MB
_SPACES = {b"GRAY": "L", b"RGB ": "RGB", b"CMYK": "CMYK"}  # a profile's color space, and Pillow's mode
_CLASSES = (b"mntr", b"scnr", b"prtr", b"spac")  # screens, cameras, printers and color spaces; no links, no names
_SAME = 3  # levels of 255: a profile that changes nothing more is sRGB itself, rounded


def to_srgb(color: Image.Image, profile: bytes) -> Image.Image:
    """Convert a picture without transparency from its color space to sRGB, mode RGB.

    A profile that is damaged or belongs to another kind of picture is left aside, as viewers do.

    Args:
        color: Of the mode 1, L, P, RGB, RGBX, YCbCr or CMYK.
        profile: The file's ICC profile, empty without one.
    """
    space = _space(profile)
    if space is None:
        return color.convert("RGB")
    if color.mode not in ("L", "CMYK"):
        color = color.convert("L" if color.mode == "1" else "RGB")
    if color.mode == "L" and space == "RGB":
        color = color.convert("RGB")
    transform = _transform(profile, space) if space == color.mode else None
    if transform is None:
        return color.convert("RGB")
    if space == "L":
        levels = np.asarray(transform.apply(Image.fromarray(np.arange(256, dtype=np.uint8)[None])))
        return Image.fromarray(levels[0][np.asarray(color)])
    return transform.apply(color)


def _space(profile: bytes) -> str | None:
    """Return the mode that a profile is for, by its first 128 bytes (ISO 15076-1, 7.2)."""
    if not 132 <= len(profile) <= _MAX_BYTES or profile[36:40] != b"acsp" or profile[12:16] not in _CLASSES:
        return None
    return _SPACES.get(profile[16:20])


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transformation to sRGB; None if the profile is damaged, or if it is sRGB already."""
    # Without the cache of the last pixel, threads can share the transformation. Gray needs only 256 exact results.
    flags = ImageCms.Flags.NOCACHE | ImageCms.Flags.BLACKPOINTCOMPENSATION
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            flags=flags | ImageCms.Flags.NOOPTIMIZE if mode == "L" else flags,
        )
        changed = mode == "CMYK" or _changes(transform, mode)
    except Exception:  # a third-party parser given hostile bytes can raise anything
        return None
    return transform if changed else None


def _changes(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether a transformation changes colors visibly, by a grid of them."""
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3)
    picture = Image.fromarray(grid if mode == "RGB" else np.ascontiguousarray(grid[..., 0]))
    after = np.asarray(transform.apply(picture), np.int16)
    return bool(np.abs(after - np.asarray(picture.convert("RGB"), np.int16)).max() > _SAME)
