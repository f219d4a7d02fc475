"""Ask a running server for a retraining, by hand or on a schedule: lesion retrain http://127.0.0.1:8000.

An API key of the role admin comes from LESION_API_KEY. First it is printed what a retraining could prove; with
--estimate that is all. No retraining is requested while another is queued or running, while fewer than --new-images
images wait (with the same data it would only use up one look at the gate's images), or while nothing could be proved.
The exit status is 0 when there is nothing to do, when the retraining was requested, or with --wait when it ended as
promoted, rejected or budget_spent (the gate could not decide any more); 1 when it failed or was cancelled; 2 when the
server refused or does not answer.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lesion.client import ENDED, Client, ClientError, WaitTimeoutError
from lesion.core.cli_errors import cli_errors

_UNAVAILABLE = (502, 503, 504)  # of a server, or a proxy before it, that may answer again later
_DAY_S, _PAUSE_S = 86_400.0, 2.0
_DECIDED = ("promoted", "rejected", "budget_spent")


def main(arguments: Sequence[str] | None = None) -> int:
    """Request a retraining and return the exit status that the module's docstring explains."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.json and not options.estimate:
        parser.error("--json needs --estimate.")
    with cli_errors(), Client(options.address, os.environ.get("LESION_API_KEY")) as client:
        if options.estimate:
            estimate = client.retrain_estimate(options.epochs)
            print(json.dumps(estimate, indent=2)) if options.json else print_estimate(estimate)
            return 0
        job = _active_job(client) or _request(client, options)
        if job is None or options.wait is None:
            return 0
        job = _wait(client, job["job_id"], options.wait)
        print_end(job)
        return 0 if job["state"] in _DECIDED else 1


def print_estimate(estimate: Mapping[str, Any]) -> None:
    """Print how long a retraining would take, what it could prove, and what makes that likelier."""
    if estimate["seconds"] is not None:
        print(f"A retraining takes about {estimate['seconds']:,.0f} s.")
    print(estimate["basis"])
    print_summary(estimate.get("summary"))
    if estimate.get("gate_settings") == "default":
        print("This was computed with the default settings of the gate, since no worker runs that has told its own.")


def print_end(job: Mapping[str, Any]) -> None:
    """Print how a retraining ended and why, and what to do next."""
    print(f"{job['job_id']} {job['state']}: {job['reason']}")
    print_summary((job["verdict"] or {}).get("summary"), why=False)


def print_summary(summary: Mapping[str, Any] | None, *, why: bool = True) -> None:
    """Print a summary of the gate, in lists one sentence a line; servers of an earlier version do not send one."""
    if summary is None:
        return
    if why:
        print(summary["why"])
    print("What to do next:")
    for step in summary["next_steps"]:
        print(f"- {step}", flush=True)


def _active_job(client: Client) -> dict[str, Any] | None:
    """Return the retraining that is queued or running, if there is one: it is the newest, since only one runs."""
    latest = client.call("GET", "/retrain_jobs", params={"limit": 1})
    job = next((job for job in latest if job["state"] not in ENDED), None)
    if job is not None:
        print(f"{job['job_id']} is {job['state']} already, asked for by {job['requested_by']}.", flush=True)
    return job


def _request(client: Client, options: argparse.Namespace) -> dict[str, Any] | None:
    waiting = client.call("GET", "/training_data")["next_retrain"]["images"]
    if waiting < options.new_images:
        print(f"Nothing to do: {waiting} new images wait, and --new-images is {options.new_images}.", flush=True)
        return None
    estimate = client.retrain_estimate(options.epochs)
    print_estimate(estimate)
    if not estimate.get("would_train", True):  # servers of an earlier version do not tell
        print("Nothing is asked for: no new model could be promoted now.", flush=True)
        return None
    job = client.retrain(epochs=options.epochs)
    print(f"{job['job_id']} is queued; {waiting} new images wait.", flush=True)
    return job


def _wait(client: Client, job_id: str, seconds: float) -> dict[str, Any]:
    """Wait for the end of a retraining, also while the server is replaced by a newer one."""
    deadline, print_progress = time.monotonic() + seconds, _progress_printer()
    while True:
        try:
            return client.wait_job(job_id, deadline - time.monotonic(), print_progress)
        except ClientError as error:
            if error.status not in _UNAVAILABLE:
                raise
            if time.monotonic() > deadline:
                raise WaitTimeoutError(f"Job {job_id} did not end within {seconds:g} s.") from error
        time.sleep(_PAUSE_S)


def _progress_printer() -> Callable[[dict[str, Any]], None]:
    """Return a function that prints a line whenever a retraining is at another stage or epoch, or has no worker."""
    last_lines = ["", ""]

    def print_progress(job: dict[str, Any]) -> None:
        lines = [f"{job['stage']}, {job['epoch']} of {job['epochs']} epochs", ""]
        worker = job.get("worker")  # servers of an earlier version do not tell
        if worker is not None and not worker["running"]:
            since = f" since {worker['seen_at']}" if worker["seen_at"] else ""
            lines[1] = f"No worker is running{since}; the job waits until one is started."
        for line, last in zip(lines, last_lines, strict=True):
            if line and line != last:
                print(line, flush=True)
        last_lines[:] = lines

    return print_progress


def _parser() -> argparse.ArgumentParser:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="lesion retrain", description=summary, epilog=details)
    parser.add_argument("address", metavar="URL", help="the server, such as http://127.0.0.1:8000")
    parser.add_argument(
        "--new-images", type=int, default=1, metavar="N", help="only if at least N new images wait (default: 1)"
    )
    parser.add_argument(
        "--estimate", action="store_true", help="only print how long a retraining would take and what it could prove"
    )
    parser.add_argument("--json", action="store_true", help="with --estimate: print it as JSON")
    parser.add_argument("--epochs", type=int, default=5, help="1 to 100 (default: 5)")
    parser.add_argument(
        "--wait",
        type=float,
        nargs="?",
        const=_DAY_S,
        metavar="SECONDS",
        help="wait for the end, also of a retraining that was running already and through restarts of the server; "
        "at most a day if no seconds are given",
    )
    return parser
