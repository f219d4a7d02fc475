"""What numbers about the data mean, in a sentence made of them."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from serve.ui.text.sentences import count, percent

_BALANCED = 1.5  # a class up to so many times as large as another is about as large
_GREY = 255
_FEW = 20  # images: the quartiles of fewer say little of their class


def class_distribution(classes: Sequence[Mapping[str, Any]]) -> str:
    """Say how evenly images are spread over the classes, from ``classes`` of ``/dataset/stats``."""
    images = sum(row["images"] for row in classes)
    if not images:
        return "There is no accepted image yet."
    most, least = max(classes, key=_images), min(classes, key=_images)
    if most["images"] == least["images"]:
        every = f"Every class has {most['images']:,}, so that accuracy can be taken as it is."
        return f"{count(images, 'image')} in {count(len(classes), 'class')}. {every}"
    text = (
        f"{count(images, 'image')} in {count(len(classes), 'class')}. {most['label']} is the most frequent with "
        f"{most['images']:,} ({percent(most['share'])}), {least['label']} the rarest with {least['images']:,} "
        f"({percent(least['share'])})"
    )
    if not least["images"]:
        return f"{text}: no model can learn a class that it never sees."
    ratio = most["images"] / least["images"]
    if ratio <= _BALANCED:
        return f"{text}: the classes are about equally frequent, so that accuracy can be taken as it is."
    return (
        f"{text}, {ratio:.1f} times fewer: always guessing {most['label']} would be right for "
        f"{percent(most['share'])}, so look at macro-F1 rather than at accuracy."
    )


def brightness(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say whether brightness alone tells classes apart, from ``brightness`` of ``/dataset/stats``."""
    there = [row for row in rows if row["images"]]
    if not there:
        return "No brightness was measured yet."
    seen = sorted((row for row in there if row["images"] >= _FEW), key=lambda row: row["median"])
    if not seen:
        return f"No class has {_FEW} images yet, too few to compare how bright they are."
    if fewer := len(there) - len(seen):
        return f"{_brightness(seen)} Left out: {count(fewer, 'class')} of fewer than {_FEW} images."
    return _brightness(seen)


def _brightness(seen: Sequence[Mapping[str, Any]]) -> str:
    """Compare classes, the darkest first."""
    dark, bright = seen[0], seen[-1]
    if len(seen) == 1:
        return f"Half of the images of {dark['label']} are darker than {dark['median']:.0f} of {_GREY}."
    text = (
        f"Half of the images of {dark['label']}, the darkest class, are below {dark['median']:.0f} of {_GREY}; half of "
        f"those of {bright['label']}, the brightest, above {bright['median']:.0f}."
    )
    apart = [
        (other["q1"] - one["q3"], one["label"], other["label"])
        for number, one in enumerate(seen)
        for other in seen[number + 1 :]
        if one["q3"] < other["q1"]
    ]
    if not apart:
        return (
            f"{text} The middle halves of all classes overlap: whoever told two of them apart by brightness alone "
            "would be wrong for a quarter of one of them or more."
        )
    pairs = "one pair of classes" if len(apart) == 1 else f"{len(apart):,} pairs of classes"
    such = "" if len(apart) == 1 else "such as "
    _, one, other = max(apart)
    return (
        f"{text} The middle halves of {pairs} do not overlap ({such}{one} and {other}): a model may learn brightness "
        "instead of what matters."
    )


