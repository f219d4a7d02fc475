"""Sentences about the data, written from its numbers."""

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import combinations
from typing import Any

from lesion.core.text import format_count, format_percent
from lesion.evaluation.findings import leakage_finding

_BALANCED = 1.5  # how many times as large a class may be for both to count as about equally frequent
_WHITE = 255
_FEW = 20  # images; the quartiles of fewer images mean little


def class_distribution(classes: Sequence[Mapping[str, Any]]) -> str:
    """Write how evenly images are spread over the classes, from ``classes`` of ``/dataset/stats``."""
    images = sum(row["images"] for row in classes)
    if not images:
        return "There are no accepted images yet."
    text = f"{format_count(images, 'image')} in {format_count(len(classes), 'class')}."
    most, least = (choose(classes, key=lambda row: row["images"]) for choose in (max, min))
    if most["images"] == least["images"]:
        return f"{text} Every class has {most['images']:,}, so accuracy can be taken at face value."
    text += (
        f" {most['label']} is the most frequent with {most['images']:,} ({format_percent(most['share'])}), "
        f"{least['label']} the rarest with {least['images']:,} ({format_percent(least['share'])})"
    )
    if not least["images"]:
        return f"{text}: no model can learn a class that it never sees."
    ratio = most["images"] / least["images"]
    if ratio <= _BALANCED:
        return f"{text}: the classes are about equally frequent, so accuracy can be taken at face value."
    return (
        f"{text}, {ratio:.1f} times fewer: always guessing {most['label']} would be right for "
        f"{format_percent(most['share'])}, so look at macro-F1 rather than at accuracy."
    )


