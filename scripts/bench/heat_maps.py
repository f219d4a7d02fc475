"""Measure whether heat maps hit: ``python scripts/bench/heat_maps.py --bundle outputs/demo/…/bundle``.

On phantoms of unseen patients with a tumor, whose masks are known: how often the hottest point lies within 15 pixels
(of 224) of the tumor, how well as many hottest pixels as the tumor has overlap it, and how often the hottest point lies
in the head. With ``--images FOLDER`` of class folders, on real images: how often the hottest point lies on what is
pictured, and by how much the class's probability falls when the hottest pixels are replaced by the image's mean color,
compared with Grad-CAM by Wilcoxon's signed-rank test. Times are of one thread. Intervals are Wilson's, or the bootstrap
of patients.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy import ndimage
from scipy.stats import binomtest, wilcoxon

from lesion.explanation.explanation import METHODS, Method
from lesion.explanation.localization import distance_to_mask, hottest_point, overlap, share_inside
from lesion.imaging.heatmap import encode_png
from lesion.model.predictor import Prediction, Predictor
from lesion.phantom.patient import Patient
from scripts.bench.common import bench_parser, bench_table, machine, verdict

SEED, FIRST_PATIENT = 7, 9000  # other heads than those of any training
SIDE = 224
NEAR = 15
REMOVED = (0.02, 0.05, 0.1, 0.2)  # shares of the pixels
LEAST = {"near the tumor": 0.95, "in each class": 0.90, "overlap": 0.45, "in the head": 0.99, "on the foreground": 0.98}
MOST_MS = {96: 250, 256: 600}
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Hit:
    """What one heat map hit."""

    label: str
    patient: int
    near: bool
    overlap: float
    inside: float
    in_head: bool


def main() -> int:
    parser = bench_parser(__doc__, require="exit with 1 unless occlusion reaches what is asked of it")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=48, help="phantom patients with a tumor; 0 for none")
    parser.add_argument("--images", type=Path, help="a folder of class folders with real images")
    parser.add_argument("--count", type=int, default=300, help="real images, spread over the folder")
    options = parser.parse_args()
    predictor = Predictor.load(options.bundle, "cpu", precision="f32", threads=1)
    console = Console(width=160)
    console.print(
        f"{machine()}; {predictor.bundle.name}, {predictor.bundle.preprocessing.size} pixels, one thread, f32"
    )
    passed = []
    if options.patients:
        passed.append(show_phantoms(console, predictor, options.patients))
    if options.images:
        passed.append(show_images(console, predictor, options))
    passed.append(show_times(console, predictor))
    return 1 if options.require and not all(passed) else 0


def show_phantoms(console: Console, predictor: Predictor, patients: int) -> bool:
    """Measure both methods on phantoms; return whether occlusion reaches what is asked."""
    images = list(phantoms(patients))
    answers = [answered(predictor, encode_png(np.repeat(image[..., None], 3, 2))) for _, _, image, _ in images]
    right = np.mean([answer.predicted_class == label for answer, (label, *_) in zip(answers, images, strict=True)])
    console.print(f"{len(images)} slices of {patients} phantom patients with a tumor; {right:.3f} are answered right")
    columns = ("method", "class", "near the tumor", "overlap", "heat inside the tumor", "in the head")
    table = bench_table("Hottest point and masks, with 95 % intervals", columns, left=2)
    found: dict[str, list[Hit]] = {method: [] for method in METHODS}
    for method in METHODS:
        for answer, (label, patient, image, mask) in zip(answers, images, strict=True):
            heat = enlarged(predictor.explain(answer, label, method).heat)
            found[method].append(hit(label, patient, heat, mask, head_of(image)))
        for label in ("all", *sorted({each.label for each in found[method]})):
            chosen = [each for each in found[method] if label in ("all", each.label)]
            table.add_row(method, label, *summarize(chosen))
    console.print(table)
    occluded = found["occlusion"]
    least = min(
        np.mean([each.near for each in occluded if each.label == label]) for label in {e.label for e in occluded}
    )
    values = {
        "near the tumor": np.mean([each.near for each in occluded]),
        "in each class": least,
        "overlap": np.mean([each.overlap for each in occluded]),
        "in the head": np.mean([each.in_head for each in occluded]),
    }
    return report(console, {name: float(value) for name, value in values.items()})


def phantoms(count: int) -> Sequence[tuple[str, int, NDArray[np.uint8], Mask]]:
    """Return the two middle slices of patients with a tumor: class, patient, picture and mask."""
    slices: list[tuple[str, int, NDArray[np.uint8], Mask]] = []
    number = FIRST_PATIENT
    while len({patient for _, patient, _, _ in slices}) < count:
        patient = Patient.sample(SEED, number)
        if patient.label != "notumor":
            for index in (1, 2):
                image, mask = patient.slice(index, size=SIDE)
                slices.append((patient.label, number, image, mask))
        number += 1
    return [each for each in slices if each[3].sum() >= 30]


def answered(predictor: Predictor, data: bytes) -> Prediction:
    [prediction] = predictor.predict([data])
    assert isinstance(prediction, Prediction), prediction
    return prediction


def enlarged(heat: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return a map at the size of the phantom: the network's input may be smaller."""
    rows = (np.arange(SIDE) + 0.5) * len(heat) / SIDE - 0.5
    return np.asarray(ndimage.map_coordinates(heat, np.meshgrid(rows, rows, indexing="ij"), order=1, mode="nearest"))


def head_of(image: NDArray[np.uint8]) -> Mask:
    """Return the head: what is bright, without specks and with all that it encloses."""
    bright = ndimage.gaussian_filter(image.astype(float), 2) > 18
    return np.asarray(ndimage.binary_fill_holes(ndimage.binary_opening(bright, iterations=2)))