def resolutions(stats: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> str:
    """Say how alike the images' sizes are, from ``/dataset/stats`` and ``preprocessing`` of ``/info``."""
    rows, others = stats["resolutions"], stats["other_resolutions"]
    if not rows:
        return "There is no image whose size could be told."
    first, images = rows[0], sum(row["images"] for row in rows) + others
    size = f"{first['width']} × {first['height']} pixels"
    if len(rows) == 1 and not others:
        text = f"All {count(images, 'image')} {'is' if images == 1 else 'are'} {size}."
    else:
        sizes = f"more than {count(len(rows), 'size')}" if others else count(len(rows), "size")
        text = f"There are {sizes}; the most frequent, {size}, has {percent(first['images'] / images)} of the images."
    seen = f"smaller than the {preprocessing['size']} pixels that the model sees"
    trimmed = ", before dark margins are cut off" if preprocessing.get("trim") else ""
    if small := stats["enlarged"]:
        share = "All" if small == images else f"{small:,} of {images:,} ({percent(small / images)})"
        return f"{text} {share} {'is' if small == 1 else 'are'} {seen}{trimmed}, and enlarged."
    return f"{text} None is {seen}{trimmed}."


def duplicates(found: Mapping[str, Any], images: int) -> str:
    """Say how many images are no new evidence, from ``duplicates`` of ``/dataset/stats``."""
    if not found["groups"]:
        alone = "is a near-duplicate of another or shares a patient or plant with one"
        return f"None of the {count(images, 'image')} {alone}."
    groups = "one group" if found["groups"] == 1 else count(found["groups"], "group")
    largest = "" if found["groups"] == 1 else f", the largest of {found['largest']:,}"
    return (
        f"{found['images']:,} of {count(images, 'image')} ({percent(found['images'] / images)}) have near-duplicates "
        f"or share a patient or plant: {groups}{largest}. A group stands on one side, learned from or judged by, never "
        "on both."
    )


def leakage(found: Mapping[str, Any] | None, *, known: bool) -> str:
    """Say how far the split that came with the data can be trusted, from ``/dataset/stats``.

    Args:
        found: Its ``leakage``.
        known: Its ``leakage_known``: if not, nothing can be said.
    """
    if not known:
        return "Whether the data came with a test split of its own, and whether that leaks, is not known here."
    if found is None or not found["test_images"]:
        return "The data came without a test split of its own, so that there is none that could leak."
    images, leaked = found["test_images"], found["leaked"]
    if not leaked:
        own = f"{count(images, 'image')} of the data's own test split"
        return f"None of the {own} has a near-duplicate in its training split."
    return (
        f"{leaked:,} of the {count(images, 'image')} ({percent(leaked / images)}) of the data's own test split have a "
        "near-duplicate in its training split: a score on it partly measures memory. This is why Lesion splits anew."
    )


def uploads(days: Sequence[Mapping[str, Any]]) -> str:
    """Say what came in and what became of it, from ``uploads`` of ``/dataset/stats``."""
    totals = {name: sum(day[name] for day in days) for name in ("accepted", "quarantined", "rejected")}
    files = sum(totals.values())
    if not files:
        return "Nothing was uploaded yet: all images came with the first model."
    used = [day for day in days if any(day[name] for name in totals)]
    busiest = max(used, key=lambda day: sum(day[name] for name in totals))
    text = (
        f"{count(files, 'file')} on {count(len(used), 'day')}: {percent(totals['accepted'] / files)} accepted, "
        f"{percent(totals['quarantined'] / files)} in quarantine, {percent(totals['rejected'] / files)} refused."
    )
    if len(used) == 1:
        return text
    return f"{text} Most came on {_day(busiest['day'])}, {sum(busiest[name] for name in totals):,} of them."


def montage(label: str, shown: int, rows: Sequence[Mapping[str, Any]]) -> str:
    """Say what a montage shows of a class, from ``brightness`` of ``/dataset/stats``."""
    row = next((row for row in rows if row["label"] == label), None)
    if row is None or not row["images"]:
        return f"There is no accepted image of {label} yet."
    if row["images"] == 1:
        return f"The only image of {label}. Its mean brightness is {row['median']:.0f} of {_GREY}."
    sample = "All" if shown >= row["images"] else f"{shown:,} of"
    return (
        f"{sample} {count(row['images'], 'image')} of {label}, chosen at random. Half of them are darker than "
        f"{row['median']:.0f} of {_GREY}, the darkest has {row['low']:.0f} and the brightest {row['high']:.0f}."
    )


def _images(row: Mapping[str, Any]) -> int:
    return int(row["images"])


def _day(iso: str) -> str:
    return date.fromisoformat(iso).strftime("%d %B %Y").lstrip("0")
