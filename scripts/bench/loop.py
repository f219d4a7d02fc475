"""Measure the closed loop on real data: upload over HTTP, retrain, and decide, while predictions are requested.

python scripts/bench/loop.py --root DATA/brain_tumor_mri --weights WEIGHTS.safetensors [--flip 0.3] [--require]

Whole groups of near-duplicates go to one of three parts: 30 % train the first model, 40 % are uploaded, and 30 % are
never shown to the loop; they measure at the end how good both models really are. With --flip 0 an expert, who knows the
labels, releases what was quarantined. With --flip 0.3 that share of the uploaded labels is wrong and nobody reviews.
Printed: what the intake did with right and wrong labels, the verdict of the gate, the predictions that were requested
all the time with their failures and versions, and the accuracy of both models on the unseen part.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesion.client import Client
from lesion.core.cli_errors import cli_errors
from lesion.core.commands import lesion_command
from lesion.core.errors import LesionError
from lesion.data.datamodule import FRACTIONS
from lesion.data.manifest import build_manifest
from lesion.data.scan import scan_folders
from lesion.model.predictor import Predictor
from scripts.bench.common import REPOSITORY, api_server, bench_parser, timed
from scripts.dev.demo_loop import stage_printer

SHARES = {"first": 0.3, "upload": 0.4, "unseen": 0.3}
CHUNK = 50  # images per upload
PREDICT_CHUNK = 32


def main() -> int:
    parser = bench_parser(__doc__, require="exit with 1 unless the loop did what it promises")
    parser.add_argument("--root", type=Path, required=True, help="labeled images: class/* or split/class/*")
    parser.add_argument("--weights", default="hub", help="initial weights of the first model")
    parser.add_argument("--experiment", default="brain_tumor_mri")
    parser.add_argument("--flip", type=float, default=0.0, help="share of uploaded labels that are made wrong")
    parser.add_argument("--first-epochs", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--set", nargs="*", default=[], help="settings of the first training, such as data.size=224")
    parser.add_argument("--first-run", type=Path, help="use this finished run as the first model (made by this script)")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench_loop"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with cli_errors():
        return bench(options)


def bench(options: argparse.Namespace) -> int:
    out, root = options.out.resolve(), options.root.resolve()
    storage = out / "storage"
    shutil.rmtree(storage, ignore_errors=True)
    parts = partition(root, options.seed)
    link(parts["first"], root, out / "data")
    run = options.first_run or train_first(options, out / "data", out / "first")
    settings = (f"bundle={run / 'bundle'}", "storage=local", f"storage_root={storage}")
    with api_server(storage, *settings) as address, Client(address) as client:
        traffic = Traffic(address, [root / path for path in parts["unseen"]["path"][:40]])
        traffic.start()
        result = loop(client, options, parts["upload"])
        traffic.stop()
    result |= traffic.summary() | measure(run / "bundle", storage, result["job"], root, parts["unseen"])
    (out / f"result_flip_{options.flip:g}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return int(options.require and not as_promised(result, options.flip))


def partition(root: Path, seed: int) -> dict[str, pd.DataFrame]:
    """Divide whole groups of near-duplicates among the parts, class by class."""
    table = build_manifest("all", root, scan_folders(root), fractions=FRACTIONS, seed=seed).table
    table = table[table["split"] != "excluded"]
    groups = (
        table.groupby("group").agg(label=("label", "first"), size=("label", "size")).sample(frac=1, random_state=seed)
    )
    part = pd.Series("", index=groups.index)
    for _, members in groups.groupby("label"):
        place = (members["size"].cumsum() - members["size"] / 2) / members["size"].sum()
        edges = np.cumsum(list(SHARES.values()))[:-1]
        part[members.index] = np.array(list(SHARES))[np.searchsorted(edges, place)]
    shuffled = table.sample(frac=1, random_state=seed)
    return {name: shuffled[shuffled["group"].map(part) == name] for name in SHARES}


def link(rows: pd.DataFrame, root: Path, folder: Path) -> None:
    """Make a dataset of class folders from links to images."""
    shutil.rmtree(folder, ignore_errors=True)
    rows = rows.drop_duplicates("sha256")
    for path, label, sha256 in zip(rows["path"], rows["label"], rows["sha256"], strict=True):
        target = folder / label / f"{sha256[:16]}{Path(path).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(root / path)


def train_first(options: argparse.Namespace, data: Path, output: Path) -> Path:
    shutil.rmtree(output, ignore_errors=True)
    command = [
        *lesion_command("train"), f"experiment={options.experiment}", f"data.root={data}",
        f"model.weights={options.weights}", f"trainer.max_epochs={options.first_epochs}", "logger=csv",
        "evaluation.folder_split=false", f"hydra.run.dir={output}", *options.set,
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=REPOSITORY)
    return output


class Traffic(threading.Thread):
    """A client that predicts some images per second all the time and counts the responses."""

    def __init__(self, address: str, paths: list[Path], per_second: float = 5.0) -> None:
        super().__init__(daemon=True)
        self._address, self._images, self._pause = address, [path.read_bytes() for path in paths], 1 / per_second
        self._done = threading.Event()
        self.versions: Counter[str] = Counter()
        self.failures: list[str] = []

    def run(self) -> None:
        with Client(self._address) as client:
            while not self._done.wait(self._pause):
                try:
                    self.versions[client.predict(random.choice(self._images))["model_version"]] += 1
                except LesionError as error:
                    self.failures.append(f"{error.code}: {error.message}")

    def stop(self) -> None:
        self._done.set()
        self.join(60)

    def summary(self) -> dict[str, Any]:
        return {
            "requests": self.versions.total() + len(self.failures),
            "failed": len(self.failures),
            "failures": self.failures[:5],
            "versions": dict(self.versions),
        }


def loop(client: Client, options: argparse.Namespace, rows: pd.DataFrame) -> dict[str, Any]:
    """Upload, retrain, and go back to the first model if another one was promoted."""
    first = client.wait_ready()["model_version"]
    outcomes, seconds = timed(lambda: upload(client, rows, options))
    if options.flip == 0:
        for image in client.quarantine():
            client.release(image["sha256"])
    job = client.wait_job(client.retrain(epochs=options.epochs)["job_id"], 3600, stage_printer(options.epochs))
    result = {"uploaded": outcomes, "upload_seconds": round(seconds, 1), "old": first, "job": job}
    if job["state"] == "promoted":
        client.wait_version(job["version"])
        time.sleep(3)
        client.rollback("the bench returns to the first model")
        client.wait_version(first)
        result["rolled_back_to"] = client.wait_ready()["model_version"]
        time.sleep(3)
    return result


def upload(client: Client, rows: pd.DataFrame, options: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Upload every row; return how many of the right and of the wrong labels had which outcome."""
    rng = np.random.default_rng(options.seed)
    classes = sorted(rows["label"].unique())
    wrong = rng.random(len(rows)) < options.flip
    labels = [rng.choice([other for other in classes if other != label]) if flip else label
              for label, flip in zip(rows["label"], wrong, strict=True)]  # fmt: skip
    outcomes: dict[str, Counter[str]] = {"right": Counter(), "wrong": Counter()}
    for label in classes:
        places = [index for index, other in enumerate(labels) if other == label]
        for start in range(0, len(places), CHUNK):
            chunk = places[start : start + CHUNK]
            files = [(str(index), (options.root / rows["path"].iloc[index]).read_bytes()) for index in chunk]
            for outcome, images in client.upload(files, label).items():
                for image in images:
                    kind = "wrong" if wrong[int(image["name"])] else "right"
                    outcomes[kind][f"rejected: {image['code']}" if outcome == "rejected" else outcome] += 1
    return {kind: dict(counts) for kind, counts in outcomes.items()}


