"""Which images are masks: pictures of where something is in another image. The rules, in one place.

============================================= =================================================================
an image                                      is a mask
============================================= =================================================================
``x_mask.png`` ``x-seg.png`` ``x_gt_2.png``   of the image ``x`` in the same folder
``mask_x.png``                                of the image ``x`` in the same folder
in a folder ``masks`` within a class, next to of the image of the same name, with or without ``_mask``, in the
another folder                                folder beside it
in a folder ``masks`` or ``train_masks`` next of the image of the same name and class, or the only one of the name
to the splits, to ``images`` or to the classes
============================================= =================================================================

``masks`` stands for ``mask``, ``masks``, ``segmentation``, ``segmentations``, ``ground_truth`` and ``gt``. Masks are
not trained on; the manifest keeps them, so that explanations can be compared with them.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import ImageError
from lesion.imaging.decode import decode, read
from lesion.imaging.limits import Limits

_FOLDERS = frozenset({"mask", "masks", "segmentation", "segmentations", "ground_truth", "groundtruth", "gt"})
_MARK = r"(?:mask|seg|segmentation|groundtruth|ground_truth|gt)"
_NAME = re.compile(rf"(.+?)[\s_-]+{_MARK}(?:[\s_-]?\d+)?|{_MARK}[\s_-]+(.+)")

_FEW_VALUES = 16  # of a mask that numbers its parts; others, such as JPEG, have two that are blurred
Masks = Mapping[Path, Path | None]  # each mask with its image; None if there is no such image


def is_mask_folder(name: str, added_words: Iterable[str] = ()) -> bool:
    """Return whether a folder is called like a folder of masks, perhaps with other words: ``train_masks``."""
    words = [word for word in re.findall(r"[^\W_]+", name.lower()) if word not in set(added_words)]
    return "_".join(words) in _FOLDERS


def separate_masks(images: Sequence[Path]) -> tuple[list[Path], Masks]:
    """Return the images of a class that are no masks, and its masks with their images."""
    by_name = {(image.parent, image.stem.lower()): image for image in images}
    folders = {image.parent for image in images}
    masks = dict[Path, Path | None]()
    for image in images:
        beside = is_mask_folder(image.parent.name) and len(folders) > 1
        places = [image.parent]
        if beside:
            places = [folder for folder in folders if folder != image.parent and folder.parent == image.parent.parent]
            places += [image.parent.parent] * (image.parent.parent in folders)
        own = [by_name.get((place, name)) for place in places for name in _names(image, whole=beside)]
        of = next((other for other in own if other is not None), None)
        if beside or of is not None:
            masks[image] = of
    return [image for image in images if image not in masks], masks


def pair_masks(masks: Iterable[Path], images: Iterable[tuple[Path, str]]) -> Masks:
    """Find the images of masks in folders of their own: ``images`` are paths with their labels.

    A mask belongs to the image of its name that has the label of the folder that the mask is in, or else to the only
    image of its name.
    """
    by_name = defaultdict[str, list[tuple[Path, str]]](list)
    for image, label in images:
        by_name[image.stem.lower()].append((image, label))

    def image_of(mask: Path) -> Path | None:
        for name in _names(mask, whole=True):
            same = by_name.get(name, [])
            labeled = [image for image, label in same if label in mask.parts[:-1]] or [image for image, _ in same]
            if len(labeled) == 1:
                return labeled[0]
        return None

    return {mask: image_of(mask) for mask in masks}


def _names(mask: Path, *, whole: bool) -> list[str]:
    """Return the names that the image of a mask may have: the mask's without its mark and, if ``whole``, its own."""
    name = mask.stem.lower()
    named = _NAME.fullmatch(name)
    return [*([named[1] or named[2]] if named else []), *([name] if whole else [])]


def read_mask(path: Path, limits: Limits) -> NDArray[np.bool_] | None:
    """Return what a mask's file marks, (H, W): what is not black; None for a file that cannot be decoded."""
    try:
        values = decode(read(path, limits), limits).max(axis=2)
    except ImageError:
        return None
    return np.asarray(values > (0 if len(np.unique(values)) <= _FEW_VALUES else 127))
