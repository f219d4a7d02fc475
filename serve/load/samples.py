"""Images to send in load tests: from a folder, or generated."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion.imaging.file_types import is_image_name

_MAX_IMAGES = 200
_SCAN = 512  # pixels per side


def load_images(folder: str | None) -> list[bytes]:
    """Read at most 200 images from a folder and its subfolders, or generate 16 JPEGs of the size of a scan."""
    if not folder:
        return [encode(scan(seed), "JPEG", quality=90) for seed in range(16)]
    paths = sorted(path for path in Path(folder).rglob("*") if is_image_name(path))
    if not paths:
        raise SystemExit(f"{folder} holds no images.")
    return [path.read_bytes() for path in paths[:: max(1, len(paths) // _MAX_IMAGES)][:_MAX_IMAGES]]


def mixture() -> list[bytes]:
    """Generate 43 images of common kinds: most are scans of 10 to 300 KB, a few are photos of up to 4 MB."""
    images = load_images(None)
    images += [encode(scan(seed, 256 + 32 * seed), "PNG") for seed in range(10)]
    images += [encode(scan(seed, 640), "WEBP", quality=85) for seed in range(5)]
    images += [encode(deep(scan(seed)), "PNG") for seed in range(3)]
    images += [encode(deep(scan(seed)), "TIFF") for seed in range(2)]
    images.append(encode(scan(0), "BMP"))
    images += [encode(photo(800, 600, seed), "JPEG", quality=90) for seed in range(3)]
    images += [encode(photo(1600, 1200), "JPEG", quality=92), encode(photo(1024, 768), "PNG")]
    images.append(encode(photo(3000, 2000), "JPEG", quality=95))
    return images


def scan(seed: int, side: int = _SCAN) -> NDArray[np.uint8]:
    """Draw a picture like a slice of a head, a different one for each seed: gray, uint8 (side, side)."""
    rows, columns = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    random = np.random.default_rng(seed)
    x, y, radius = random.uniform([-0.4, -0.4, 0.1], [0.4, 0.4, 0.3])
    head = np.where(rows**2 + columns**2 * 1.4 < 0.8, 90.0, 0.0)
    lesion = 120.0 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / radius**2)
    pixels: NDArray[np.float64] = head + lesion + random.normal(0.0, 6.0, rows.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def photo(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Generate a color picture with as much detail as a photo: uint8 (height, width, 3)."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 25, width // 25, 3), np.uint8)
    smooth: NDArray[np.float32] = np.asarray(Image.fromarray(coarse).resize((width, height)), np.float32)
    noisy: NDArray[np.float64] = smooth + random.normal(0.0, 12.0, smooth.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def deep(pixels: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return a gray picture with 16 bits per pixel."""
    return pixels.astype(np.uint16) * 257


def encode(pixels: NDArray[np.uint8] | NDArray[np.uint16], kind: str, **options: int) -> bytes:
    """Return a picture as a file in one of Pillow's formats."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()
