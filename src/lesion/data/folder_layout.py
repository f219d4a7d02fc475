"""Which folders of a dataset are its classes, and which are its splits: the rules for all layouts, in one place.

======================================== ======================================================================
in the dataset's folder                  is read as
======================================== ======================================================================
``class/*``                              classes
``split/class/*``                        classes in splits, see ``SPLIT_NAMES``: ``Test set`` and ``seg_train`` too
``fold_1/class/*``, ``fold_2/class/*``   classes; the folds are read as one dataset, which is split again
one folder, which has splits             that folder
``images`` beside ``masks``              the folder ``images``; the same within a split
a folder of masks beside splits          masks, see :mod:`lesion.data.masks`
``masks/class/*`` next to the classes    masks
a folder beside splits that has splits   a copy of the dataset: left out, with a warning
a folder named like a split, with        a class, if no other folder is a split
images in it and no folders
only folders named like splits, with     refused: the labels must be elsewhere, such as in a table
images in them and no folders
a link to a folder                       that folder; but within a class a link to a folder of the dataset is left
                                         out, since that folder is read where it is
======================================== ======================================================================
"""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lesion.core.errors import DataError
from lesion.core.paths import is_hidden
from lesion.core.text import join_names, natural_order
from lesion.data.masks import is_mask_folder
from lesion.imaging.file_types import is_image

logger = logging.getLogger(__name__)

SPLIT_NAMES = {
    "train": "train", "training": "train", "trn": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "tst": "test",
}  # fmt: skip
# Words that people add to the name of a split: Test set, train_images, seg_train.
_ADDED_WORDS = frozenset({"set", "data", "dataset", "image", "images", "img", "imgs", "seg", "split", "folder"})
_IMAGE_FOLDERS = frozenset({"image", "images", "img", "imgs"})
_FOLD = re.compile(r"(?:cv|k)?[\W_]*fold[\W_]*\d+", re.IGNORECASE)
_SPLIT_WORDS = frozenset({*SPLIT_NAMES, "eval", "evaluation", "holdout", "fold", "split"})
_SPLIT_LIKE = re.compile(r"train|test|val|eval|dev|hold|fold|split", re.IGNORECASE)


class Layout(NamedTuple):
    """The folders of a dataset."""

    classes: list[tuple[Path, str]]  # each with the split that it is in, or ""; a class may be in every split
    masks: list[Path]  # folders that hold nothing but masks


def folders_of(parent: Path) -> list[Path]:
    """Return the folders in a folder that are not hidden and do not lead back to it, in natural order."""
    found = (entry for entry in parent.iterdir() if entry.is_dir() and not is_hidden(Path(entry.name)))
    onward = (entry for entry in found if not (entry.is_symlink() and _is_inside(parent, entry)))
    return sorted(onward, key=lambda folder: natural_order(folder.name))


def files_of(folder: Path, root: Path | None = None, *, deep: bool = True) -> list[Path]:
    """Return the files in a folder, and with ``deep`` those below it, that are neither hidden nor in hidden folders.

    Links to folders are followed, unless they lead to a folder of the dataset ``root`` that is not hidden: that one is
    read where it is, and the link may lead back.
    """
    return list(_walk(folder, Path(os.path.realpath(root or folder)), deep, set()))


def _walk(folder: Path, root: Path, deep: bool, followed: set[Path]) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if is_hidden(Path(entry.name)):
            continue
        if not entry.is_dir():
            yield entry
        elif deep:
            if entry.is_symlink():
                target = Path(os.path.realpath(entry))
                inside = target.is_relative_to(root) and not is_hidden(target.relative_to(root))
                if inside or root.is_relative_to(target) or target in followed:
                    continue
                followed.add(target)
            yield from _walk(entry, root, deep, followed)


def _is_inside(folder: Path, other: Path) -> bool:
    """Return whether a folder is another one or in it, whatever links lead to them."""
    return Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(other))


def split_of(folder: Path) -> str:
    """Return the split that a folder is named after, or ""; ``Train set``, ``train-set`` and ``trainset`` are equal."""
    words = re.findall(r"[^\W_]+", folder.name.lower())
    word = "".join(word for word in words if word not in _ADDED_WORDS)
    return SPLIT_NAMES.get(word, "") or SPLIT_NAMES.get(word.removesuffix("set"), "")