def measure(first: Path, storage: Path, job: dict[str, Any], root: Path, rows: pd.DataFrame) -> dict[str, Any]:
    """Return the accuracy of both models on the part that the loop never saw."""
    bundles = {"first": first}
    if job.get("version"):
        bundles["challenger"] = next(storage.glob(f"**/bundles/{job['version']}"))
    accuracy = {name: round(right_answers(path, root, rows) / len(rows), 4) for name, path in bundles.items()}
    return {"accuracy_on_unseen": accuracy, "unseen_images": len(rows)}


def right_answers(bundle: Path, root: Path, rows: pd.DataFrame) -> int:
    predictor = Predictor.load(bundle, device="cpu", threads=2)
    right = 0
    for start in range(0, len(rows), PREDICT_CHUNK):
        part = rows.iloc[start : start + PREDICT_CHUNK]
        predictions = predictor.predict([(root / path).read_bytes() for path in part["path"]])
        classes = [getattr(prediction, "predicted_class", "") for prediction in predictions]
        right += sum(name == label for name, label in zip(classes, part["label"], strict=True))
    return right


def as_promised(result: dict[str, Any], flip: float) -> bool:
    """Return whether no prediction failed and the loop promoted, quarantined and rolled back what it should."""
    state, accuracy = result["job"]["state"], result["accuracy_on_unseen"]
    undisturbed = result["failed"] == 0 and set(result["versions"]) <= {result["old"], result["job"].get("version")}
    if flip == 0:
        return undisturbed and state == "promoted" and result.get("rolled_back_to") == result["old"]
    wrong = result["uploaded"]["wrong"]
    mostly_quarantined = wrong.get("quarantined", 0) > 0.5 * sum(wrong.values())
    worse = accuracy.get("challenger", 0.0) < accuracy["first"]
    return undisturbed and mostly_quarantined and not (worse and state == "promoted")


if __name__ == "__main__":
    sys.exit(main())
