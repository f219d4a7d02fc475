"""Images to send in load tests: from a folder, or generated."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
_MOST = 200


def load_images(folder: str | None) -> list[bytes]:
    """Read at most 200 images from a folder and those in it, or make 16 JPEGs of the size of a scan.

    Raises:
        SystemExit: The folder holds no images.
    """
    if not folder:
        return [_generated(seed) for seed in range(16)]
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise SystemExit(f"{folder} holds no images.")
    return [path.read_bytes() for path in paths[:: max(1, len(paths) // _MOST)][:_MOST]]


def _generated(seed: int) -> bytes:
    rows, columns = np.mgrid[-1:1:512j, -1:1:512j]
    random = np.random.default_rng(seed)
    x, y, radius = random.uniform([-0.4, -0.4, 0.1], [0.4, 0.4, 0.3])
    head = (rows**2 + columns**2 * 1.4 < 0.8) * 90.0
    lesion = 120.0 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / radius**2)
    pixels = head + lesion + random.normal(0.0, 6.0, rows.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
