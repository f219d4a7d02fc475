"""The closed loop against a running server: upload images of another scanner, retrain, and see the gate decide.

python scripts/dev/demo_loop.py http://127.0.0.1:8000 FOLDER [--patients 288]

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

from lesion.client import Client
from lesion.core.cli_errors import cli_errors
from lesion.phantom.folder import generate

_SENDERS = 4  # requests at the same time


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=288)
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--key", help="an API key with the role admin, where the server requires one")
    options = parser.parse_args()
    generate(options.folder, patients=options.patients, slices=options.slices, seed=1, low_field=True)
    started = time.monotonic()
    with cli_errors(), Client(options.address, options.key) as client:
        before = client.wait_ready()["model_version"]
        upload(client, options.folder)
        review(client)
        job = client.retrain(epochs=options.epochs)
        print(f"Retraining: job {job['job_id']}")
        job = client.wait_job(job["job_id"], 600, stage_printer(options.epochs))
        print(f"{job['state']}: {job['reason']}")
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


def upload(client: Client, folder: Path) -> None:
    """Send one request per patient, so that the images of a patient are all on the same side of the gate."""
    patients: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in sorted(folder.glob("*/*.png")):
        patients[path.parent.name, f"low-field-{path.name.partition('_')[0]}"].append(path)

    def send(item: tuple[tuple[str, str], list[Path]]) -> dict[str, int]:
        (label, patient), paths = item
        outcome = client.upload([(path.name, path.read_bytes()) for path in paths], label, patient)
        return {kind: len(outcome[kind]) for kind in ("accepted", "quarantined", "rejected")}

    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(_SENDERS) as pool:
        for outcomes_of_patient in pool.map(send, patients.items()):
            counts.update(outcomes_of_patient)
    outcomes = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    print(f"Uploaded {counts.total()} images of another scanner: {outcomes}")


def review(client: Client) -> None:
    """Release what was quarantined: these labels are known to be right. An expert would look at each picture."""
    images = client.quarantine()
    for image in images:
        client.release(image["sha256"])
    print(f"Released {len(images)} quarantined images, as an expert would after looking at them.")


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
