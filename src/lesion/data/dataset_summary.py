"""Summaries of a dataset: small tables for plots, each with a sentence that interprets its numbers."""

from dataclasses import dataclass

import pandas as pd

from lesion.core.text import format_count
from lesion.data.manifest import Manifest


@dataclass(frozen=True, eq=False)
class Finding:
    """A table of few rows, ready to be plotted, and its interpretation in a sentence."""

    table: pd.DataFrame
    sentence: str


def class_distribution(manifest: Manifest) -> Finding:
    """Count the images per class: columns images and share, index the class."""
    counts = manifest.table["label"].value_counts().reindex(manifest.classes)
    table = pd.DataFrame({"images": counts, "share": counts / counts.sum()}).rename_axis("class")
    most, least = str(counts.idxmax()), str(counts.idxmin())
    ratio = counts[most] / counts[least]
    balance = "balanced" if ratio < 1.5 else "unbalanced"
    advice = "" if ratio < 3 else " Weigh them (model.class_weights=balanced) and read balanced accuracy, not accuracy."
    return Finding(
        table,
        f"The classes are {balance}: “{most}” has {format_count(counts[most], 'image')}, “{least}” "
        f"{counts[least]:,}, {ratio:.1f} times fewer.{advice}",
    )


def brightness(manifest: Manifest) -> Finding:
    """Describe the images' mean gray value (0 to 255) per class: its quartiles, minimum and maximum."""
    values = manifest.table.groupby("label")["brightness"]
    table = values.describe()[["min", "25%", "50%", "75%", "max"]].reindex(manifest.classes).rename_axis("class")
    medians = table["50%"]
    spread = float((table["75%"] - table["25%"]).median())
    difference = float(medians.max() - medians.min())
    if difference > spread:
        interpretation = (
            "That is more than the images of one class differ: brightness alone tells some classes apart, and a model "
            "may learn the scanner instead of the lesion. Look at the Grad-CAM maps."
        )
    else:
        interpretation = "That is less than the images of one class differ: brightness alone does not tell them apart."
    return Finding(
        table,
        f"The median brightness ranges from {medians.min():.0f} (“{medians.idxmin()}”) to {medians.max():.0f} "
        f"(“{medians.idxmax()}”). {interpretation}",
    )


def resolutions(manifest: Manifest) -> Finding:
    """Count the images per size in pixels: columns width, height and images, the most frequent size first."""
    table = manifest.table.value_counts(["width", "height"]).rename("images").reset_index()
    first = table.iloc[0]
    size = f"{first['width']} × {first['height']}"
    if len(table) == 1:
        return Finding(table, f"Every image has {size} pixels.")
    share = first["images"] / table["images"].sum()
    ratio = (manifest.table["width"] / manifest.table["height"]).agg(["min", "max"])
    return Finding(
        table,
        f"There are {len(table):,} sizes; the most frequent is {size}, with {share:.0%} of the images. Width divided "
        f"by height ranges from {ratio['min']:.2f} to {ratio['max']:.2f}: data.fit sets how images become square.",
    )


def duplicates(manifest: Manifest) -> Finding:
    """Count the images in groups of near-duplicates per class: columns images, in_groups and share."""
    sizes = manifest.table.groupby("duplicate_group")["path"].transform("size")
    grouped = (sizes > 1).groupby(manifest.table["label"])
    table = pd.DataFrame({"images": grouped.size(), "in_groups": grouped.sum(), "share": grouped.mean()})
    table = table.reindex(manifest.classes).rename_axis("class")
    facts = manifest.facts()
    share = facts["duplicate_images"] / len(manifest.table)
    sentence = (
        f"{facts['duplicate_images']:,} of {format_count(len(manifest.table), 'image')} ({share:.0%}) are in "
        f"{format_count(facts['duplicate_groups'], 'group')} of near-duplicates, the largest of {int(sizes.max())} "
        "images; no group is split between training and test."
    )
    if facts["conflicts"]:
        sentence += f" {len(facts['conflicts'])} of them have a near-duplicate in another class."
    return Finding(table, sentence)
