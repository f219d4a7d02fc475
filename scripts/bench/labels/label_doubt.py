"""Measure what happens to wrong labels that nobody reviews, on real MRI.

python -m scripts.bench.labels.label_doubt --root DATA/brain_tumor_mri --weights WEIGHTS.safetensors

Wrong labels: whole groups of near-duplicates go to one of three parts, as in scripts/bench/loop.py; 30 % train the
first model, 40 % are uploaded, 30 % of them under a wrong label. Printed: how many wrong labels are taken without
anybody being asked, at the upload and after the check before a retraining, and how many of them are among the first
35 % of the queue: all uploads that were stored, those in quarantine first, the most doubtful labels first.

Another archive: the files of one source are in color, those of another one in gray. The first model is trained on half
of the color files, and the gray ones are uploaded with their right labels. Printed: the champion's accuracy on the
held-out uploads, with and without those in quarantine, and its true accuracy on all uploads.
"""

import argparse
import shutil
import sys
from pathlib import Path

import pandas as pd
from rich.console import Console

from lesion.core.cli_errors import cli_errors
from lesion.data.datamodule import FRACTIONS
from lesion.data.manifest import build_manifest
from lesion.data.scan import scan_folders
from scripts.bench.common import bench_parser, bench_table, machine, verdict
from scripts.bench.labels.played_uploads import PlayedUploads, flip_labels, play_uploads
from scripts.bench.loop import link, partition, train_first

WRONG = 0.3  # share of the uploaded labels
FIRST_PART = 0.35  # of the queue
FOUND, TAKEN, DIFFERENCE = 0.9, 40, 0.03  # what is required
HALF = 0.5  # of the groups of color files: as many images as in the other case, about


def main() -> int:
    parser = bench_parser(__doc__, require="exit with 1 unless the wrong labels are found and the score is right")
    parser.add_argument("--root", type=Path, required=True, help="labeled images: class/* or split/class/*")
    parser.add_argument("--weights", default="hub", help="initial weights of the first models")
    parser.add_argument("--experiment", default="brain_tumor_mri")
    parser.add_argument("--first-epochs", type=int, default=4)
    parser.add_argument("--set", nargs="*", default=[], help="settings of the trainings, such as data.size=160")
    parser.add_argument("--again", action="store_true", help="use the trained models of an earlier call")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench_label_doubt"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with cli_errors():
        passed = [show_wrong_labels(options), show_other_archive(options)]
    return int(options.require and not all(passed))


def show_wrong_labels(options: argparse.Namespace) -> bool:
    parts = partition(options.root.resolve(), options.seed)
    rows = parts["upload"]
    uploaded = flip_labels(rows["label"].tolist(), WRONG, options.seed)
    played = play(options, "wrong_labels", parts["first"], rows, uploaded)
    table, wrong, queue = played.table, played.wrong, played.queue()
    asked_nobody = wrong & (table["status"] == "accepted")
    first = queue.iloc[: round(FIRST_PART * len(queue))]
    found = wrong[first.index].sum() / wrong[queue.index].sum()
    right_waiting = (~wrong & (table["status"] == "quarantined")).sum()
    shown = bench_table(f"{WRONG:.0%} wrong labels ({machine()})", ("", "number", "required"))
    shown.add_row("uploads", f"{len(table):,}", "")
    accuracy = (table["predicted"] == table["label"]).mean()
    shown.add_row("accuracy of the first model on them", f"{accuracy:.3f}", "")
    shown.add_row("wrong labels", f"{wrong.sum():,}", "")
    shown.add_row("of them rejected (a copy has another label)", f"{(wrong & (table['status'] == '')).sum():,}", "")
    shown.add_row("of them taken at the upload", f"{(wrong & table['accepted_first']).sum():,}", "")
    shown.add_row("of them taken after the check", f"{asked_nobody.sum():,}", f"≤ {TAKEN}")
    shown.add_row("right labels in quarantine", f"{right_waiting:,}", "")
    shown.add_row("uploads in quarantine", f"{(table['status'] == 'quarantined').sum():,}", "")
    shown.add_row(f"wrong labels in the first {FIRST_PART:.0%} of the queue", f"{found:.1%}", f"≥ {FOUND:.0%}")
    passed = bool(asked_nobody.sum() <= TAKEN and found >= FOUND)
    Console().print(shown, verdict(passed))
    return passed


def show_other_archive(options: argparse.Namespace) -> bool:
    first, rows = divide_archives(options.root.resolve(), options.seed)
    played = play(options, "other_archive", first, rows, rows["label"].tolist())
    table = played.table
    right = table["predicted"] == table["label"]
    held_out = table["split"] == "gate"
    accepted = held_out & (table["status"] == "accepted")
    score, true = right[held_out].mean(), right.mean()
    shown = bench_table(f"Another archive ({machine()})", ("", "images", "accuracy"))
    shown.add_row("all uploads, by their true labels", f"{len(table):,}", f"{true:.3f}")
    shown.add_row("held-out uploads, with those in quarantine", f"{held_out.sum():,}", f"{score:.3f}")
    shown.add_row(
        "held-out uploads, without those in quarantine", f"{accepted.sum():,}", f"{right[accepted].mean():.3f}"
    )
    doubted = (table["reason_code"] == "label_doubted").sum()
    shown.add_row("uploads whose label the check doubted", f"{doubted:,}", "")
    passed = bool(abs(score - true) <= DIFFERENCE)
    Console().print(shown, f"difference of at most {DIFFERENCE:.0%}: {verdict(passed)}")
    return passed


def divide_archives(root: Path, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the color files of a part of the groups, and the gray files that are related to no color file."""
    table = build_manifest("all", root, scan_folders(root), fractions=FRACTIONS, seed=seed).table
    table = table[table["split"] != "excluded"]
    has_color = (table["mode"] == "RGB").groupby(table["group"]).any()
    color = has_color.index[has_color].to_series().sample(frac=HALF, random_state=seed)
    first = table[table["group"].isin(color) & (table["mode"] == "RGB")]
    gray = table[~table["group"].map(has_color)].sample(frac=1, random_state=seed)
    return first, gray


def play(
    options: argparse.Namespace, name: str, first: pd.DataFrame, rows: pd.DataFrame, uploaded: list[str]
) -> PlayedUploads:
    """Train a first model, unless that was done before, and upload images to a storage of their own."""
    folder = options.out.resolve() / name
    run = folder / "run"
    if not (options.again and (run / "bundle").is_dir()):
        link(first, options.root.resolve(), folder / "data")
        train_first(options, folder / "data", run)
    shutil.rmtree(folder / "storage", ignore_errors=True)
    (folder / "storage").mkdir(parents=True)
    return play_uploads(run, rows, options.root.resolve(), uploaded, folder / "storage")


if __name__ == "__main__":
    sys.exit(main())
