"""The closed loop against a running server: upload images of another scanner, retrain, and see the gate decide.

python scripts/dev/demo_loop.py http://127.0.0.1:8000 FOLDER [--patients 80]

FOLDER has class folders of images named patient0001_slice00.png; if it is missing, phantoms of a low-field scanner are
made there.
"""

import argparse
import re
import sys
import time
from collections import defaultdict
from pathlib import Path

from lesion.client import Client
from lesion.core.cli_errors import cli_errors
from lesion.core.errors import LesionError
from lesion.phantom.folder import generate

PATIENT = re.compile(r"(patient\d+)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=96)
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--key", help="an API key with the role admin, where the server asks for one")
    arguments = parser.parse_args()
    generate(arguments.folder, patients=arguments.patients, slices=arguments.slices, seed=1, low_field=True)
    started = time.monotonic()
    with cli_errors(), Client(arguments.address, arguments.key) as client:
        before = client.wait_ready()["model_version"]
        upload(client, arguments.folder)
        review(client)
        job = retrain(client, arguments.epochs)
        print(f"{job['state']}: {job['reason']}")
        if job["state"] != "promoted":
            return 1
        client.wait_version(job["version"])
        image = next(arguments.folder.glob("*/*.png"))
        answer = client.predict(image.read_bytes())
        print(f"Version {before} was replaced by {answer['model_version']} while serving.")
        print(f"Uploaded, retrained, proved and swapped in {time.monotonic() - started:.0f} s.")
        return 0 if answer["model_version"] == job["version"] else 1


def upload(client: Client, folder: Path) -> None:
    """Send a request a patient, so that no patient's images come to stand on both sides of the gate."""
    patients: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in sorted(folder.glob("*/*.png")):
        match = PATIENT.search(path.name)
        if match is None:
            raise LesionError(f"{path} does not name its patient.")
        patients[path.parent.name, f"low-field-{match.group(1)}"].append(path)
    counts: dict[str, int] = defaultdict(int)
    for (label, patient), paths in patients.items():
        outcome = client.upload([(path.name, path.read_bytes()) for path in paths], label, patient)
        for kind in ("accepted", "quarantined", "rejected"):
            counts[kind] += len(outcome[kind])
    print(
        f"Uploaded {sum(counts.values())} images of another scanner: "
        + ", ".join(f"{n} {k}" for k, n in counts.items())
    )


def review(client: Client) -> None:
    """Release what was quarantined: these labels are known to be right. An expert would look at each picture."""
    waiting = client.quarantine()
    for image in waiting:
        client.release(image["sha256"])
    print(f"Released {len(waiting)} quarantined images, as an expert would after looking at them.")


def retrain(client: Client, epochs: int) -> dict:
    job = client.retrain(epochs=epochs)
    last = ""

    def tell(state: dict) -> None:
        nonlocal last
        line = f"  {state['stage']}" + (f", epoch {state['epoch']}/{epochs}" if state["stage"] == "train" else "")
        if line != last:
            print(line, flush=True)
            last = line

    print(f"Retraining: job {job['job_id']}")
    return client.wait_job(job["job_id"], 600, tell)


if __name__ == "__main__":
    sys.exit(main())