def hit(label: str, patient: int, heat: NDArray[np.float64], mask: Mask, head: Mask) -> Hit:
    row, column = (round(value) for value in hottest_point(heat))
    near = distance_to_mask(heat, mask) <= NEAR
    return Hit(label, patient, near, overlap(heat, mask), share_inside(heat, mask), bool(head[row, column]))


def summarize(hits: Sequence[Hit]) -> tuple[str, ...]:
    patients = np.array([each.patient for each in hits])
    near, in_head = ([getattr(each, name) for each in hits] for name in ("near", "in_head"))
    return (
        counted(near), averaged([each.overlap for each in hits], patients),
        averaged([each.inside for each in hits], patients), counted(in_head),
    )  # fmt: skip


def counted(values: Sequence[bool]) -> str:
    low, high = binomtest(sum(values), len(values)).proportion_ci(method="wilson")
    return f"{np.mean(values):.3f} ({low:.3f}-{high:.3f})"


def averaged(values: Sequence[float], groups: NDArray[np.int64], seed: int = 0) -> str:
    """Return the mean with the interval of a bootstrap of groups."""
    rng, numbers = np.random.default_rng(seed), np.asarray(values)
    members = [numbers[groups == group] for group in np.unique(groups)]
    draws = rng.integers(len(members), size=(1000, len(members)))
    means = [np.concatenate([members[place] for place in draw]).mean() for draw in draws]
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{numbers.mean():.3f} ({low:.3f}-{high:.3f})"


def show_images(console: Console, predictor: Predictor, options: argparse.Namespace) -> bool:
    """Measure both methods on real images; return whether occlusion reaches what is asked, and beats Grad-CAM."""
    paths = sorted(path for path in options.images.glob("*/*") if path.is_file())
    chosen = [paths[place] for place in np.linspace(0, len(paths) - 1, options.count).round().astype(int)]
    answers = [answered(predictor, path.read_bytes()) for path in chosen]
    falls: dict[str, list[float]] = {}
    pictured: dict[str, list[bool]] = {}
    for method in METHODS:
        maps = [predictor.explain(answer, None, method).heat for answer in answers]
        falls[method] = [deletion(predictor, *pair) for pair in zip(answers, maps, strict=True)]
        pictured[method] = [on_foreground(*pair) for pair in zip(answers, maps, strict=True)]
    falls["random"] = [deletion(predictor, answer, noise(answer, number)) for number, answer in enumerate(answers)]
    table = bench_table(f"{len(chosen)} real images", ("method", "fall of the probability", "on the foreground"))
    ones = np.arange(len(chosen))
    for name, values in falls.items():
        table.add_row(name, averaged(values, ones), counted(pictured[name]) if name in pictured else "")
    console.print(table)
    p_value = float(wilcoxon(falls["occlusion"], falls["grad-cam"], alternative="greater").pvalue)
    console.print(f"Deletion by occlusion falls further than by Grad-CAM: p = {p_value:.2g} (Wilcoxon, paired)")
    return report(console, {"on the foreground": float(np.mean(pictured["occlusion"]))}) and p_value < 0.05


def on_foreground(answer: Prediction, heat: NDArray[np.float32]) -> bool:
    row, column = (round(value) for value in hottest_point(heat))
    return bool(head_of(answer.image.mean(axis=2).astype(np.uint8))[row, column])


def noise(answer: Prediction, seed: int) -> NDArray[np.float32]:
    coarse = np.random.default_rng(seed).random((12, 12))
    return np.asarray(ndimage.zoom(coarse, answer.image.shape[0] / 12, order=1), np.float32)


def deletion(predictor: Predictor, answer: Prediction, heat: NDArray[np.float32]) -> float:
    """Return by how much the class's probability falls when its hottest pixels are removed: the mean over shares."""
    order = np.argsort(-heat, axis=None, kind="stable")
    copies = np.repeat(answer.image[None], len(REMOVED), axis=0)
    for copy, share in zip(copies, REMOVED, strict=True):
        copy.reshape(-1, 3)[order[: int(share * heat.size)]] = answer.image.mean(axis=(0, 1)).astype(np.uint8)
    return float((answer.confidence - predictor.odds(copies, answer.predicted_class)[:, 0]).mean())


def show_times(console: Console, predictor: Predictor) -> bool:
    """Measure one explained answer; return whether it is fast enough, where a time is asked for its size."""
    image = encode_png(Patient.sample(SEED, FIRST_PATIENT).slice(1)[0])

    def milliseconds(method: Method) -> float:
        seconds = []
        for _ in range(7):
            began = time.perf_counter()
            predictor.explain(answered(predictor, image), None, method)
            seconds.append(time.perf_counter() - began)
        return 1000 * float(np.median(seconds))

    times = {method: milliseconds(method) for method in METHODS}
    size = predictor.bundle.preprocessing.size
    console.print(", ".join(f"explained by {method}: {value:.0f} ms" for method, value in times.items()))
    if size not in MOST_MS:
        return True
    met = times["occlusion"] <= MOST_MS[size]
    console.print(f"at {size} pixels at most {MOST_MS[size]} ms: {verdict(met)}")
    return met


def report(console: Console, values: dict[str, float]) -> bool:
    """Print each value with what is asked of it; return whether all reach it."""
    for name, value in values.items():
        console.print(f"{name}: {value:.3f}, at least {LEAST[name]}: {verdict(value >= LEAST[name])}")
    return all(value >= LEAST[name] for name, value in values.items())


if __name__ == "__main__":
    sys.exit(main())
