"""What a dataset looks like: small tables for plots, each with a sentence that its numbers give."""

from dataclasses import dataclass

import pandas as pd

from lesion.data.manifest import Manifest


@dataclass(frozen=True, eq=False)
class Finding:
    """A table and what it says.

    Attributes:
        table: Few rows, ready to be plotted.
        sentence: Its interpretation, made from its numbers.
    """

    table: pd.DataFrame
    sentence: str


def class_distribution(manifest: Manifest) -> Finding:
    """Count the images a class: columns images and share, index the class."""
    counts = manifest.table["label"].value_counts().reindex(manifest.classes)
    table = pd.DataFrame({"images": counts, "share": counts / counts.sum()}).rename_axis("class")
    most, least = str(counts.idxmax()), str(counts.idxmin())
    ratio = counts[most] / counts[least]
    words = "The classes are balanced" if ratio < 1.5 else "The classes are unbalanced"
    advice = (
        "" if ratio < 3 else " Weigh them (model.class_weights=balanced) and look at balanced accuracy, not accuracy."
    )
    return Finding(
        table,
        f"{words}: “{most}” has {counts[most]:,} images, “{least}” {counts[least]:,}, {ratio:.1f} times fewer.{advice}",
    )


def brightness(manifest: Manifest) -> Finding:
    """Describe the images' mean grey value (0 to 255) a class: its quartiles, minimum and maximum."""
    values = manifest.table.groupby("label")["brightness"]
    table = values.describe()[["min", "25%", "50%", "75%", "max"]].reindex(manifest.classes).rename_axis("class")
    medians = table["50%"]
    spread = float((table["75%"] - table["25%"]).median())
    gap = float(medians.max() - medians.min())
    if gap > spread:
        words = (
            "That is more than the classes vary in themselves: brightness alone tells some of them apart, and a "
            "model may learn the scanner instead of the lesion. Look at the Grad-CAM maps."
        )
    else:
        words = "That is less than the classes vary in themselves: brightness alone does not give the class away."
    return Finding(
        table,
        f"The median brightness goes from {medians.min():.0f} (“{medians.idxmin()}”) to {medians.max():.0f} "
        f"(“{medians.idxmax()}”). {words}",
    )


def resolutions(manifest: Manifest) -> Finding:
    """Count the images a size in pixels: columns width, height and images, the most frequent first."""
    table = manifest.table.value_counts(["width", "height"]).rename("images").reset_index()
    first = table.iloc[0]
    share = first["images"] / table["images"].sum()
    ratio = (manifest.table["width"] / manifest.table["height"]).agg(["min", "max"])
    if len(table) == 1:
        return Finding(table, f"Every image has {first['width']} × {first['height']} pixels.")
    return Finding(
        table,
        f"There are {len(table):,} sizes; the most frequent, {first['width']} × {first['height']}, has {share:.0%} of "
        f"the images. Proportions go from {ratio['min']:.2f} to {ratio['max']:.2f}: data.fit says how they become a "
        "square.",
    )


def duplicates(manifest: Manifest) -> Finding:
    """Count the images that stand in groups of near-duplicates, a class: columns images, in_groups and share."""
    sizes = manifest.table.groupby("duplicate_group")["path"].transform("size")
    grouped = (sizes > 1).groupby(manifest.table["label"])
    table = pd.DataFrame({"images": grouped.size(), "in_groups": grouped.sum(), "share": grouped.mean()})
    table = table.reindex(manifest.classes).rename_axis("class")
    facts = manifest.facts()
    share = facts["duplicate_images"] / len(manifest.table)
    words = (
        f"{facts['duplicate_images']:,} of {len(manifest.table):,} images ({share:.0%}) stand in "
        f"{facts['duplicate_groups']:,} groups of near-duplicates, the largest of {int(sizes.max())} images; no group "
        "is split between training and test."
    )
    conflicts = len(facts["conflicts"])
    beside = f" {conflicts} of them stand beside a copy under another class." if conflicts else ""
    return Finding(table, words + beside)
