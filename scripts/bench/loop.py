"""The closed loop on real data: first model on 30 %, 40 % uploaded over HTTP, retrained and judged under traffic.

python scripts/bench/loop.py --root DATA/brain_tumor_mri --weights WEIGHTS.safetensors [--flip 0.3] [--require]

Whole groups of near-duplicates go to one of three parts: 30 % train the first model, 40 % are uploaded, 30 % are never
shown to the loop and say at the end how good both models really are. With --flip 0 an expert (who knows the labels)
releases what the quarantine holds. With --flip 0.3 that share of the uploaded labels is wrong and nobody reviews.
Printed: what the intake did with right and wrong labels, the verdict, the requests sent all along with their failures
and versions, and the accuracy of both models on the part that nobody saw.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from lesion.client import Client
from lesion.core.cli_errors import errors_for_people
from lesion.core.errors import LesionError
from lesion.data.datamodule import FRACTIONS
from lesion.data.manifest import build_manifest
from lesion.data.scan import scan_folders
from lesion.model.predictor import Predictor

REPOSITORY = Path(__file__).parents[2]
SHARES = {"first": 0.3, "upload": 0.4, "unseen": 0.3}
CHUNK = 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="labelled images: class/* or split/class/*")
    parser.add_argument("--weights", default="hub", help="initial weights of the first model")
    parser.add_argument("--experiment", default="brain_tumor_mri")
    parser.add_argument("--flip", type=float, default=0.0, help="share of uploaded labels that are made wrong")
    parser.add_argument("--first-epochs", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--set", nargs="*", default=[], help="settings of the first training, such as data.size=224")
    parser.add_argument("--first-run", type=Path, help="use this finished run as the first model (made by this script)")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench_loop"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--require", action="store_true", help="exit 1 unless the loop did what it promises")
    options = parser.parse_args()
    with errors_for_people():
        return bench(options)


def bench(options: argparse.Namespace) -> int:
    out = options.out.resolve()
    shutil.rmtree(out / "storage", ignore_errors=True)
    parts = partition(options.root.resolve(), options.seed)
    first = out / "data"
    link(parts["first"], options.root.resolve(), first)
    run = options.first_run or train_first(options, first, out / "first")
    with serving(run, out / "storage") as address, Client(address) as client:
        client.wait_ready()
        traffic = Traffic(address, [options.root / path for path in parts["unseen"]["path"][:40]])
        traffic.start()
        result = loop(client, options, parts, traffic)
        traffic.stop()
    result |= traffic.summary()
    result |= really(run / "bundle", out / "storage", result["job"], options.root, parts["unseen"])
    (out / f"result_flip_{options.flip:g}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return int(options.require and not as_promised(result, options.flip))


def partition(root: Path, seed: int) -> dict[str, pd.DataFrame]:
    """Deal whole groups of near-duplicates to the parts, class by class."""
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
    shutil.rmtree(folder, ignore_errors=True)
    rows = rows.drop_duplicates("sha256")
    for path, label, sha256 in zip(rows["path"], rows["label"], rows["sha256"], strict=True):
        target = folder / label / f"{sha256[:16]}{Path(path).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(root / path)


def train_first(options: argparse.Namespace, data: Path, output: Path) -> Path:
    shutil.rmtree(output, ignore_errors=True)
    command = [
        sys.executable, REPOSITORY / "scripts" / "train.py", f"experiment={options.experiment}", f"data.root={data}",
        f"model.weights={options.weights}", f"trainer.max_epochs={options.first_epochs}", "logger=csv",
        "evaluation.folder_split=false", f"hydra.run.dir={output}", *options.set,
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=REPOSITORY)
    return output


class serving:  # noqa: N801 - used as a context manager
    """scripts/serve.py with its worker, on a free port."""

    def __init__(self, run: Path, storage: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        command = [
            sys.executable, REPOSITORY / "scripts" / "serve.py", f"bundle={run / 'bundle'}", f"port={port}",
            "storage=local", f"storage_root={storage}",
        ]  # fmt: skip
        storage.mkdir(parents=True)
        self.log = (storage / "server.log").open("w")
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def __enter__(self) -> str:
        return self.address

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.log.close()


class Traffic(threading.Thread):
    """A client that predicts some images a second, all along, and counts what it is answered."""

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

    def summary(self) -> dict:
        sent = sum(self.versions.values()) + len(self.failures)
        return {
            "requests": sent,
            "failed": len(self.failures),
            "failures": self.failures[:5],
            "versions": dict(self.versions),
        }


def loop(client: Client, options: argparse.Namespace, parts: dict[str, pd.DataFrame], traffic: Traffic) -> dict:
    old = client.wait_ready()["model_version"]
    started = time.monotonic()
    outcomes = upload(client, parts["upload"], options)
    seconds = time.monotonic() - started
    if options.flip == 0:
        for image in client.quarantine():
            client.release(image["sha256"])
    job = client.wait_job(client.retrain(epochs=options.epochs)["job_id"], 3600, tell)
    result = {"uploaded": outcomes, "upload_seconds": round(seconds, 1), "old": old, "job": job}
    if job["state"] == "promoted":
        client.wait_version(job["version"])
        time.sleep(3)
        client.rollback("the bench goes back to the first model")
        client.wait_version(old)
        result["rolled_back_to"] = client.wait_ready()["model_version"]
        time.sleep(3)
    return result


def tell(job: dict) -> None:
    line = f"{job['stage']} {job['epoch']}"
    if line != getattr(tell, "last", ""):
        print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)
        tell.last = line


def upload(client: Client, rows: pd.DataFrame, options: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Upload every row; returns how many of the right and of the wrong labels met which fate."""
    rng = np.random.default_rng(options.seed)
    classes = sorted(rows["label"].unique())
    wrong = rng.random(len(rows)) < options.flip
    given = [rng.choice([other for other in classes if other != label]) if flip else label
             for label, flip in zip(rows["label"], wrong, strict=True)]  # fmt: skip
    fates = {"right": Counter(), "wrong": Counter()}
    for label in classes:
        chosen = [index for index, other in enumerate(given) if other == label]
        for start in range(0, len(chosen), CHUNK):
            part = chosen[start : start + CHUNK]
            files = [(str(index), (options.root / rows["path"].iloc[index]).read_bytes()) for index in part]
            for fate, entries in client.upload(files, label).items():
                for entry in entries:
                    kind = "wrong" if wrong[int(entry["name"])] else "right"
                    fates[kind][fate if fate != "rejected" else f"rejected: {entry['code']}"] += 1
    return {kind: dict(counts) for kind, counts in fates.items()}


