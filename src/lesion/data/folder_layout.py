"""Which folders of a dataset are its classes, and which are its splits: the rules for all layouts, in one place.

======================================== ======================================================================
in the dataset's folder                  is read as
======================================== ======================================================================
``class/*``                              classes
``split/class/*``                        classes in splits, see ``SPLIT_NAMES``: ``Test set`` and ``seg_train`` too
one folder, which has splits             that folder
a folder beside splits that has splits   a copy of the dataset: left out, with a warning
a folder named like a split, with        a class, if no other folder is a split
images in it and no folders
only folders named like splits, with     refused: the labels must be elsewhere, such as in a table
images in them and no folders
======================================== ======================================================================
"""

import logging
import re
from pathlib import Path

from lesion.core.errors import DataError
from lesion.core.paths import is_hidden
from lesion.core.text import join_names, natural_order
from lesion.imaging.file_types import is_image

logger = logging.getLogger(__name__)

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
# Words that people add to the name of a split: Test set, train_images, seg_train.
_ADDED_WORDS = frozenset({"set", "data", "dataset", "image", "images", "img", "imgs", "seg", "split", "folder"})
_MASK_FOLDERS = frozenset({"mask", "masks", "segmentation", "segmentations"})
_MASK_NAME = re.compile(r"(.+?)[\s_-]+(?:mask|seg|segmentation)(?:[\s_-]?\d+)?")
_SPLIT_WORDS = frozenset({*SPLIT_NAMES, "eval", "evaluation", "holdout", "fold", "split"})
_SPLIT_LIKE = re.compile(r"train|test|val|eval|dev|hold|fold|split", re.IGNORECASE)


def folders_of(parent: Path) -> list[Path]:
    """Return the folders in a folder that are not hidden, in natural order."""
    found = (entry for entry in parent.iterdir() if entry.is_dir() and not is_hidden(Path(entry.name)))
    return sorted(found, key=lambda folder: natural_order(folder.name))


def files_of(folder: Path, pattern: str = "**/*") -> list[Path]:
    """Return the files below a folder that are neither hidden nor in hidden folders."""
    return [file for file in folder.glob(pattern) if not is_hidden(file.relative_to(folder)) and not file.is_dir()]


def split_of(folder: Path) -> str:
    """Return the split that a folder is named after, or ""; ``Train set``, ``train-set`` and ``trainset`` are equal."""
    words = re.findall(r"[^\W_]+", folder.name.lower())
    word = "".join(word for word in words if word not in _ADDED_WORDS)
    return SPLIT_NAMES.get(word, "") or SPLIT_NAMES.get(word.removesuffix("set"), "")


def without_masks(images: list[Path]) -> tuple[list[Path], list[Path]]:
    """Return the images of a class, and the masks among them: pictures of where something is in another image.

    A mask is named like an image in its folder with ``_mask``, ``_seg`` or ``_segmentation`` (and a number) added, or
    is in a folder named ``mask``, ``masks``, ``segmentation`` or ``segmentations`` next to images.
    """
    names = {(image.parent, image.stem.lower()) for image in images}
    folders = {image.parent for image in images}

    def is_mask(image: Path) -> bool:
        named = _MASK_NAME.fullmatch(image.stem.lower())
        beside = image.parent.name.lower() in _MASK_FOLDERS and len(folders) > 1
        return beside or (named is not None and (image.parent, named[1]) in names)

    masks = [image for image in images if is_mask(image)]
    return [image for image in images if image not in set(masks)], masks


def class_folders(root: Path) -> list[tuple[Path, str]]:
    """Return each class folder with the split that it is in, or ""; a class may have a folder in every split.

    Raises:
        DataError: The layout is mixed, or is not that of classes.
    """
    root = _dataset_folder(root)
    splits = {folder: split_of(folder) for folder in folders_of(root)}
    if not any(split and folders_of(folder) for folder, split in splits.items()):
        _check_classes(root, list(splits))
        return [(folder, "") for folder in splits]
    others = [folder for folder, split in splits.items() if not split and _has_images(folder)]
    copies = [folder for folder in others if any(map(split_of, folders_of(_dataset_folder(folder))))]
    if copies:
        names = join_names(folder.name for folder in copies)
        logger.warning("left out: %s, which has split folders itself and seems to be a copy of the dataset", names)
    if mixed := [folder.name for folder in others if folder not in copies]:
        raise DataError(
            f"'{root}' mixes split folders with others ({join_names(mixed)}). Lay it out as class/* or split/class/*, "
            f"where split is one of {', '.join(sorted(SPLIT_NAMES))}."
        )
    return [(folder, split) for parent, split in splits.items() if split for folder in folders_of(parent)]


def folders_above_classes(root: Path) -> list[Path]:
    """Return the folders in which no image is expected: the dataset's folder and its splits."""
    root = _dataset_folder(root)
    splits = [folder for folder in folders_of(root) if split_of(folder)]
    return [root, *(splits if any(map(folders_of, splits)) else [])]


def _dataset_folder(root: Path) -> Path:
    """Return the folder that has the classes or splits: of a folder whose only folder has splits, that one."""
    folders = folders_of(root)
    if len(folders) == 1 and any(split_of(inner) and folders_of(inner) for inner in folders_of(folders[0])):
        return folders[0]
    return root


def _is_named_like_split(folder: Path) -> bool:
    """Return whether a whole word of a folder's name is that of a split: in train_2, but not in mitral valve."""
    words = re.findall(r"[^\W\d_]+", folder.name.lower())
    return any(word.removesuffix("set") in _SPLIT_WORDS for word in words)


def _has_images(folder: Path) -> bool:
    return any(map(is_image, files_of(folder)))


def _check_classes(root: Path, folders: list[Path]) -> None:
    """Refuse folders that do not seem to be classes, but splits with unknown names or without classes."""
    names = join_names(folder.name for folder in folders)
    subfolders = {folder: {inner.name for inner in folders_of(folder)} for folder in folders}
    flat_splits = not any(subfolders.values()) and all(map(_is_named_like_split, folders))
    if len(folders) > 1 and flat_splits and _has_images(root):
        tables = sorted(file.name for file in files_of(root, "*") if file.suffix.lower() in (".csv", ".tsv", ".xlsx"))
        beside = f" (there is {join_names(tables)})" if tables else ""
        raise DataError(
            f"The folders of '{root}' ({names}) are named like splits, not like classes. If a table has the labels"
            f"{beside}, give it: data.csv={{csv: TABLE.csv, images: FOLDER}}. Else lay it out as class/*."
        )
    if len(set(map(frozenset, subfolders.values()))) != 1 or len(subfolders[folders[0]]) < 2:
        return
    if any(is_image(file) for folder in folders for file in files_of(folder, "*")):
        return
    inner_names = sorted(subfolders[folders[0]], key=natural_order)
    inner = join_names(inner_names)
    if len(folders) == 1:
        raise DataError(
            f"'{root}' has only the folder '{names}', which has several ({inner}): did you mean data.root={folders[0]}?"
        )
    if any(_SPLIT_LIKE.search(folder.name) for folder in folders):
        raise DataError(
            f"Each folder of '{root}' ({names}) has the same folders ({inner}), so the outer ones seem to be splits. "
            f"Name them train, val and test, or give one of them as data.root={folders[0]}. If they are the classes, "
            "put their images into them directly."
        )
    logger.warning("each class folder (%s) has the same folders (%s): treated as parts of the class", names, inner)