def find_layout(root: Path) -> Layout:
    """Return the class folders of a dataset and its folders of masks.

    Raises:
        DataError: The layout is mixed, or is not that of classes.
    """
    root, masks = _dataset_folder(root)
    splits = {folder: split_of(folder) for folder in folders_of(root)}
    if not any(split and folders_of(folder) for folder, split in splits.items()):
        if folds := _fold_classes(list(splits)):
            return Layout([(folder, "") for folder in folds], masks)
        beside = _masks_of_classes(list(splits))
        classes = [(folder, "") for folder in splits if folder not in beside]
        _check_classes(root, [folder for folder, _ in classes])
        return Layout(classes, masks + beside)
    masks += [folder for folder, split in splits.items() if not split and is_mask_folder(folder.name, _SPLIT_WORDS)]
    others = [folder for folder, split in splits.items() if not split and folder not in masks and _has_images(folder)]
    copies = [folder for folder in others if any(map(split_of, folders_of(_dataset_folder(folder)[0])))]
    if copies:
        names = join_names(folder.name for folder in copies)
        logger.warning("left out: %s, which has split folders itself and seems to be a copy of the dataset", names)
    if mixed := [folder.name for folder in others if folder not in copies]:
        raise DataError(
            f"'{root}' mixes split folders with others ({join_names(mixed)}). Lay it out as class/* or split/class/*, "
            f"where split is one of {', '.join(sorted(SPLIT_NAMES))}."
        )
    classes = []
    for folder, split in splits.items():
        if split:
            parent, masks_here = _without_masks(folder)
            masks += masks_here
            classes += [(inner, split) for inner in folders_of(parent)]
    return Layout(classes, masks)


def folders_above_classes(root: Path) -> list[Path]:
    """Return the folders in which no image is expected: the dataset's folder and its splits."""
    root, _ = _dataset_folder(root)
    splits = [folder for folder in folders_of(root) if split_of(folder)]
    return [root, *(splits if any(map(folders_of, splits)) else [])]


def _dataset_folder(root: Path) -> tuple[Path, list[Path]]:
    """Return the folder that has the classes or splits, and the folders of masks beside it.

    Of a folder whose only folder has splits it is that one, and of ``images`` beside ``masks`` the first.
    """
    folders = folders_of(root)
    if len(folders) == 1 and any(split_of(inner) and folders_of(inner) for inner in folders_of(folders[0])):
        return folders[0], []
    return _without_masks(root)


def _without_masks(parent: Path) -> tuple[Path, list[Path]]:
    """Return the folder ``images`` if a folder has nothing else but folders of masks, and these; else the folder."""
    folders = folders_of(parent)
    masks = [folder for folder in folders if is_mask_folder(folder.name)]
    images = [folder for folder in folders if folder.name.lower() in _IMAGE_FOLDERS]
    if masks and len(images) == 1 and len(masks) + 1 == len(folders) and folders_of(images[0]):
        return images[0], masks
    return parent, []


def _masks_of_classes(folders: list[Path]) -> list[Path]:
    """Return the folders of masks among class folders: with folders named like classes, and no images beside these."""
    names = {folder.name for folder in folders}

    def has_classes(folder: Path) -> bool:
        inner = {inner.name for inner in folders_of(folder)}
        return bool(inner) and inner < names and not any(map(is_image, files_of(folder, deep=False)))

    return [folder for folder in folders if is_mask_folder(folder.name) and has_classes(folder)]


def _fold_classes(folders: list[Path]) -> list[Path]:
    """Return the class folders of all folds, if a dataset's folders are folds; else nothing."""
    if len(folders) < 2 or not all(_FOLD.fullmatch(folder.name) for folder in folders):
        return []
    inner = [inner for folder in folders for inner in folders_of(folder)]
    if not inner or any(map(split_of, inner)):
        return []
    names = join_names(folder.name for folder in folders)
    logger.warning("read as one dataset, which is split again: the folds %s", names)
    return inner


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
        tables = sorted(
            file.name for file in files_of(root, deep=False) if file.suffix.lower() in (".csv", ".tsv", ".xlsx")
        )
        beside = f" (there is {join_names(tables)})" if tables else ""
        raise DataError(
            f"The folders of '{root}' ({names}) are named like splits, not like classes. If a table has the labels"
            f"{beside}, give it: data.csv={{csv: TABLE.csv, images: FOLDER}}. Else lay it out as class/*."
        )
    if len(set(map(frozenset, subfolders.values()))) != 1 or len(subfolders[folders[0]]) < 2:
        return
    if any(is_image(file) for folder in folders for file in files_of(folder, deep=False)):
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
