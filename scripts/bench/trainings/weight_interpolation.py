"""Measure retrainings with interpolated weights: ``python -m scripts.bench.trainings.weight_interpolation --require``.

For each seed a champion is trained on phantoms, and then retrained as the loop does (from its weights, at a quarter of
its rate) on these images and new ones: more of the same scanner, or of another one (low field). The same training gives
both challengers: with the trained weights, and with those that ``interpolation_steps`` chose on the validation split.
All are compared on many phantoms that no training of this seed saw, of both scanners. Counted are the images on which
the champion is right and the challenger is wrong, and the accuracy. The intervals of the differences are those of a
paired t-test over the seeds (95 %). Required of each situation: fewer images that were right become wrong (the interval
is below 0), and the accuracy is not shown to be lower and falls by half a point at most.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from numpy.typing import NDArray
from rich.console import Console
from safetensors.torch import save_file
from scipy import stats

from lesion.core.commands import CONFIGS
from lesion.data.datamodule import DataModule
from lesion.data.manifest import EXCLUDED, Manifest, build_manifest
from lesion.data.scan import scan_folders
from lesion.data.splits import split_groups
from lesion.model.classifier import ImageClassifier
from lesion.model.inference import dataset_logits
from lesion.model.weights import timm_state
from lesion.phantom.folder import generate
from lesion.training.fitting import fit
from scripts.bench.common import bench_parser, bench_table, machine, verdict

Hits = NDArray[np.bool_]
SAME, OTHER = "same scanner", "other scanner"
MOST_LOST = 0.005  # of accuracy
SLICES, SIZE = 2, 96
# Many for val, so that there are as many as in larger data.
FRACTIONS = {"train": 0.7, "val": 0.2, "calibration": 0.05, "test": 0.05}
RATES = {"none": 0.04, "pretrained": 2e-3}  # of the champion's training
COLUMNS = (
    "new images", "seed", "share", "champion right", "challenger right", "interpolated right", "became wrong",
    "became wrong, interpolated",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One retraining: which of the unseen images each model answers rightly."""

    situation: str
    seed: int
    share: float  # of the way to the trained weights that was chosen
    champion: Hits
    trained: Hits
    interpolated: Hits

    def became_wrong(self, challenger: Hits) -> float:
        return float((self.champion & ~challenger).mean())


def phantoms(folder: Path, name: str, patients: int) -> Manifest:
    """Make phantoms in a folder of ``folder``, and a manifest whose paths are relative to ``folder``."""
    low_field = name == OTHER
    root = generate(
        folder / name, patients=patients, slices=SLICES, size=SIZE, seed=int(low_field), low_field=low_field
    )
    rows = scan_folders(root, r"(patient\d+)")
    manifest = build_manifest("phantoms", root, rows, fractions=FRACTIONS, progress=False)
    return replace(manifest, root=folder, table=manifest.table.assign(path=f"{name}/" + manifest.table["path"]))


def divide(pool: Manifest, shares: Sequence[float], seed: int) -> list[pd.DataFrame]:
    """Divide the patients of a pool at random into parts with these shares, each with splits of its own."""
    rows = pool.used()
    labels, groups = pool.labels(rows), rows["group"].to_numpy()
    names = ("train", "val", "calibration")[: len(shares)]
    part = split_groups(labels, groups, dict(zip(names, shares, strict=True)), seed)
    tables = [rows[part == name] for name in names]
    return [
        table.assign(split=split_groups(pool.labels(table), table["group"].to_numpy(), FRACTIONS, seed))
        for table in tables
    ]


def manifest_of(pool: Manifest, *tables: pd.DataFrame) -> Manifest:
    """Join parts of pools; the splits named test of all but the first are left out, as the gate's are in the loop."""
    first, *others = tables
    left_out = [table.assign(split=table["split"].replace("test", EXCLUDED)) for table in others]
    return replace(pool, table=pd.concat([first, *left_out], ignore_index=True))


def preset(options: argparse.Namespace) -> list[str]:
    """Return the settings of a training from random weights, as the demo's, or from pretrained ones."""
    if options.weights == "none":
        return ["experiment=phantom_mri"]
    return ["data=phantom_mri", "augmentation@data.augmentation=mri", "trainer.precision=32-true"]


def fitted(
    manifest: Manifest, output: Path, seed: int, options: argparse.Namespace, *settings: str
) -> tuple[ImageClassifier, DataModule]:
    """Train on a manifest by the phantom preset and further settings."""
    path = manifest.save(output / "manifest.parquet")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose(
            "train",
            [
                *preset(options), f"data.root='{manifest.root}'", f"data.manifest='{path}'",
                f"paths.output='{output}'", f"data.cache_dir='{manifest.root / 'cache'}'", f"data.size={SIZE}",
                "trainer.accelerator=cpu", "logger=none",
                "callbacks.progress=null", "+trainer.enable_progress_bar=false", f"seed={seed}", *settings,
            ],
        )  # fmt: skip
    datamodule: DataModule = instantiate(config.data, _convert_="all")
    return fit(config, datamodule)[0], datamodule


