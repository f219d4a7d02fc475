"""Where images come from, as far as their files tell: other scanners, cameras and exports leave other files."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

_RARE = 0.02  # share of the images below which a value is one of "other"
_MANY = 12  # values of one kind, such as sizes; more are those of a collection of photographs, not of a device
OTHER = "other"


def sources_of(table: pd.DataFrame) -> "pd.Series[str]":
    """Name the source of each row of a manifest's table, from what its file tells and others' files tell differently.

    That is the device, the format, the color mode, the size in pixels, the folder above splits and classes, and the
    pattern of the name; the last two only where they do not depend on the class, since they would tell it. Values that
    few images have, and kinds with too many values, are left out.

    Returns:
        Texts such as "JPEG, L, 512 × 512"; all are empty if the files tell nothing apart.
    """
    size = table["width"].astype(str) + " × " + table["height"].astype(str)
    kinds = [
        _frequent(table["device"].astype(str)),
        _frequent(table["format"].astype(str)),
        _frequent(table["mode"].astype(str)),
        _frequent(size),
        _without_class(_frequent(_collections(table)), table["label"]),
        _without_class(_frequent(table["path"].map(_name_pattern)), table["label"]),
    ]
    telling = [kind for kind in kinds if kind.nunique() > 1]
    if not telling:
        return pd.Series("", index=table.index, dtype=str)
    return pd.Series([", ".join(filter(None, parts)) for parts in zip(*telling, strict=True)], table.index, dtype=str)


def predictability(sources: Sequence[str], labels: Sequence[str], groups: Sequence[int]) -> tuple[float, float]:
    """Return how often the source alone tells the class, and how often guessing the most frequent class does.

    For each group, the class of a source is the most frequent one in all other groups; every image counts alike.

    Args:
        sources: N sources.
        labels: N classes.
        groups: N group numbers.
    """
    frame = pd.DataFrame({"source": list(sources), "label": list(labels), "group": list(groups)})
    own = frame.groupby(["source", "group", "label"]).size().unstack("label", fill_value=0)
    others = own.groupby(level="source").transform("sum") - own
    guess = others.to_numpy().argmax(axis=1)
    right = own.to_numpy()[np.arange(len(own)), guess][others.to_numpy().any(axis=1)]
    return float(right.sum() / len(frame)), float(frame["label"].value_counts(normalize=True).iloc[0])


def _frequent(values: "pd.Series[str]") -> "pd.Series[str]":
    """Replace rare values; of a kind with too many values nothing is left."""
    shares = values.map(values.value_counts(normalize=True))
    kept = values.where(shares >= _RARE, OTHER)
    too_many = kept.nunique() > _MANY or float(np.mean(kept == OTHER)) > 0.5
    return pd.Series("", index=values.index, dtype=str) if too_many else kept


def _without_class(values: "pd.Series[str]", labels: "pd.Series[str]") -> "pd.Series[str]":
    """Return the values if each of them has images of several classes, and otherwise empty ones."""
    several = labels.groupby(values).nunique().min() > 1
    return values if several else pd.Series("", index=values.index, dtype=str)


def _collections(table: pd.DataFrame) -> "pd.Series[str]":
    """Return the first folder of each path that has others below it, such as that of an archive, but not of a split."""
    folders = table["path"].map(lambda path: PurePosixPath(path).parts[:-1])
    first = folders.map(lambda parts: parts[0] if len(parts) > 1 else "")
    split = table["source_split"]
    is_split = split.nunique() > 1 and (split.groupby(first).nunique() == 1).all()
    return pd.Series("", index=table.index, dtype=str) if is_split else first


def _name_pattern(path: str) -> str:
    """Return a file's name without its suffix and with # for its numbers."""
    return re.sub(r"\d+", "#", PurePosixPath(path).stem)