def really(first: Path, storage: Path, job: dict, root: Path, rows: pd.DataFrame) -> dict:
    """Accuracy of both models on the part that the loop never saw."""
    bundles = {"first": first}
    if job.get("version"):
        bundles["challenger"] = next(storage.glob(f"**/bundles/{job['version']}"))
    accuracy = {}
    for name, path in bundles.items():
        predictor = Predictor.load(path, device="cpu", threads=2)
        right = 0
        for start in range(0, len(rows), 32):
            part = rows.iloc[start : start + 32]
            answers = predictor.predict([(root / path).read_bytes() for path in part["path"]])
            right += sum(
                getattr(answer, "predicted_class", "") == label
                for answer, label in zip(answers, part["label"], strict=True)
            )
        accuracy[name] = round(right / len(rows), 4)
    return {"accuracy_on_unseen": accuracy, "unseen_images": len(rows)}


def as_promised(result: dict, flip: float) -> bool:
    state, accuracy = result["job"]["state"], result["accuracy_on_unseen"]
    quiet = result["failed"] == 0 and set(result["versions"]) <= {result["old"], result["job"].get("version")}
    if flip == 0:
        return quiet and state == "promoted" and result.get("rolled_back_to") == result["old"]
    wrong = result["uploaded"]["wrong"]
    most = wrong.get("quarantined", 0) > 0.5 * sum(wrong.values())
    worse = accuracy.get("challenger", 0.0) < accuracy["first"]
    return quiet and most and not (worse and state == "promoted")


if __name__ == "__main__":
    sys.exit(main())
