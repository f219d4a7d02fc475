"""The closed loop against a running server: upload images of another scanner, retrain, and see the gate decide.

python scripts/dev/demo_loop.py http://127.0.0.1:8000 FOLDER [--patients 440]

FOLDER has class folders of images named patient0001_slice00.png; if it is missing, phantoms of a low-field scanner are
generated there.
"""

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lesion.cli.retrain import print_end, print_estimate
from lesion.client import Client
from lesion.core.cli_errors import cli_errors
from lesion.phantom.folder import generate

_SENDERS = 4  # requests at the same time


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=440)
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--key", help="an API key with the role admin, where the server requires one")
    options = parser.parse_args()
    generate(options.folder, patients=options.patients, slices=options.slices, seed=1, low_field=True)
    started = time.monotonic()
    with cli_errors(), Client(options.address, options.key) as client:
        before = client.wait_ready()["model_version"]
        review(client, upload(client, options.folder))
        print_estimate(client.retrain_estimate(options.epochs))
        job = client.retrain(epochs=options.epochs)
        print(f"Retraining: job {job['job_id']}")
        job = client.wait_job(job["job_id"], 600, stage_printer(options.epochs))
        print_end(job)
        if job["state"] == "rejected":  # few images do not always prove an improvement
            print(f"Uploaded, retrained and compared in {time.monotonic() - started:.0f} s; version {before} stays.")
            return 0
        if job["state"] != "promoted":
            return 1
        client.wait_version(job["version"])
        image = next(options.folder.glob("*/*.png"))
        prediction = client.predict(image.read_bytes())
        print(f"Version {before} was replaced by {prediction['model_version']} without a pause.")
        print(f"Uploaded, retrained, tested and replaced in {time.monotonic() - started:.0f} s.")
        return 0 if prediction["model_version"] == job["version"] else 1


def upload(client: Client, folder: Path) -> dict[str, str]:
    """Send one request per patient, so that the images of a patient are all on the same side of the gate.

    Return the right label of each image that was stored, by its hash.
    """
    patients: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in sorted(folder.glob("*/*.png")):
        patients[path.parent.name, f"low-field-{path.name.partition('_')[0]}"].append(path)

    def send(item: tuple[tuple[str, str], list[Path]]) -> dict[str, list[dict[str, Any]]]:
        (label, patient), paths = item
        return client.upload([(path.name, path.read_bytes()) for path in paths], label, patient)

    counts, labels = Counter[str](), dict[str, str]()
    with ThreadPoolExecutor(_SENDERS) as pool:
        for (label, _), outcome in zip(patients, pool.map(send, patients.items()), strict=True):
            counts.update({kind: len(outcome[kind]) for kind in ("accepted", "quarantined", "rejected")})
            labels |= {image["sha256"]: label for kind in ("accepted", "quarantined") for image in outcome[kind]}
    outcomes = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    print(f"Uploaded {counts.total()} images of another scanner: {outcomes}")
    return labels


def review(client: Client, labels: dict[str, str]) -> None:
    """Decide about what waits in quarantine as an expert would who looks at each picture: release its right label."""
    images, relabeled = client.quarantine(), 0
    for image in images:
        right = labels.get(image["sha256"], image["label"])
        wrong = right != image["label"]
        relabeled += wrong
        client.release(image["sha256"], right if wrong else None)
    print(f"A scripted reviewer, who knows the right labels, released {len(images)} images from quarantine,")
    print(f"{relabeled} of them under another label than they were sent with.")


def stage_printer(epochs: int) -> Callable[[dict[str, Any]], None]:
    """Return a function for ``Client.wait_job`` that prints each new stage and epoch once."""
    printed: set[str] = set()

    def show(job: dict[str, Any]) -> None:
        epoch = f", epoch {job['epoch']}/{epochs}" if job["stage"] == "train" else ""
        line = f"  {job['stage']}{epoch}"
        if line not in printed:
            print(line, flush=True)
            printed.add(line)

    return show


if __name__ == "__main__":
    sys.exit(main())
