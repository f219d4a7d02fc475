"""Measure probabilities after training with weighted classes: ``python scripts/bench/weighted_classes.py``.

Simulated: normal classes of 60, 20, 10, 6 and 4 %, and the exact model of data in which each counts alike, as
``model.class_weights=balanced`` makes it. It is calibrated on few or many images and measured on 400,000 others, by a
temperature alone and as Lesion does. Trained: the demo's network on phantoms of the same five shares, with weighted
classes; its fifth class comes from a low-field scanner. The class-wise calibration error is required to be at most
0.02; of the training it is the value that the report shows.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy.optimize import minimize_scalar

from lesion.core.commands import lesion_command
from lesion.evaluation.calibration import fit_calibration
from lesion.phantom.folder import generate
from scripts.bench.common import REPOSITORY, bench_parser, bench_table, machine, verdict

SHARES = np.array([0.60, 0.20, 0.10, 0.06, 0.04])
LARGEST_ERROR = 0.02
BINS = 15
DISTANCE = 2.5
TEST_IMAGES = 400_000
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def draw(images: int, seed: int) -> tuple[Floats, Ints]:
    """Draw the logits of a network that was trained with balanced weights, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(SHARES), images, p=SHARES)
    values = rng.normal(size=(images, len(SHARES)))
    values[np.arange(images), labels] += DISTANCE
    return DISTANCE * values, labels  # the shares and the weights cancel out


def softmax(logits: Floats) -> Floats:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def classwise_error(probabilities: Floats, labels: Ints) -> float:
    """Return the mean over the classes of Σ |share − stated probability| over 15 bins."""
    errors = []
    for c in range(probabilities.shape[1]):
        stated = probabilities[:, c]
        bins = np.clip(np.ceil(stated * BINS).astype(int) - 1, 0, BINS - 1)
        errors.append(np.abs(np.bincount(bins, (labels == c) - stated, BINS)).sum() / len(labels))
    return float(np.mean(errors))


def temperature_alone(logits: Floats, labels: Ints) -> float:
    """Return the temperature of the smallest log-loss, without a prior."""

    def loss(log_temperature: float) -> float:
        answers = softmax(logits / np.exp(log_temperature))
        return float(-np.log(np.maximum(answers[np.arange(len(labels)), labels], 1e-300)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def simulate(sizes: tuple[int, ...], draws: int, console: Console) -> bool:
    """Print the mean error by the number of calibration images, and return whether each is small enough."""
    test, test_labels = draw(TEST_IMAGES, 10**6)
    weights = (1 / (len(SHARES) * SHARES)).tolist()
    table = bench_table(
        f"Simulated, {draws} draws of calibration images", ("images", "temperature alone", "Lesion", "largest")
    )
    passed = True
    for size in sizes:
        plain: list[float] = []
        errors: list[float] = []
        for seed in range(draws):
            logits, labels = draw(size, seed)
            plain.append(classwise_error(softmax(test / temperature_alone(logits, labels)), test_labels))
            calibration = fit_calibration(logits, labels, tuple("abcde"), weights)
            errors.append(classwise_error(calibration.probabilities(test).astype(np.float64), test_labels))
        passed &= float(np.mean(errors)) <= LARGEST_ERROR
        table.add_row(str(size), f"{np.mean(plain):.4f}", f"{np.mean(errors):.4f}", f"{max(errors):.4f}")
    console.print(table)
    return passed


def make_phantoms(folder: Path, patients: int) -> None:
    """Make a folder of five classes with the shares; ``patients`` is the number of all."""
    wanted = dict(zip(("glioma", "meningioma", "pituitary", "notumor"), np.round(patients * SHARES[:4]), strict=True))
    generate(folder / "all", patients=4 * int(max(wanted.values())), slices=4)
    generate(folder / "low", patients=4 * round(patients * SHARES[4]), slices=4, low_field=True, seed=1)
    data = folder / "data"
    for source, label, name, count in [
        *((folder / "all", label, label, count) for label, count in wanted.items()),
        (folder / "low", "notumor", "low_field", round(patients * SHARES[4])),
    ]:
        (data / name).mkdir(parents=True)
        files = sorted((source / label).glob("*.png"))
        for file in files[: 4 * int(count)]:
            (data / name / file.name).symlink_to(file)


def train(folder: Path, patients: int, settings: list[str], console: Console) -> bool:
    """Train on phantoms of the shares, print the errors that the run reports, and return whether they are met."""
    make_phantoms(folder, patients)
    command = [
        *lesion_command("train"), "experiment=phantom_mri", f"data.root={folder / 'data'}",
        f"hydra.run.dir={folder / 'run'}", "model.class_weights=balanced", "explain.road_images=0",
        "evaluation.folds=0", *settings,
    ]  # fmt: skip
    subprocess.run(command, cwd=REPOSITORY, check=True)
    record = json.loads((folder / "run" / "metrics.json").read_text("utf-8"))
    metrics = record["metrics"]
    error = metrics["test/ece_classwise"]
    console.print(
        f"Trained on {patients} phantoms of five classes, {record['images']} test images in {record['groups']} groups: "
        f"class-wise error {error:.4f} ({metrics['test/ece_classwise_low']:.4f} to "
        f"{metrics['test/ece_classwise_high']:.4f}), without calibration "
        f"{metrics['test/ece_classwise_uncalibrated']:.4f}; of the answered class {metrics['test/ece']:.4f}; accuracy "
        f"{metrics['test/acc']:.3f}, balanced {metrics['test/balanced_acc']:.3f}; {machine()}."
    )
    return bool(error <= LARGEST_ERROR)


def main() -> int:
    parser = bench_parser(__doc__, require="exit with 1 when the requirement fails")
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--patients", type=int, default=500, help="phantoms to train on; 0 leaves the training out")
    parser.add_argument("settings", nargs="*", help="more settings of the training")
    options = parser.parse_args()
    console = Console(width=120)
    passed = simulate((15, 50, 200, 1000, 5000), options.draws, console)
    if options.patients:
        with tempfile.TemporaryDirectory() as folder:
            passed &= train(Path(folder), options.patients, options.settings, console)
    console.print(f"Requirement (class-wise error at most {LARGEST_ERROR}): {verdict(passed)}.")
    return int(options.require and not passed)


if __name__ == "__main__":
    sys.exit(main())
