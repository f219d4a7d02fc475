"""Ask a running server for a retraining, by hand or on a schedule: python scripts/retrain.py http://127.0.0.1:8000

An API key of the role admin comes from LESION_API_KEY. Nothing is asked for while a retraining is queued or running, or
while too few new images wait: the same data once more would only spend the gate's budget of looks. The exit status is 0
when there is nothing to do, or the retraining was asked for, or with --wait ended as promoted or rejected; 1 when it
failed or was cancelled; 2 when the server refused or does not answer.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from lesion.client import ENDED, Client
from lesion.core.cli_errors import cli_errors
from lesion.core.errors import LesionError

AWAY = (502, 503, 504)  # what the client, or a proxy before the server, says of one that does not answer now
DAY_S, PAUSE_S = 86_400.0, 2.0
GOOD = ("promoted", "rejected")


def main() -> int:
    options = _parser().parse_args()
    with cli_errors(), Client(options.address, os.environ.get("LESION_API_KEY")) as client:
        job = _active(client) or _ask(client, options)
        if job is None or options.wait is None:
            return 0
        job = _end_of(client, job["job_id"], options.wait)
        print(f"{job['job_id']} {job['state']}: {job['reason']}", flush=True)
        return 0 if job["state"] in GOOD else 1


def _active(client: Client) -> dict[str, Any] | None:
    """Return the retraining that is queued or running, if one is: the newest, as there is one at a time."""
    latest = client.call("GET", "/retrain_jobs", params={"limit": 1})
    job = next((job for job in latest if job["state"] not in ENDED), None)
    if job is not None:
        print(f"{job['job_id']} is {job['state']} already, asked for by {job['requested_by']}.", flush=True)
    return job


def _ask(client: Client, options: argparse.Namespace) -> dict[str, Any] | None:
    waiting = client.call("GET", "/training_data")["next_retrain"]["images"]
    if waiting < options.new_images:
        print(f"Nothing to do: {waiting} new images wait, and --new-images is {options.new_images}.", flush=True)
        return None
    job = client.retrain(epochs=options.epochs)
    print(f"{job['job_id']} is queued; {waiting} new images wait.", flush=True)
    return job


def _end_of(client: Client, job_id: str, seconds: float) -> dict[str, Any]:
    """Wait for the end of a retraining, through the time in which a server is replaced by a newer one."""
    deadline, tell = time.monotonic() + seconds, _teller()
    while True:
        try:
            return client.wait_job(job_id, deadline - time.monotonic(), tell)
        except LesionError as error:
            if error.status not in AWAY:
                raise
            if time.monotonic() > deadline:
                raise LesionError(f"Job {job_id} did not end within {seconds:g} s.", code="timed_out") from error
        time.sleep(PAUSE_S)


def _teller() -> Callable[[dict[str, Any]], None]:
    """Return what prints a line whenever a retraining has got to another stage or epoch."""
    said: list[str] = []

    def tell(job: dict[str, Any]) -> None:
        line = f"{job['stage']}, {job['epoch']} of {job['epochs']} epochs"
        if said[-1:] != [line]:
            said.append(line)
            print(line, flush=True)

    return tell


def _parser() -> argparse.ArgumentParser:
    first, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=first, epilog=more)
    parser.add_argument("address", metavar="URL", help="the server, such as http://127.0.0.1:8000")
    parser.add_argument("--new-images", type=int, default=1, metavar="N", help="only if so many wait (default: 1)")
    parser.add_argument("--epochs", type=int, default=5, help="1 to 100 (default: 5)")
    parser.add_argument(
        "--wait",
        type=float,
        nargs="?",
        const=DAY_S,
        metavar="SECONDS",
        help="wait for the end, also of one that ran already and through restarts of the server; a day at most if "
        "no seconds are given",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