def brightness(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write whether brightness alone tells classes apart, from ``brightness`` of ``/dataset/stats``."""
    present = [row for row in rows if row["images"]]
    if not present:
        return "No brightness has been measured yet."
    large = sorted((row for row in present if row["images"] >= _FEW), key=lambda row: row["median"])
    if not large:
        return f"No class has {_FEW} images yet; fewer are too few to compare brightness."
    if left_out := len(present) - len(large):
        classes = format_count(left_out, "class")
        return f"{_compare_brightness(large)} Left out: {classes} with fewer than {_FEW} images."
    return _compare_brightness(large)


def _compare_brightness(rows: Sequence[Mapping[str, Any]]) -> str:
    """Compare classes that are sorted by brightness."""
    dark, bright = rows[0], rows[-1]
    if len(rows) == 1:
        return f"Half of the images of {dark['label']} are darker than {dark['median']:.0f} of {_WHITE}."
    text = (
        f"Half of the images of {dark['label']}, the darkest class, are below {dark['median']:.0f} of {_WHITE}; half "
        f"of those of {bright['label']}, the brightest class, are above {bright['median']:.0f}."
    )
    gaps = [
        (brighter["q1"] - darker["q3"], darker["label"], brighter["label"])
        for darker, brighter in combinations(rows, 2)
        if darker["q3"] < brighter["q1"]
    ]
    if not gaps:
        return (
            f"{text} The middle halves of all classes overlap: telling any two of them apart by brightness alone would "
            "be wrong for at least a quarter of the images of one of them."
        )
    pairs, example = ("one pair of classes", "") if len(gaps) == 1 else (f"{len(gaps):,} pairs of classes", "such as ")
    _, darker, brighter = max(gaps)
    return (
        f"{text} The middle halves of {pairs} do not overlap ({example}{darker} and {brighter}): a model may learn "
        "brightness instead of what matters."
    )


def resolutions(stats: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> str:
    """Write how alike the images' sizes are, from ``/dataset/stats`` and ``preprocessing`` of ``/info``."""
    rows, others = stats["resolutions"], stats["other_resolutions"]
    if not rows:
        return "The size of the images is not known."
    most, images = rows[0], sum(row["images"] for row in rows) + others
    size = f"{most['width']} × {most['height']} pixels"
    if len(rows) == 1 and not others:
        text = f"All {format_count(images, 'image')} {'is' if images == 1 else 'are'} {size}."
    else:
        sizes = ("more than " if others else "") + format_count(len(rows), "size")
        share = format_percent(most["images"] / images)
        text = f"There are {sizes}; the most frequent is {size}, with {share} of the images."
    limit = f"smaller than the {preprocessing['size']} pixels that the model sees"
    limit += " (before dark margins are cut off)" if preprocessing.get("trim") else ""
    enlarged = stats["enlarged"]
    if not enlarged:
        return f"{text} No image is {limit}."
    subject = "All" if enlarged == images else f"{enlarged:,} of {images:,} ({format_percent(enlarged / images)})"
    verb = "is" if enlarged == 1 else "are"
    return f"{text} {subject} {verb} {limit} and {verb} enlarged."


def duplicates(groups: Mapping[str, Any], images: int) -> str:
    """Write how many images are not independent evidence, from ``duplicates`` of ``/dataset/stats``."""
    if not groups["groups"]:
        related = "is a near-duplicate of another or shares a patient or plant with another"
        return f"None of the {format_count(images, 'image')} {related}."
    number = "one group"
    if groups["groups"] > 1:
        number = f"{format_count(groups['groups'], 'group')}, the largest with {groups['largest']:,} images"
    return (
        f"{groups['images']:,} of {format_count(images, 'image')} ({format_percent(groups['images'] / images)}) have "
        f"near-duplicates or share a patient or plant: {number}. A group is used either to learn from or to evaluate, "
        "never for both."
    )


def leakage(leakage: Mapping[str, Any] | None, *, known: bool) -> str:
    """Write how far the split that came with the data can be trusted, from two members of ``/dataset/stats``."""
    if not known:
        return "It is not known here whether the data came with a test split, and whether that split leaks."
    if leakage is None or not leakage["test_images"]:
        return "The data came without a test split, so no such split can leak."
    return leakage_finding(leakage) + (" This is why Lesion makes its own splits." if leakage["leaked"] else "")


def uploads(days: Sequence[Mapping[str, Any]]) -> str:
    """Write how many files were uploaded, and with which outcomes, from ``uploads`` of ``/dataset/stats``."""
    totals = {name: sum(day[name] for day in days) for name in ("accepted", "quarantined", "rejected")}
    files = sum(totals.values())
    if not files:
        return "Nothing has been uploaded yet: all images came with the first model."
    files_by_day = {day["day"]: total for day in days if (total := sum(day[name] for name in totals))}
    accepted, quarantined, rejected = (format_percent(total / files) for total in totals.values())
    text = (
        f"{format_count(files, 'file')} on {format_count(len(files_by_day), 'day')}: {accepted} accepted, "
        f"{quarantined} in quarantine, {rejected} refused."
    )
    if len(files_by_day) == 1:
        return text
    busiest = max(files_by_day, key=lambda day: files_by_day[day])
    day = date.fromisoformat(busiest).strftime("%d %B %Y").lstrip("0")
    return f"{text} The busiest day was {day} with {format_count(files_by_day[busiest], 'file')}."


def montage(label: str, images: int, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write what a montage shows of a class, from ``brightness`` of ``/dataset/stats``."""
    row = next((row for row in rows if row["label"] == label), None)
    if row is None or not row["images"]:
        return f"There are no accepted images of {label} yet."
    if row["images"] == 1:
        return f"The only image of {label}. Its mean brightness is {row['median']:.0f} of {_WHITE}."
    sample, order = ("All", "in random order") if images >= row["images"] else (f"{images:,} of", "chosen at random")
    return (
        f"{sample} {format_count(row['images'], 'image')} of {label}, {order}. Half of the class is darker "
        f"than {row['median']:.0f} of {_WHITE}; its darkest image has {row['low']:.0f} and its brightest "
        f"{row['high']:.0f}."
    )