def measure(pools: dict[str, Manifest], folder: Path, seed: int, options: argparse.Namespace) -> list[Measured]:
    """Train a champion, retrain it in each situation, and return how all do on the unseen images."""
    usual, other = pools[SAME], pools[OTHER]
    known = options.patients / (options.patients * 2 + options.unseen)
    first, more, unseen = divide(usual, (known, known, 1 - 2 * known), seed)
    share = options.patients / (options.patients + options.unseen)
    shifted, unseen_other = divide(other, (share, 1 - share), seed)
    rate = RATES["none" if options.weights == "none" else "pretrained"]
    model, datamodule = fitted(
        manifest_of(usual, first), folder / "champion", seed, options,
        f"model.weights='{options.weights}'", f"trainer.max_epochs={options.epochs}", f"model.lr={rate}",
    )  # fmt: skip
    weights = folder / "champion.safetensors"
    save_file(timm_state(model.network), weights)
    everything = pd.concat([unseen, unseen_other]).assign(split="test")
    datamodule.manifest = replace(usual, table=everything)
    champion = right(model, datamodule)
    found = []
    for situation, new in ((SAME, more), (OTHER, shifted)):
        output = folder / situation
        model, _ = fitted(
            manifest_of(usual, first, new), output, seed, options, f"model.weights='{weights}'",
            f"trainer.max_epochs={options.retrain_epochs}", f"model.lr={rate / 4}",
            f"interpolation_steps={options.steps}", f"model.pad_type='{model.backbone_kwargs.get('pad_type', '')}'",
            "finetune.warmup_epochs=0", f"optimized_metric={options.metric}",
        )  # fmt: skip
        assert model.interpolation is not None
        interpolated = right(model, datamodule)
        checkpoint = torch.load(output / "checkpoints" / "best.ckpt", weights_only=True)
        model.load_state_dict(checkpoint["state_dict"])
        trained = right(model, datamodule)
        found.append(Measured(situation, seed, model.interpolation["share"], champion, trained, interpolated))
    return found


def right(model: ImageClassifier, datamodule: DataModule) -> Hits:
    images = datamodule.dataset("test")
    return np.asarray(dataset_logits(model.network, images).argmax(axis=1) == images.labels)


def row(one: Measured) -> list[str]:
    """Return the cells of one retraining."""
    models = (one.champion, one.trained, one.interpolated)
    wrong = [one.became_wrong(challenger) for challenger in models[1:]]
    shares = [float(hits.mean()) for hits in models] + wrong
    return [one.situation, str(one.seed), f"{one.share:.1f}", *(f"{share:.1%}" for share in shares)]


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of paired differences and its 95 % interval by the t-distribution."""
    values = np.array(differences)
    mean = float(values.mean())
    reach = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return mean, mean - reach, mean + reach


def report(situation: str, found: list[Measured], console: Console) -> bool:
    """Print the mean differences of one situation, and return whether the requirement is met."""
    wrong = interval([one.became_wrong(one.interpolated) - one.became_wrong(one.trained) for one in found])
    points = interval([float(one.interpolated.mean() - one.trained.mean()) for one in found])
    console.print(
        f"{situation}: interpolated minus trained, on {len(found[0].champion):,} unseen images: became wrong "
        f"{wrong[0]:+.2%} ({wrong[1]:+.2%} to {wrong[2]:+.2%}), right {points[0]:+.2%} ({points[1]:+.2%} to "
        f"{points[2]:+.2%})."
    )
    return wrong[2] < 0 and points[2] >= 0 and points[0] >= -MOST_LOST


def bench(options: argparse.Namespace, console: Console) -> bool:
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.data or Path(temporary)).resolve()
        numbers = {SAME: 2 * options.patients + options.unseen, OTHER: options.patients + options.unseen}
        pools = {name: phantoms(folder, name, patients) for name, patients in numbers.items()}
        found = []
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as output:
                found += measure(pools, Path(output), seed, options)
            for one in found[-2:]:
                console.print(", ".join(map(" ".join, zip(COLUMNS, row(one), strict=True))))
    table = bench_table("One row for each retraining; shares of the unseen images", COLUMNS)
    for one in sorted(found, key=lambda one: (one.situation != SAME, one.seed)):
        table.add_row(*row(one))
    console.print(table)
    parts = {name: [one for one in found if one.situation == name] for name in (SAME, OTHER)}
    met = [report(name, part, console) for name, part in parts.items()]
    return all(met)


def main() -> int:
    parser = bench_parser(__doc__, require="exit with 1 when the requirement fails")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--metric", default="val/f1_macro", help="by which the share is chosen")
    parser.add_argument("--patients", type=int, default=120, help="of the champion's images, and again of the new ones")
    parser.add_argument("--unseen", type=int, default=300, help="patients of each scanner that no training sees")
    parser.add_argument("--epochs", type=int, default=15, help="of the champion's training")
    parser.add_argument("--retrain-epochs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--weights", default="none", help="of the champion's training: none, or a .safetensors file")
    parser.add_argument("--data", type=Path, help="where the phantoms are kept for another run")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds must be at least 2: the intervals are those of a mean over the seeds")
    console = Console(width=150)
    passed = bench(options, console)
    console.print(f"Requirement (fewer became wrong, no fewer right): {verdict(passed)}; {machine()}.")
    return int(options.require and not passed)


if __name__ == "__main__":
    sys.exit(main())
