"""Contact sheets: one picture of many small ones with captions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

GAP, TEXT = 4, 14


def montage(
    images: Sequence[NDArray[np.uint8]], captions: Sequence[str] = (), *, columns: int = 8, side: int = 112
) -> Image.Image:
    """Lay out pictures, uint8 (H, W, 3) of any sizes, in rows on a white RGB sheet.

    Each is fitted into its tile of ``side`` pixels and keeps its proportions; a caption is one line under it.
    """
    step_x, step_y = side + GAP, side + GAP + (TEXT if captions else 0)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns) if columns else 0
    sheet = Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for index, pixels in enumerate(images):
        left, top = GAP + index % columns * step_x, GAP + index // columns * step_y
        tile = Image.fromarray(pixels)
        scale = side / max(tile.size)
        size = max(round(tile.width * scale), 1), max(round(tile.height * scale), 1)
        tile = tile.resize(size, Image.Resampling.LANCZOS)
        sheet.paste(tile, (left + (side - tile.width) // 2, top + (side - tile.height) // 2))
        if captions:
            draw.text((left, top + side + 1), captions[index][: side // 6], fill="black")
    return sheet
